"""Ray around a training: what it starts ends with the training."""

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from iddpm.params import Compute
from iddpm.training import WorkFolder, launcher

from .test_resume import model


@mock.patch.dict(os.environ)
def test_a_process_that_hangs_in_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that were started for the training; others are let alone."""
    started = [subprocess.Popen(["sleep", "600"])]
    monkeypatch.setattr(launcher, "_start_ray", lambda compute: started.append(subprocess.Popen(["sleep", "600"])))
    monkeypatch.setattr(launcher, "_make_trainer", lambda *_: SimpleNamespace(fit=lambda: None))
    monkeypatch.setattr(launcher, "ENDING_S", 0.1)
    assert not launcher.launch_diffusion_training(model(), tmp_path, WorkFolder(tmp_path), Compute(workers=2))
    other, hanging = started
    assert hanging.wait(10) == -signal.SIGKILL and other.poll() is None
    other.kill()
    other.wait()
