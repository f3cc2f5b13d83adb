"""What chance does to the points of a scaling study: redraws of them, and whether a law describes them.

Each point has chance of its own, and what chance does to a training moves all points of its model alike.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.special import chdtrc, fdtrc

from iddpm.evaluation.confidence import CONFIDENCE
from iddpm.evaluation.scaling_laws import (
    FEWEST_VALUES,
    PRECISION,
    Array,
    Form,
    JointLaw,
    ScalingPoint,
    chi_square,
    constants,
    deviations,
    log_slopes,
    relative_errors,
)
from iddpm.randomness import PositionalRandom


def redraws(
    points: Sequence[ScalingPoint], law: JointLaw, form: Form, bootstrap: int, seed: int
) -> Iterator[list[ScalingPoint]]:
    """All points with normal chance added to log y: one of its own for each, and one that a model's points share.

    That of a point is of its error, or of as much more as the points deviate from the law; that of a model is of the
    models' mean deviations.
    """
    spread = math.sqrt(chi_square(points, law) / max(len(points) - constants(JointLaw, form), 1))
    if points[0].error is not None:
        spread = max(spread, 1.0)
    own = _of_models(points)
    shared = _shared(own, deviations(points, law))
    shape = (len(points) + len(own),)
    chance = PositionalRandom(seed, "scaling/bootstrap").normal(torch.arange(bootstrap), shape).numpy()
    chance = chance.astype(np.float64)
    logs = spread * relative_errors(points) * chance[:, : len(points)] + shared * chance[:, len(points) :] @ own
    for factors in np.exp(logs).tolist():
        yield [
            replace(point, value=factor * point.value, error=None if point.error is None else factor * point.error)
            for point, factor in zip(points, factors, strict=True)
        ]


def _of_models(points: Sequence[ScalingPoint]) -> Array:
    """1 where a point is of a model, else 0, [models, points]."""
    models = dict.fromkeys(point.model for point in points)
    return np.array([[point.model == model for point in points] for model in models], np.float64)


def _shared(own: Array, deviated: Array) -> float:
    """Standard deviation of what a model's points share, from the models' mean deviations."""
    means = own @ deviated / own.sum(1)
    # of as many models A, a and c take up three deviations
    return math.sqrt(float(np.sum(means**2)) / max(len(own) - FEWEST_VALUES, 1))


def describes(points: Sequence[ScalingPoint], law: JointLaw) -> bool:
    """Whether points follow the joint law with a constant that was fitted to them as well as chance lets them.

    The deviations are those of the generalised least squares fit, one step from the law, whose covariance has what a
    model's points share, as in `redraws`. Where the points' errors are known, the test of chi-square on these. Else the
    F test on how much they lean with log D within the models, beside how they scatter about that.
    """
    freedom = len(points) - len(JointLaw._fields)
    if freedom < 1:
        return True
    own, deviated = _of_models(points), deviations(points, law)
    known, shared = points[0].error is not None, _shared(own, deviated)
    within = deviated - own.T @ (own @ deviated / own.sum(1))
    spread = 1.0 if known else max(math.sqrt(float(within @ within) / freedom), PRECISION)
    covariance = np.diag((spread * relative_errors(points)) ** 2) + shared**2 * own.T @ own
    triangle = np.linalg.cholesky(covariance)
    slopes = log_slopes(points, law)
    white, of_constants = np.linalg.solve(triangle, deviated), np.linalg.solve(triangle, slopes)
    step = np.linalg.lstsq(of_constants, white, rcond=1e-10)[0]
    if known:
        rest = white - of_constants @ step
        return bool(chdtrc(freedom, float(rest @ rest)) >= 1 - CONFIDENCE)
    return _upright(points, own, deviated - slopes @ step)


def _upright(points: Sequence[ScalingPoint], own: Array, deviated: Array) -> bool:
    images = np.log([point.images for point in points])
    leaning, rest, freedoms = 0.0, len(points) * PRECISION**2, [0, 0]
    for of_model in own.astype(bool):
        if np.count_nonzero(of_model) > 2:
            x, y = images[of_model], deviated[of_model]
            x, y = x - x.mean(), y - y.mean()
            lean = float(x @ y) ** 2 / float(x @ x)
            leaning, rest = leaning + lean, rest + float(y @ y) - lean
            freedoms = [freedoms[0] + 1, freedoms[1] + len(x) - 2]
    ratio = leaning / freedoms[0] / (rest / freedoms[1]) if freedoms[0] else 0.0
    return not freedoms[0] or bool(fdtrc(*freedoms, ratio) >= 1 - CONFIDENCE)
