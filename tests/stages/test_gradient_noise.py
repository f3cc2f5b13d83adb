"""The gradient noise scale: right on a known problem, measured on real snapshots."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iddpm.data import open_source, write_shards
from iddpm.params import Device, DigitsDataset, Model, Source
from iddpm.stages.gradient_noise import NoiseScale, gradient_noise_scale
from iddpm.training.loop import DiffusionTraining

from ..conftest import tiny_params


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    dataset = DigitsDataset(source=Source.DIGITS)
    list(write_shards(open_source(dataset, Path("data/raw")), dataset, folder))
    return folder


def training_of(shards: Path, **settings: Any) -> DiffusionTraining:
    model = tiny_params()["models"]["digits"]
    model["training"] |= {"objective": "vlb"} | settings
    return DiffusionTraining(Model.model_validate_json(json.dumps(model)), shards, Device.CPU)


class KnownGradient:
    """Stands for a training whose sample gradients are N(0.1, 0.5^2) in each of 400 parameters."""

    def __init__(self, batch_size: int) -> None:
        self.training = SimpleNamespace(steps=0, batch_size=batch_size)
        self.device = torch.device("cpu")
        self.network = torch.nn.Linear(400, 1, bias=False)

    def accumulate_gradient(self, step: int) -> None:
        noise = torch.randn(self.training.batch_size, 400, generator=torch.Generator().manual_seed(step))
        self.network.weight.grad = (0.1 + 0.5 * noise).mean(0, keepdim=True)


def measure(training: Any, batches: int) -> NoiseScale:
    *_, result = gradient_noise_scale(training, batches)
    assert result is not None
    return result


@pytest.mark.parametrize("batch_size", [1, 16])
def test_known_noise_scale_at_any_batch_size(batch_size: int) -> None:
    result = measure(KnownGradient(batch_size), 200)
    assert result.gradient_variance == pytest.approx(400 * 0.25, rel=0.05)
    assert result.squared_gradient == pytest.approx(400 * 0.01, rel=0.15)
    assert abs(result.noise_scale - 25) < 4 * result.standard_error
    assert 0 < result.standard_error < 5


def test_too_few_batches() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        list(gradient_noise_scale(KnownGradient(1), 9))  # type: ignore[arg-type]


def test_a_model_has_one_scale_whatever_its_accumulation(shards: Path) -> None:
    scales = [measure(training_of(shards, microbatches=parts), 20) for parts in (1, 4)]
    assert scales[0].noise_scale == pytest.approx(scales[1].noise_scale, rel=1e-3)
    assert scales[0].gradient_variance > 0


def test_extra_measurements_are_not_paid_for(shards: Path) -> None:
    resampled = training_of(shards, timestep_sampling="loss_second_moment", extra_measurements=2)
    passes: list[int] = []
    resampled.network.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    measure(resampled, 10)
    assert passes == [16] * 10
