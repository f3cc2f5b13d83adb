"""Standard errors of recall and coverage, from leaving samples out.

What another draw of the samples would change, the reference being fixed. Resampling with replacement does not tell
it: a resample holds 63 % distinct samples, whose manifold is another.
"""

import math

import torch
from torch import Tensor

ONE, TWO = 0.9, 0.3
"""ONE * b - TWO * b^2 / 2 is 0.9 to 1.43 times 1 - exp(-b), with up to 4 samples expected in both balls, so that the
standard error may come out 0.95 to 1.2 times what it should be, the largest near b = 2.5."""
LEAST = 1 / 3
"""Of the plain jackknife's variance, where the difference leaves less."""
FLOOR = 1.0
"""Variance added to that of the number of covered images: one image more that hangs on one sample alone. Where all
samples lie close together few images do so, or none, and another draw may still cover one image more or less."""


def recall_error(without: Tensor) -> float:
    """The delete-group jackknife of recall without each third of the samples, [partitions, 3], over the partitions.

    Leaving out less overstates the spread up to 1.5 times, since a radius is no smooth function of the samples.
    """
    groups = without.shape[1]
    return math.sqrt((groups - 1) * float(without.var(1, correction=0).mean()))


def coverage_error(holders: Tensor, samples: int) -> float:
    """The delete-one jackknife of coverage, less what it counts twice; with FLOOR.

    `holders` are those of a Comparison with so many samples. That two images are both missed has the covariance
    exp(-u) (1 - exp(-b)), with u samples expected in either ball and b in both (Poisson). Images held by the same one
    sample alone are expected with exp(-u) b, and by the same two alone with exp(-u) b^2 / 2. The plain jackknife
    takes the first for all and overstates the spread up to 1.6 times, the more the nearer coverage is to 1.
    """
    alone = torch.unique(holders[1, holders[0] == 1], return_counts=True)[1].double()
    together = torch.unique(holders[1:, holders[0] == 2], dim=1, return_counts=True)[1].double()
    of_count = alone.sum().square() / samples  # the number of samples is not by chance, as Poisson's would be
    plain = alone.square().sum() - of_count
    variance = ONE * alone.square().sum() - TWO * together.square().sum() - of_count
    return math.sqrt(max(float(variance), LEAST * float(plain)) + FLOOR) / holders.shape[1]
