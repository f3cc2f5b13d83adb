"""Deliveries beside a running stage: the stage must not notice when MLflow is gone."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iddpm.tracking import Courier, deliver, deliver_pending
from tests.tracking.conftest import all_runs, append_row, curve, parent_run, record, stage_run

pytestmark = pytest.mark.tools


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_dead_server_costs_one_line_and_nothing_is_lost(
    root: Path, dead_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
    run_dir = root / "work/train/abc"
    running = record()
    running.write(run_dir)
    with Courier(run_dir, root, every_s=0.05):
        for step in range(1, 21):
            append_row(run_dir, step, {"loss": 1 / step})
            time.sleep(0.02)
        running.ended("FINISHED").write(run_dir)
    (line,) = capfd.readouterr().err.splitlines()
    address = dead_server.replace("user:secret@", "")
    assert line.startswith(f"tracking: {address} does not answer ([Errno 111] Connection refused); ")
    assert line.endswith("the run goes on, its log is kept in work/train/abc and delivered later: iddpm track")

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert deliver_pending(root / "work", root) == [running.key]
    assert curve(root, "loss") == [(step, 1 / step) for step in range(1, 21)]
    assert (stage_run(root).info.status, parent_run(root).info.status) == ("FINISHED", "FINISHED")
    assert not run_dir.exists()


def test_curves_can_be_watched_and_each_outage_is_told_once(
    root: Path, dead_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dir = root / "work/train/abc"
    running = record()
    running.write(run_dir)
    deliver(run_dir, root)
    append_row(run_dir, 1, {"loss": 1})
    told = ""

    def outages() -> int:
        nonlocal told
        told += capfd.readouterr().err
        return told.count("does not answer")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
    with Courier(run_dir, root, every_s=0.05):
        wait_until(lambda: outages() == 1)
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        wait_until(lambda: any(run.data.metrics for run in all_runs(root)))
        assert (stage_run(root).info.status, curve(root, "loss")) == ("RUNNING", [(1, 1)])
        monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
        wait_until(lambda: outages() == 2)
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        append_row(run_dir, 2, {"loss": 0.5})
        running.ended("FINISHED").write(run_dir)
    assert outages() == 2
    assert (stage_run(root).info.status, curve(root, "loss")) == ("FINISHED", [(1, 1), (2, 0.5)])


def test_an_exception_of_the_stage_passes_and_its_end_is_delivered(root: Path) -> None:
    run_dir = root / "work/train/abc"
    running = record()
    running.write(run_dir)
    with pytest.raises(RuntimeError, match="out of memory"), Courier(run_dir, root):
        running.ended("FAILED").write(run_dir)
        raise RuntimeError("out of memory")
    assert stage_run(root).info.status == "FAILED"


def test_a_damaged_project_changes_nothing_for_the_stage(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_dir = root / "work/train/abc"
    record().write(run_dir)
    (root / "mlflow.db").write_bytes(b"this is no database" * 1000)
    with Courier(run_dir, root, every_s=0.05):
        time.sleep(0.2)
    assert capfd.readouterr().err.count("does not answer (file is not a database)") == 1
