"""The gradient noise scale: right on a known problem, measured on real snapshots."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iddpm.params import Device
from iddpm.training.gradient_noise import NoiseScale, gradient_noise_scale
from iddpm.training.loop import DiffusionTraining

from .test_objectives import model


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
    scales = [
        measure(DiffusionTraining(model({"objective": "vlb", "microbatches": parts}), shards, Device.CPU), 20)
        for parts in (1, 4)
    ]
    assert scales[0].noise_scale == pytest.approx(scales[1].noise_scale, rel=1e-3)
    assert scales[0].gradient_variance > 0
