"""KID against torchmetrics, and its standard error against the spread of many draws."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import KernelInceptionDistance

from iddpm.evaluation.kernel import kernel_distance, paired_kernel_distance, standard_error


def drawn(count: int, mean: float, seed: int) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) + mean


class Given(torch.nn.Module):
    num_features = 8

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_one_subset_of_everything_is_torchmetrics() -> None:
    samples, reference = drawn(60, 0.2, 0), drawn(60, 0.0, 1)
    metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=60).set_dtype(torch.float64)
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    found = kernel_distance(samples, reference, 60, seed=0)
    assert found == pytest.approx([float(metric.compute()[0])], rel=1e-9)
    assert standard_error(found) is None


def test_subsets_are_disjoint_and_as_many_as_the_smaller_set_holds() -> None:
    """One sample moved far away is felt in one subset alone."""
    samples, reference = drawn(75, 0.0, 0), drawn(200, 0.0, 1)
    before = kernel_distance(samples, reference, 10, seed=3)
    samples[np.arange(75) == 17] += 50
    after = kernel_distance(samples, reference, 10, seed=3)
    assert len(before) == 7
    assert sum(one != other for one, other in zip(before, after, strict=True)) <= 1
    assert kernel_distance(samples, reference, 10, seed=4) != after


def test_standard_error_is_the_spread_of_many_draws() -> None:
    """And the mean over draws of one distribution is 0."""
    values, errors = [], []
    for seed in range(60):
        parts = kernel_distance(drawn(300, 0.0, seed), drawn(300, 0.0, 1000 + seed), 30, seed=0)
        values.append(np.mean(parts))
        errors.append(standard_error(parts))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)
    assert abs(np.mean(values)) < 3 * np.std(values) / 60**0.5


@pytest.mark.parametrize("sizes", [(20, 50), (50, 20)])
def test_a_subset_larger_than_a_set_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="kid_subset_size: 21 is more than the 20 images"):
        kernel_distance(drawn(sizes[0], 0, 0), drawn(sizes[1], 0, 1), 21, seed=0)


def test_paired_distance_is_that_of_all_pairs_but_the_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iddpm.evaluation.kernel.ROWS_AT_ONCE", 3)
    first, second = drawn(7, 0.3, 0), drawn(7, 0.0, 1)

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x.double() @ y.double()) / 8 + 1) ** 3

    def direct(rows: list[int]) -> float:
        terms = [
            kernel(first[i], first[j]) + kernel(second[i], second[j]) - 2 * kernel(first[i], second[j])
            for i in rows
            for j in rows
            if i != j
        ]
        return sum(terms) / len(terms)

    left_out = [direct([row for row in range(7) if row != out]) for out in range(7)]
    distance = paired_kernel_distance(first, second)
    assert distance.value == pytest.approx(direct(list(range(7))), rel=1e-9)
    assert distance.without.tolist() == pytest.approx(left_out, rel=1e-9)
    assert distance.standard_error == pytest.approx(np.std(left_out) * 6**0.5, rel=1e-9)


def test_a_difference_has_the_error_of_many_draws() -> None:
    """Two sets of nearly the same images: their distances are far less certain than which is the smaller one."""
    differences, alone = [], []
    for seed in range(80):
        originals, one = drawn(30, 0.0, seed), drawn(30, 1.0, 1000 + seed)
        other = one + 0.1 + 0.05 * drawn(30, 0.0, 2000 + seed)
        distances = [paired_kernel_distance(features, originals) for features in (other, one)]
        differences.append(distances[0].minus(distances[1]))
        alone.append(distances[0].standard_error)
    values = np.array([difference.value for difference in differences])
    error = np.mean([difference.standard_error for difference in differences])
    assert values.mean() > 0 and error == pytest.approx(values.std(), rel=0.2) and error < np.mean(alone) / 3


@pytest.mark.parametrize("likeness", [0.0, 0.9])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_likeness_of_pairs_does_not_make_their_sets_nearer(likeness: float, shift: float) -> None:
    """Sets of one distribution are 0 apart on average, whether or not row i of one resembles row i of the other."""
    found = []
    for seed in range(80):
        second = drawn(30, 0.0, seed)
        first = likeness * second + (1 - likeness**2) ** 0.5 * drawn(30, 0.0, 1000 + seed) + shift
        distance = paired_kernel_distance(first, second)
        found.append((distance.value, distance.standard_error))
    values, errors = np.array(found).T
    if shift == 0:
        assert abs(values.mean()) < 3 * values.std() / 80**0.5
        assert values.std() < errors.mean() < 1.7 * values.std()
    else:
        assert values.mean() > 1
        assert errors.mean() == pytest.approx(values.std(), rel=0.2)
