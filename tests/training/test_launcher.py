"""Ray around a training: what it starts ends with the training."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from iddpm.params import Compute
from iddpm.training import WorkFolder, launcher

from .test_resume import model


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that would run for ten minutes; the first was there before."""
    processes = [subprocess.Popen(["sleep", "600"])]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@mock.patch.dict(os.environ)
def test_a_process_that_hangs_in_its_end_is_killed(
    started: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it was started with Ray; others are let alone, those of the training too."""

    def start() -> None:
        started.append(subprocess.Popen(["sleep", "600"]))

    monkeypatch.setattr(launcher, "_start_ray", lambda compute: start())
    monkeypatch.setattr(launcher, "_make_trainer", lambda *_: SimpleNamespace(fit=start))
    monkeypatch.setattr(launcher, "ENDING_S", 0.1)
    assert not launcher.launch_diffusion_training(model(), tmp_path, WorkFolder(tmp_path), Compute(workers=2))
    before, hanging, own = started
    assert hanging.wait(10) == -signal.SIGKILL and before.poll() is own.poll() is None
