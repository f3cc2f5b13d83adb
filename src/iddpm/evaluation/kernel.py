"""Kernel distance (KID, Binkowski et al. 2018): the squared maximum mean discrepancy with a cubic polynomial kernel."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from iddpm.randomness import PositionalRandom


def kernel_distance(samples: Tensor, reference: Tensor, subset_size: int, seed: int) -> list[float]:
    """The unbiased estimate on each of the disjoint subsets of features [N, D] and [M, D].

    As many subsets of `subset_size` as the smaller set holds, taken from seeded permutations; KID is their mean.
    ValueError when a set holds none.
    """
    from torchmetrics.image.kid import poly_mmd

    fewest = min(len(samples), len(reference))
    if subset_size > fewest:
        raise ValueError(f"kid_subset_size: {subset_size} is more than the {fewest} images")
    parts = [
        _subsets(features, subset_size, fewest // subset_size, PositionalRandom(seed, f"evaluation/kernel/{side}"))
        for features, side in ((samples, "samples"), (reference, "reference"))
    ]
    return [float(poly_mmd(theirs.double(), ours.double())) for ours, theirs in zip(*parts, strict=True)]


def _subsets(features: Tensor, size: int, count: int, random: PositionalRandom) -> Iterator[Tensor]:
    """One at a time, since all of them would be another copy of the features."""
    order = random.permutation(len(features), 0)[: size * count].to(features.device)
    return (features[indices] for indices in torch.split(order, size))


def standard_error(values: list[float]) -> float | None:
    """Of the mean of independent values; None of one alone."""
    if len(values) < 2:
        return None
    return float(torch.tensor(values, dtype=torch.float64).std()) / math.sqrt(len(values))


ROWS_AT_ONCE = 1_000


class Jackknifed(NamedTuple):
    """A value of N things, and what it is without each of them, float64 [N]."""

    value: float
    without: Tensor

    @property
    def standard_error(self) -> float:
        count = len(self.without)
        return math.sqrt(float((self.without - self.without.mean()).square().sum()) * (count - 1) / count)

    def minus(self, other: "Jackknifed") -> "Jackknifed":
        """The difference to another value of the same things, whose chance is largely the same."""
        return Jackknifed(self.value - other.value, self.without - other.without)


def paired_kernel_distance(features: Tensor, originals: Tensor) -> Jackknifed:
    """KID of features [N, D] and [N, D], N > 2, whose rows i show the same thing.

    All pairs i, j but i = j count, between the sets too (Gretton et al. 2012, equation 4): what an image owes to its
    own original would make the distance of sets smaller. Of sets that are alike the error is too large, by up to √2.
    """
    from torchmetrics.image.kid import poly_kernel

    first, second, count = features.double(), originals.double(), len(features)
    sums = []
    for rows in torch.split(torch.arange(count), ROWS_AT_ONCE):
        own = poly_kernel(first[rows], first) + poly_kernel(second[rows], second)
        between = poly_kernel(first[rows], second) + poly_kernel(second[rows], first)
        kernel = own - between
        kernel[torch.arange(len(rows)), rows] = 0
        sums.append(kernel.sum(1))
    each = torch.cat(sums)
    without = (each.sum() - 2 * each) / ((count - 1) * (count - 2))
    return Jackknifed(float(each.sum()) / (count * (count - 1)), without)
