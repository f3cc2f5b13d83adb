"""Frechet distance of Gaussians fitted to features (Heusel et al. 2017), in float64, and its limit of many samples."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iddpm.randomness import PositionalRandom

BLOCK = 4096
SUBSETS = 15
SAMPLES_PER_DIMENSION = 4
"""Fewest samples of an extrapolation: with fewer, the smallest subset's bias is no longer linear in 1 / N."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean [D] and covariance [D, D] (ddof 1), float64, of feature vectors."""

    mean: Tensor
    covariance: Tensor

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        return root

    def without(self, features: Tensor, count: int) -> "Moments":
        """Moments of all but these [n, D] of the `count` feature vectors, at the cost of these alone."""
        total, scatter = _sums(features, self.mean)
        rest = count - len(features)
        shift = -total / rest
        scatter = self.covariance * (count - 1) - scatter - rest * torch.outer(shift, shift)
        return Moments(self.mean + shift, scatter / (rest - 1))


class Limit(NamedTuple):
    """A distance extrapolated to infinitely many samples, and the standard error of the straight line alone."""

    value: float
    fit_error: float


def moments(features: Tensor) -> Moments:
    """Of features [N, D]. ValueError with fewer than 2."""
    count = len(features)
    if count < 2:
        raise ValueError(f"a covariance needs at least 2 images, not {count}")
    mean = _sums(features, torch.zeros_like(features[0], dtype=torch.float64), products=False)[0] / count
    return Moments(mean, _sums(features, mean)[1] / (count - 1))


def _sums(features: Tensor, centre: Tensor, products: bool = True) -> tuple[Tensor, Tensor]:
    """Sum [D] and sum of outer products [D, D] of features [N, D] seen from a centre, block by block."""
    total, scatter = torch.zeros_like(centre), torch.outer(centre, torch.zeros_like(centre))
    for block in torch.split(features, BLOCK):
        centred = block.double() - centre
        total += centred.sum(0)
        if products:
            scatter.addmm_(centred.T, centred)
    return total, scatter


def frechet_distance(samples: Moments, reference: Moments) -> float:
    """|m_s - m_r|^2 + tr(S_s + S_r - 2 (S_r^1/2 S_s S_r^1/2)^1/2), at least 0.

    The last matrix has the eigenvalues of S_s S_r, but is symmetric: they are real, and a rank deficiency leaves
    them at 0 up to rounding.
    """
    root = torch.linalg.eigvalsh(_between(samples, reference)).clamp(min=0).sqrt().sum()
    means = (samples.mean - reference.mean).square().sum()
    return max(float(means + samples.covariance.trace() + reference.covariance.trace() - 2 * root), 0.0)


def _between(samples: Moments, reference: Moments) -> Tensor:
    product = reference.root @ samples.covariance @ reference.root
    return (product + product.T) / 2


def frechet_standard_error(features: Tensor, samples: Moments, reference: Moments) -> float:
    """Standard deviation that another draw of the samples, features [N, D], would give the distance.

    The infinitesimal jackknife (Jaeckel 1972), to which the bootstrap's spread tends with many samples, for the
    price of one covariance: each sample's influence is the derivative of the distance by its weight. With few
    samples it stays near the true spread, which the resampling of whole sets overstates, since a resample holds
    63 % distinct images. The reference counts as fixed.
    """
    values, vectors = torch.linalg.eigh(_between(samples, reference))
    # Reweighting never leaves the span of the samples, so directions of no variance take no part.
    least = values.amax() * len(values) * torch.finfo(torch.float64).eps
    inverse_root = torch.where(values > least, values.clamp(min=least).rsqrt(), 0.0)
    side = reference.root @ vectors
    # d FD / d S_s = 1 - T with the optimal transport T from samples to reference, d FD / d m_s = 2 (m_s - m_r)
    by_covariance = torch.eye(len(values), dtype=torch.float64, device=values.device) - (side * inverse_root) @ side.T
    by_mean = 2 * (samples.mean - reference.mean)
    influences = []
    for block in torch.split(features, BLOCK):
        centred = block.double() - samples.mean
        influences.append(centred @ by_mean + ((centred @ by_covariance) * centred).sum(1))
    return float(torch.cat(influences).std()) / math.sqrt(len(features))


def frechet_distance_infinity(features: Tensor, samples: Moments, reference: Moments, seed: int) -> Limit | None:
    """The distance extrapolated to infinitely many samples (Chong & Forsyth 2020); None with fewer than 4 D.

    Distances of 15 random subsets of N / 2 to all of the samples, features [N, D], are fitted linearly in 1 / N;
    this is the value at 0. It may be slightly negative. Only the bias of the finite samples is removed: that of
    the finite reference stays. The fit's error, from its residuals, and `frechet_standard_error` as the legs of a right
    triangle make a standard error: 0.9 to 1.15 times the spread of many draws with 4 D to 20 D samples.
    """
    count, dimensions = features.shape
    if count < SAMPLES_PER_DIMENSION * dimensions:
        return None
    random = PositionalRandom(seed, "evaluation/frechet")
    sizes = np.linspace(count // 2, count, SUBSETS).round().astype(int)
    distances = []
    for number, size in enumerate(sizes):
        left_out = random.permutation(count, number)[size:].to(features.device)
        distances.append(frechet_distance(samples.without(features[left_out], count), reference))
    line, covariance = np.polyfit(1 / sizes, distances, 1, cov=True)
    return Limit(float(line[1]), math.sqrt(covariance[1, 1]))
