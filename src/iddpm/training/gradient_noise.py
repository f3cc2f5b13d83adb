"""The gradient noise scale of a model in training (McCandlish et al. 2018, appendix A; paper, section 3.3)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from iddpm.training.loop import DiffusionTraining

GROUPS = 5


class NoiseScale(NamedTuple):
    """B_simple = tr(covariance of a sample's gradient) / |mean gradient|^2, in images, and its parts."""

    noise_scale: float
    standard_error: float
    gradient_variance: float
    squared_gradient: float


def gradient_noise_scale(training: DiffusionTraining, batches: int) -> Iterator[NoiseScale | None]:
    """Estimate the noise scale at the current weights from `batches` (at least 2 x 5) gradients of whole batches.

    Yields None after every batch, for progress, and the result at the end. The batches are those that training
    would see after its last step. Both parts are unbiased: within each of five groups of n gradients g_i of batches
    of B images, tr = B * sum |g_i - mean|^2 / (n - 1) and |G|^2 = |mean|^2 - tr / (n B). The standard error of
    their ratio is a jackknife over the groups. A gradient that drowns in noise gives a scale that is infinite.
    """
    per_group = batches // GROUPS
    if per_group < 2:
        raise ValueError(f"{batches} batches are too few; take at least {2 * GROUPS}")
    first = training.training.steps
    parts = np.zeros((GROUPS, 2))
    for group in range(GROUPS):
        total, squares = torch.zeros(1, device=training.device), 0.0
        for step in range(first + group * per_group, first + (group + 1) * per_group):
            training.accumulate_gradient(step)
            gradient = torch.cat([p.grad.flatten() for p in training.network.parameters() if p.grad is not None])
            total, squares = total + gradient, squares + float(gradient.double().square().sum())
            yield None
        mean_square = float((total / per_group).double().square().sum())
        batch_variance = (squares - per_group * mean_square) / (per_group - 1)
        parts[group] = batch_variance * training.training.batch_size, mean_square - batch_variance / per_group
    yield _ratio(parts)


def _ratio(parts: np.ndarray) -> NoiseScale:
    """The ratio of the group means of (variance, squared gradient) [groups, 2], with its jackknife error."""

    def scale(rows: np.ndarray) -> float:
        variance, squared = rows.mean(0)
        return float(variance / squared) if squared > 0 else float("inf")

    without = np.array([scale(np.delete(parts, group, axis=0)) for group in range(len(parts))])
    finite = np.isfinite(without).all()
    spread = np.sqrt((len(parts) - 1) * without.var()) if finite else np.inf
    return NoiseScale(scale(parts), float(spread), *parts.mean(0).tolist())
