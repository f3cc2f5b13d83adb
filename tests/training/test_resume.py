"""A run that was killed, cut up or spread over workers is the same run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from iddpm.params import Compute, Device, Model, SnganSurrogate
from iddpm.training import WorkFolder, train
from iddpm.training.gan import GanTraining
from iddpm.training.launcher import launch_diffusion_training, run_diffusion_training

MODEL: dict[str, Any] = {
    "dataset": "digits",
    "network": {
        "width": 8, "channel_mult": [1, 2], "blocks": 1, "attention_sizes": [4], "heads": 2, "dropout": 0.2,
        "conditioning": "class",
    },
    "diffusion": {"timesteps": 3, "variance": "fixed_large"},
    "training": {
        "steps": 24, "batch_size": 16, "learning_rate": 2.0e-3, "timestep_sampling": "loss_second_moment",
        "objective": "iwdiff", "iwdiff_reduction": "sum", "noise_draws": 2, "draws_at_once": 1, "extra_measurements": 1,
        "warmup_steps": 5, "gradient_clip": 1.0, "ema_decay": 0.9, "horizontal_flips": True, "log_every": 5,
        "checkpoint_every": 3,
    },
}  # fmt: skip


def model(**training: Any) -> Model:
    return Model.model_validate_json(json.dumps(MODEL | {"training": MODEL["training"] | training}))


@pytest.fixture(scope="module")
def uninterrupted(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    work = WorkFolder(tmp_path_factory.mktemp("uninterrupted"))
    assert run_diffusion_training(model(), shards, work, Device.CPU)
    return work


def rows(work: WorkFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "time_ms"} for row in work.metrics.rows()]


def assert_same_run(work: WorkFolder, expected: WorkFolder) -> None:
    for name in ("model", "ema"):
        file = f"finished/{name}.safetensors"
        assert (work.path / file).read_bytes() == (expected.path / file).read_bytes()
    ours, theirs = (
        torch.load(w.path / "step-000000021" / "state.pt", weights_only=True)["trainee"] for w in (work, expected)
    )
    for name, value in theirs["timestep_sampler"].items():
        assert torch.equal(ours["timestep_sampler"][name], value)
    for index, moments in theirs["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(ours["optimizer"]["state"][index][name], value)
    assert rows(work) == rows(expected)


def test_stopped_and_resumed_is_bit_for_bit_the_same(
    shards: Path, uninterrupted: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops at steps 4, 11 and 17, none of them a logging or checkpoint step."""
    from iddpm.training.loop import DiffusionTraining

    work, original = WorkFolder(tmp_path), DiffusionTraining.training_step

    def step_then_ask(self: DiffusionTraining, step: int) -> None:
        original(self, step)
        if step + 1 in (4, 11, 17):
            work.stop_request.touch()

    monkeypatch.setattr(DiffusionTraining, "training_step", step_then_ask)
    for _ in range(3):
        assert not run_diffusion_training(model(), shards, work, Device.CPU)
        work.stop_request.unlink()
    assert run_diffusion_training(model(), shards, work, Device.CPU)
    assert_same_run(work, uninterrupted)


KILLED_RUN = """
import sys
from pathlib import Path
from iddpm.params import Device, Model
from iddpm.training import WorkFolder
from iddpm.training.launcher import run_diffusion_training
model, shards, work = Model.model_validate_json(sys.argv[1]), Path(sys.argv[2]), WorkFolder(Path(sys.argv[3]))
run_diffusion_training(model, shards, work, Device.CPU)
"""


@pytest.mark.tools
@pytest.mark.parametrize("rows_before", [1, 3])
def test_kill_9_and_resumed_is_bit_for_bit_the_same(
    shards: Path, uninterrupted: WorkFolder, tmp_path: Path, rows_before: int
) -> None:
    work = WorkFolder(tmp_path)
    command = [sys.executable, "-c", KILLED_RUN, model().model_dump_json(), str(shards), str(tmp_path)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while len(work.metrics.rows()) < rows_before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not work.finished.exists()
    assert run_diffusion_training(model(), shards, work, Device.CPU)
    assert "resumed at step" in work.messages.read_text()
    assert_same_run(work, uninterrupted)


def test_accumulation_changes_only_rounding(shards: Path, uninterrupted: WorkFolder, tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    assert run_diffusion_training(model(microbatches=4), shards, work, Device.CPU)
    for ours, theirs in zip(rows(work), rows(uninterrupted), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.tools
@mock.patch.dict(os.environ)
def test_two_ray_workers_draw_the_same_curve(shards: Path, uninterrupted: WorkFolder, tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    listening_before = listening()
    addresses: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            addresses.update(listening() - listening_before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert launch_diffusion_training(model(), shards, work, Compute(workers=2, device=Device.CPU))
    finally:
        done.set()
        watcher.join()
    for ours, theirs in zip(rows(work), rows(uninterrupted), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert addresses, "Ray was never seen listening"
    assert all(address.startswith(("127.", "::1", "::ffff:127.")) for address in addresses), addresses


def listening() -> set[str]:
    """Local addresses in LISTEN state (Linux), as text."""
    import psutil

    return {f"{c.laddr.ip}:{c.laddr.port}" for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}


def test_a_gradient_that_stays_non_finite_ends_the_run(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iddpm.errors import UserError
    from iddpm.training.loop import DiffusionTraining

    original = DiffusionTraining._images

    def poisoned(self: DiffusionTraining, positions: torch.Tensor) -> Any:
        batch = original(self, positions)
        return batch._replace(x_start=batch.x_start * float("nan")) if int(positions[0]) >= 16 * 7 else batch

    monkeypatch.setattr(DiffusionTraining, "_images", poisoned)
    work = WorkFolder(tmp_path)
    with pytest.raises(UserError, match="3 steps in a row had a non-finite gradient, the last at step 10"):
        run_diffusion_training(model(nonfinite_limit=3), shards, work, Device.CPU)
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-000000006", "step-000000009"]
    assert all(torch.isfinite(value).all() for value in torch_weights(tmp_path / kept[-1]))


def test_one_non_finite_step_is_skipped_and_spoils_nothing(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the importance sampler has warmed up: 16 steps of 16 images are more than 10 losses for each of T = 3."""
    from iddpm.training.loop import DiffusionTraining

    original = DiffusionTraining._images

    def poisoned(self: DiffusionTraining, positions: torch.Tensor) -> Any:
        batch = original(self, positions)
        return batch._replace(x_start=batch.x_start * float("nan")) if int(positions[0]) == 16 * 16 else batch

    monkeypatch.setattr(DiffusionTraining, "_images", poisoned)
    work = WorkFolder(tmp_path)
    assert run_diffusion_training(model(), shards, work, Device.CPU)
    assert [row["skipped_steps"] for row in work.metrics.rows()] == pytest.approx([0, 0, 0, 0.2, 0])
    assert all(value == value for row in work.metrics.rows() for value in row.values())
    state = torch.load(tmp_path / "step-000000021" / "state.pt", weights_only=True)["trainee"]["timestep_sampler"]
    assert (state["counts"] >= 10).all() and torch.isfinite(state["losses"]).all()


def torch_weights(checkpoint: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(checkpoint / "model.safetensors").values())


def test_an_interrupted_gan_is_the_same_gan(shards: Path, tmp_path: Path) -> None:
    surrogate = SnganSurrogate.model_validate_json(
        json.dumps(
            {
                "kind": "sngan", "dataset": "digits", "conditioning": "class", "steps": 6, "critic_steps": 2,
                "batch_size": 8, "generator_width": 8, "discriminator_width": 8, "z_dim": 4,
                "log_every": 4, "checkpoint_every": 2,
            }
        )
    )  # fmt: skip

    def run(work: WorkFolder, steps: int) -> None:
        train(GanTraining(surrogate, shards, Device.CPU), work, steps=steps, log_every=4, checkpoint_every=2)

    whole, parts = WorkFolder(tmp_path / "whole"), WorkFolder(tmp_path / "parts")
    for work in (whole, parts):
        work.path.mkdir()
    run(whole, 6)
    run(parts, 5)  # as if killed after step 5: the checkpoint of step 4 is the newest
    run(parts, 6)
    for name in ("model", "ema", "discriminator"):
        file = f"finished/{name}.safetensors"
        assert (whole.path / file).read_bytes() == (parts.path / file).read_bytes()
    assert rows(whole)[-1] == rows(parts)[-1]
