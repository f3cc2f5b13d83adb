"""Standard errors of recall and coverage against the spread of many draws, and on cases counted by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from iddpm.evaluation.jackknife import coverage_error, recall_error
from iddpm.evaluation.manifold import compare


def drawn(count: int, dimensions: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, dimensions, generator=generator)


@pytest.mark.parametrize(("count", "dimensions", "real"), [(100, 16, 400), (150, 8, 150)])
def test_errors_are_the_spread_of_many_draws(count: int, dimensions: int, real: int) -> None:
    """Where half of the reference is covered, and nine tenths of it."""
    generator = torch.Generator().manual_seed(0)
    reference = drawn(real, dimensions, generator)
    values, variances = [], []
    for _ in range(150):
        found = compare(0.9 * drawn(count, dimensions, generator) + 0.1, reference, 3, None, 0)
        values.append([float(found.recall.mean()), float(found.coverage.mean())])
        variances.append([recall_error(found.recall_without) ** 2, coverage_error(found.holders, count) ** 2])
    ratios = np.sqrt(np.mean(variances, axis=0)) / np.std(values, axis=0)
    assert (ratios > 0.8).all() and (ratios < 1.25).all(), ratios


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """Of 30 numbers, on the average over partitions into thirds."""
    numbers = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    orders = [torch.randperm(30, generator=torch.Generator().manual_seed(seed)) for seed in range(2000)]
    without = torch.stack([numbers[order].view(3, 10).sum(1) for order in orders])
    error = recall_error((numbers.sum() - without) / 20)
    assert error == pytest.approx(float(numbers.std()) / 30**0.5, rel=0.02)


def holders(of: list[list[int]]) -> Tensor:
    """What a Comparison has of images with balls that hold these samples."""
    return torch.tensor([[sum(place**power for place in held) for held in of] for power in range(3)]).double()


def test_images_that_hang_on_few_samples_make_the_error_of_coverage() -> None:
    """Sample 1 alone holds three of ten images, sample 2 one, samples 0 and 3 together two, 1 and 4 one."""
    found = coverage_error(holders([[1], [1], [1], [2], [0, 3], [0, 3], [1, 4], [0, 1, 2], [2, 3, 4], []]), 5)
    assert found**2 * 10**2 == pytest.approx(0.9 * (9 + 1) - 0.3 * (4 + 1) - (3 + 1) ** 2 / 5 + 1)


def test_what_hangs_on_pairs_takes_no_more_than_two_thirds() -> None:
    found = coverage_error(holders([[0], [1, 2], [1, 2], [1, 2]]), 4)
    assert found**2 * 4**2 == pytest.approx((1 - 1 / 4) / 3 + 1)


def test_coverage_that_no_single_sample_changes_may_be_another_by_one_image() -> None:
    assert coverage_error(holders([[0, 1, 2], [1, 2, 3]]), 5) == 1 / 2
    assert coverage_error(holders([[], [], [], []]), 5) == 1 / 4
