"""Stages that are stopped or killed: nothing is left running, nothing is lost."""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..conftest import Project, make_project, tiny_params
from .test_pipeline import change, repro

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which the training is next."""
    project = make_project(tmp_path_factory.mktemp("interruptions") / "project")
    assert repro(project, "shard") == {"shard@digits"}
    return project


@pytest.fixture(scope="module")
def ending() -> Iterator[list[psutil.Process]]:
    """Processes that end by themselves while the tests of this module go on."""
    processes: list[psutil.Process] = []
    yield processes
    wait_for(lambda: not any(process.is_running() for process in processes))


def test_ray_workers_stop_with_a_checkpoint_and_die_with_the_stage(
    sharded: Project, ending: list[psutil.Process]
) -> None:
    params = tiny_params() | {"compute": {"workers": 2, "device": "cpu"}}
    params["models"]["digits"]["training"]["steps"] = 200_000
    sharded.write(params)
    train = ("iddpm", "stage", "train", "digits")
    known = set(running_logs(sharded.root))
    first = sharded.start(*train)
    second = None
    try:
        log = wait_for(lambda: new_log(sharded, known, rows=1))
        children = psutil.Process(first.pid).children(recursive=True)
        assert len(children) > 3  # the raylet and its workers
        first.send_signal(signal.SIGTERM)
        output, _ = first.communicate(timeout=150)
        wait_for(lambda: not any(child.is_running() for child in children), seconds=5)
        assert first.returncode == 128 + signal.SIGTERM, output
        reached = max(int(path.name.split("-")[1]) for path in log.parent.glob("step-*"))
        second = sharded.start(*train)
        resumed = next(line for line in second.stdout or () if "resumed at step" in line)
        assert int(resumed.split()[-1]) == reached
        children = psutil.Process(second.pid).children(recursive=True)
        # Ray's agents try for a minute to tell its server, which has died too.
        ending += [child for child in children if child.name().endswith("Agent")]
        second.kill()
        second.communicate(timeout=150)
        wait_for(lambda: not any(child.is_running() for child in children if child not in ending))
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
        sharded.write(tiny_params())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killing_dvc_leaves_no_orphan_and_loses_nothing(sharded: Project, number: signal.Signals) -> None:
    """The stage ends by itself within seconds, with a checkpoint, and the next repro goes on from there."""
    change(sharded, "models.digits.training.steps", 100_000 + int(number))
    known = set(running_logs(sharded.root))
    process = sharded.start("dvc", "repro", "train@digits", SHELL="/bin/sh")  # a shell that stays, if it can
    try:
        log = wait_for(lambda: new_log(sharded, known, rows=3))
        stage = next(p for p in psutil.Process(process.pid).children(recursive=True) if "stage" in p.cmdline())
        process.send_signal(number)
        process.communicate(timeout=150)
        wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
        reached = max(int(path.name.split("-")[1]) for path in log.parent.glob("step-*"))
        assert reached >= 6
        again = sharded.start("iddpm", "stage", "train", "digits")
        resumed = next(line for line in again.stdout or () if "resumed at step" in line)
        assert int(resumed.split()[-1]) == reached
        again.send_signal(signal.SIGINT)
        again.communicate(timeout=150)
        assert again.returncode == 128 + signal.SIGINT
    finally:
        process.kill()
        sharded.write(tiny_params())


def test_a_parent_that_dies_at_once_leaves_no_orphan(sharded: Project) -> None:
    """Within the stage's own imports, seconds before it trains (Linux)."""
    change(sharded, "models.digits.training.steps", 300_000)
    parent = (
        "import subprocess, time; stage = subprocess.Popen(['iddpm', 'stage', 'train', 'digits'])\n"
        "print(stage.pid, flush=True)\n"
        "while 'torch' not in open(f'/proc/{stage.pid}/maps').read(): time.sleep(0.01)"
    )
    known = set(running_logs(sharded.root))
    process = sharded.start(sys.executable, "-c", parent)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.communicate(timeout=150)  # waits for the stage too: it holds the pipe
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert set(running_logs(sharded.root)) == known
    sharded.write(tiny_params())


def running_logs(root: Path) -> list[Path]:
    return list((root / "work" / "train").glob("*/metrics.jsonl"))


def new_log(project: Project, known: set[Path], rows: int) -> Path | None:
    """The metrics log of a training that started since, once it has that many rows."""
    logs = set(running_logs(project.root)) - known
    return next((path for path in logs if path.read_text().count("\n") >= rows), None)


def wait_for(condition: Any, seconds: float = 150) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("did not happen in time")
