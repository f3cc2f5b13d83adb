"""Every sensible combination trains; noise draws in groups, upsamplers and smaller sizes are what they say."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from iddpm.checks import load_params
from iddpm.diffusion import Mean, Objective, TimestepSampling, Variance
from iddpm.errors import UserError
from iddpm.params import Device, DiffusionSurrogate, Model
from iddpm.training import WorkFolder
from iddpm.training.checkpoint import open_checkpoint
from iddpm.training.launcher import run_diffusion_training
from iddpm.training.loop import DiffusionTraining

from ..conftest import write_tiny_params

STEPS = 12


def model(training: dict[str, Any], diffusion: dict[str, Any] | None = None, **top: Any) -> Model:
    return Model.model_validate_json(
        json.dumps(
            {
                "dataset": "digits",
                "network": {"width": 8, "channel_mult": [1], "blocks": 1, "attention_sizes": []},
                "diffusion": {"timesteps": 10} | (diffusion or {}),
                "training": {"steps": STEPS, "batch_size": 32, "learning_rate": 3.0e-3, "log_every": STEPS} | training,
            }
            | top
        )
    )


def loss_everywhere(training: DiffusionTraining) -> float:
    """The loss over fixed images and noise at timesteps spread over [0, T)."""
    with torch.no_grad():
        batch = training._images(torch.arange(10_000, 10_100))
        t = torch.arange(100) % training.process.timesteps
        return float(training._losses(batch, t, range(2))["loss"].double().mean())


COMBINATIONS = list(itertools.product(Objective, Variance, Mean, TimestepSampling))


def makes_sense(objective: Objective, variance: Variance) -> bool:
    """A learned variance needs an objective that trains it, and L_hybrid a variance to train."""
    return objective is Objective.VLB or (objective is Objective.HYBRID) == variance.learned


@pytest.mark.parametrize(
    ("objective", "variance", "mean", "sampling"),
    [case for case in COMBINATIONS if makes_sense(case[0], case[1])],
    ids=lambda choice: choice.value,
)
def test_every_sensible_combination_trains(
    shards: Path, objective: Objective, variance: Variance, mean: Mean, sampling: TimestepSampling
) -> None:
    draws = {"noise_draws": 2} if objective is Objective.IWDIFF else {}
    training = DiffusionTraining(
        model({"objective": objective, "timestep_sampling": sampling} | draws, {"variance": variance, "mean": mean}),
        shards,
        Device.CPU,
    )
    before = loss_everywhere(training)
    for step in range(STEPS):
        training.training_step(step)
    assert loss_everywhere(training) < before  # false for nan as well
    assert training.meters.means()["skipped_steps"] == 0
    uniform = torch.full((10,), 0.1, dtype=torch.float64)
    learned = not torch.allclose(training.timestep_sampler.probabilities(), uniform, rtol=1e-3)
    assert learned == (sampling is TimestepSampling.LOSS_SECOND_MOMENT)


@pytest.mark.parametrize(
    ("objective", "variance"), [pair for pair in itertools.product(Objective, Variance) if not makes_sense(*pair)]
)
def test_every_senseless_combination_is_refused(tmp_path: Path, objective: Objective, variance: Variance) -> None:
    path = write_tiny_params(
        tmp_path,
        {
            "models.digits.training.objective": objective.value,
            "models.digits.training.noise_draws": 2,
            "models.digits.diffusion.variance": variance.value,
        },
    )
    with pytest.raises(UserError, match=f"models.digits.training.objective: .*{variance.value}"):
        load_params(path)


def test_draws_in_groups_change_only_rounding_and_bound_memory(shards: Path, tmp_path: Path) -> None:
    """IWDiff with five draws at once, and two at a time: the same curve, from forward passes of at most 2 x 32."""
    settings = {"objective": "iwdiff", "iwdiff_reduction": "sum", "noise_draws": 5, "log_every": 1}
    rows, largest = {}, 0

    def watch(module: Any, inputs: Any) -> None:
        nonlocal largest
        largest = max(largest, len(inputs[0]))

    for at_once in (None, 2):
        training = DiffusionTraining(
            model(settings | {"draws_at_once": at_once}, {"variance": "fixed_large"}), shards, Device.CPU
        )
        handle = training.network.register_forward_pre_hook(watch)
        largest = 0
        for step in range(5):
            training.training_step(step)
        rows[at_once] = training.meters.means()
        handle.remove()
        assert largest == 32 * (at_once or 5)
    assert rows[2] == pytest.approx(rows[None], rel=1e-4)


def test_the_control_averages_its_draws(shards: Path) -> None:
    """L_simple over k draws has the gradient of the mean over k separate batches of noise."""
    training = DiffusionTraining(
        model({"objective": "simple", "noise_draws": 3}, {"variance": "fixed_large"}), shards, Device.CPU
    )
    torch.nn.init.normal_(training.network.out[2].weight, generator=torch.Generator().manual_seed(0))
    batch, t = training._images(torch.arange(32)), torch.arange(32) % 10
    training._backward(batch, t, torch.ones(32), True)
    together = training.network.out[2].weight.grad.clone()
    training.network.zero_grad()
    separate = torch.stack([training._losses(batch, t, range(draw, draw + 1))["loss"] for draw in range(3)])
    separate.mean(0).mean().backward()
    torch.testing.assert_close(together, training.network.out[2].weight.grad, rtol=1e-4, atol=1e-6)


def test_extra_measurements_teach_the_sampler_and_not_the_network(shards: Path) -> None:
    runs = []
    for extra in (0, 2):
        sampling = {"timestep_sampling": "loss_second_moment"} if extra else {}
        training = DiffusionTraining(
            model({"objective": "hybrid", "extra_measurements": extra} | sampling), shards, Device.CPU
        )
        training.training_step(0)
        runs.append(training)
    for ours, theirs in zip(runs[0].network.parameters(), runs[1].network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert int(runs[1].timestep_sampler.state_dict()["counts"].sum()) == 3 * 32


def test_the_log_does_not_depend_on_how_timesteps_are_drawn(shards: Path) -> None:
    """A network that hardly learns, under both samplers: importance weights make the logged means agree."""
    means = []
    for sampling in TimestepSampling:
        settings = {"objective": "vlb", "timestep_sampling": sampling, "learning_rate": 1e-12, "batch_size": 128}
        training = DiffusionTraining(model(settings, {"timesteps": 20}), shards, Device.CPU)
        for step in range(40):
            if step == 10:
                training.meters.reset()  # the importance sampler has warmed up
            training.training_step(step)
        means.append(training.meters.means())
    for name in ("loss", "vb_q0", "vb_q3", "mse"):
        assert means[1][name] == pytest.approx(means[0][name], rel=0.25), name
    assert means[1]["loss_q0"] == pytest.approx(means[0]["loss_q0"], rel=0.25)


def test_a_smaller_size_trains_on_averaged_grey_levels(shards: Path) -> None:
    full = model({"objective": "simple"}, {"variance": "fixed_large"})
    entry = full.model_dump(mode="json") | {"kind": "low_resolution", "size": 4}
    small = DiffusionSurrogate.model_validate_json(json.dumps(entry))
    training = DiffusionTraining(small, shards, Device.CPU)
    positions = torch.arange(16)
    x = training._images(positions).x_start
    large = DiffusionTraining(full, shards, Device.CPU)._images(positions).x_start
    assert x.shape == (16, 1, 4, 4)
    assert float((x - torch.nn.functional.avg_pool2d(large, 2)).abs().max()) <= 0.5 / 127.5 + 1e-6
    assert float(((x + 1) * 127.5 - ((x + 1) * 127.5).round()).abs().max()) < 1e-4
    training.training_step(0)


@pytest.mark.parametrize("augmentation", [0.0, 0.5])
def test_an_upsampler_trains_on_averaged_images(shards: Path, augmentation: float) -> None:
    entry = model({"objective": "hybrid"}, upsampling={"low_size": 4, "noise_augmentation": augmentation})
    training = DiffusionTraining(entry, shards, Device.CPU)
    batch = training._images(torch.arange(64))
    assert batch.low_res is not None and batch.low_res.shape == (64, 1, 4, 4)
    difference = batch.low_res - torch.nn.functional.avg_pool2d(batch.x_start, 2)
    if augmentation:
        assert batch.noise_level is not None and float(batch.noise_level.min()) >= 0
        assert float(batch.noise_level.max()) <= augmentation
        torch.testing.assert_close(difference.std((1, 2, 3)), batch.noise_level, rtol=0.7, atol=1e-3)
    else:
        assert batch.noise_level is None and float(difference.abs().max()) < 1e-6
    before = loss_everywhere(training)
    for step in range(STEPS):
        training.training_step(step)
    assert loss_everywhere(training) < before


def test_snapshots_are_checkpoints_of_the_run(shards: Path, tmp_path: Path) -> None:
    """A snapshot at step 8 holds what the run had there: training from it ends where the run ended."""
    work, again = WorkFolder(tmp_path / "work"), WorkFolder(tmp_path / "again")
    for folder in (work, again):
        folder.path.mkdir()
    entry = model({"objective": "hybrid", "steps": 12, "snapshot_every": 8, "timestep_sampling": "loss_second_moment"})
    assert run_diffusion_training(entry, shards, work, Device.CPU)
    assert [path.name for path in work.snapshots.iterdir()] == ["step-000000008"]
    training = DiffusionTraining(entry, shards, Device.CPU)
    snapshot = open_checkpoint(work.snapshots / "step-000000008")
    training.load(snapshot.weights, snapshot.state())
    for step in range(8, 12):
        training.training_step(step)
    expected = open_checkpoint(work.finished).weights("model")
    for name, value in training.network.state_dict().items():
        assert torch.equal(value, expected[name])
