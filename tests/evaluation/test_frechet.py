"""The Frechet distance against other implementations, and its errors against the spread of many draws."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from iddpm.evaluation import frechet
from iddpm.evaluation.frechet import (
    Moments,
    frechet_distance,
    frechet_distance_infinity,
    frechet_standard_error,
    moments,
)

DIMENSIONS = 16
SCALES = torch.arange(1, DIMENSIONS + 1, dtype=torch.float64).rsqrt()
SHIFT = torch.zeros(DIMENSIONS, dtype=torch.float64).index_fill(0, torch.arange(4), 0.3)
REFERENCE = Moments(torch.zeros_like(SHIFT), SCALES.square().diag())
TRUE_DISTANCE = float((SHIFT.square() + (0.1 * SCALES).square()).sum())


def drawn(count: int, seed: int) -> Tensor:
    """Of a Gaussian at TRUE_DISTANCE from the reference's."""
    normal = torch.randn(count, DIMENSIONS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return normal * SCALES * 0.9 + SHIFT


def features(count: int, dimensions: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=generator)
    return torch.randn(count, dimensions, generator=generator) @ mixing + torch.randn(dimensions, generator=generator)


def constant_columns(x: Tensor) -> Tensor:
    return x.index_fill(1, torch.arange(0, x.shape[1], 3), 0.0)


def test_known_gaussians() -> None:
    """Same covariance, means apart by a vector of length 5: the distance is 25."""
    points = features(400, 6, 0).double()
    shifted = points + torch.tensor([3.0, 4.0, 0, 0, 0, 0])
    assert frechet_distance(moments(shifted), moments(points)) == pytest.approx(25, rel=1e-9)
    assert frechet_distance(moments(points), moments(points)) == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize(
    "samples",
    [features(300, 24, 1), constant_columns(features(300, 24, 1)), features(20, 24, 1)],
    ids=["full rank", "constant pixels", "fewer samples than dimensions"],
)
@pytest.mark.parametrize("reference", [features(500, 24, 2), constant_columns(features(500, 24, 2))], ids=["", "const"])
def test_equals_torchmetrics_and_scipy(samples: Tensor, reference: Tensor) -> None:
    metric = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    ours = frechet_distance(moments(samples), moments(reference))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)

    one, other = samples.double().numpy(), reference.double().numpy()
    covariances = [np.cov(x, rowvar=False) for x in (one, other)]
    root = np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    by_scipy = ((one.mean(0) - other.mean(0)) ** 2).sum() + sum(np.trace(c) for c in covariances) - 2 * root
    assert ours == pytest.approx(by_scipy, rel=1e-5)


class Given(torch.nn.Module):
    num_features = 24

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_moments_are_those_of_numpy_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = features(100, 5, 3) + 1000  # far from 0, where float32 sums would lose digits
    for block in (7, 4096):
        monkeypatch.setattr(frechet, "BLOCK", block)
        found = moments(points)
        assert np.allclose(found.mean, points.double().mean(0), rtol=1e-14)
        assert np.allclose(found.covariance, np.cov(points.double(), rowvar=False), rtol=1e-12)
    rest = found.without(points[:30], 100)
    assert np.allclose(rest.mean, points[30:].double().mean(0), rtol=1e-14)
    assert np.allclose(rest.covariance, np.cov(points[30:].double(), rowvar=False), rtol=1e-9)


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        moments(torch.zeros(1, 3))


def test_extrapolation_removes_the_bias_of_few_samples() -> None:
    values, limits = [], []
    for seed in range(40):
        samples = drawn(100, seed)
        found = moments(samples)
        values.append(frechet_distance(found, REFERENCE))
        limit = frechet_distance_infinity(samples, found, REFERENCE, seed=0)
        assert limit is not None
        limits.append(limit.value)
    assert np.mean(values) > TRUE_DISTANCE + 0.08
    assert np.mean(limits) == pytest.approx(TRUE_DISTANCE, abs=0.03)


def test_extrapolation_is_refused_where_the_bias_is_not_linear() -> None:
    samples = drawn(4 * DIMENSIONS - 1, 0)
    assert frechet_distance_infinity(samples, moments(samples), REFERENCE, seed=0) is None


@pytest.mark.parametrize("count", [4 * DIMENSIONS, 20 * DIMENSIONS])
def test_error_of_the_extrapolation_is_the_spread_of_many_draws(count: int) -> None:
    values, errors = [], []
    for seed in range(60):
        samples = drawn(count, seed)
        found = moments(samples)
        limit = frechet_distance_infinity(samples, found, REFERENCE, seed=0)
        assert limit is not None
        values.append(limit.value)
        errors.append(np.hypot(frechet_standard_error(samples, found, REFERENCE), limit.fit_error))
    assert 0.85 < np.mean(errors) / np.std(values) < 1.2


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_standard_error_is_the_spread_of_many_draws(count: int) -> None:
    """Also with fewer samples than dimensions."""
    values, errors = [], []
    for seed in range(150):
        samples = drawn(count, seed)
        found = moments(samples)
        values.append(frechet_distance(found, REFERENCE))
        errors.append(frechet_standard_error(samples, found, REFERENCE))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)


def test_standard_error_is_the_bootstraps_with_many_samples() -> None:
    samples = drawn(4000, 0)
    generator = torch.Generator().manual_seed(0)
    resampled = [
        frechet_distance(moments(samples[torch.randint(4000, (4000,), generator=generator)]), REFERENCE)
        for _ in range(200)
    ]
    error = frechet_standard_error(samples, moments(samples), REFERENCE)
    assert error == pytest.approx(np.std(resampled), rel=0.15)


def test_interval_covers_the_true_distance() -> None:
    covered = 0
    for seed in range(200):
        samples = drawn(2000, seed)
        found = moments(samples)
        apart = abs(frechet_distance(found, REFERENCE) - TRUE_DISTANCE)
        covered += apart < 1.96 * frechet_standard_error(samples, found, REFERENCE)
    assert 0.9 < covered / 200 < 0.985
