"""Laws of scaling studies and their fits: a metric of training compute, and jointly of parameters and images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Array = npt.NDArray[np.float64]

STARTS = (0.01, 0.1, 0.5)
LARGEST_EXCESS = 5.0
"""Of the exponent of a law with a constant over that of the line through its ends: where searches begin and end."""
JOINT_STARTS = (0.2, 0.8)
CONSTANT_STARTS = (0.05, 0.5, 0.9)
START_EXPONENT = 0.3
"""Where searches of a joint law begin: A N^-a as a share of both powers, c as one of the best value, and a = b."""
FEWEST_VALUES = 3
"""Of N, and of D, for a joint law: with two, A N^-a fits whatever the constant is."""
PRECISION = 1e-6
"""Relative deviation below which a value and a law agree: results are written with about seven digits."""


class Form(StrEnum):
    """Whether a law has a constant c, which more training never takes away."""

    WITHOUT_CONSTANT = "without a constant"
    WITH_CONSTANT = "with a constant"


@dataclass(frozen=True)
class ScalingPoint:
    """A metric of a model after a training step, its standard error, and what the model was given until then.

    `parameters` of the model, `images` seen in training, `compute` the operations spent.
    """

    model: str
    step: int
    parameters: int
    images: int
    compute: float
    value: float
    error: float | None = None


class PowerLaw(NamedTuple):
    """y = c + (a C)^-b: log10 of a, which itself may be too small for a float, b, and c (0 in a law without)."""

    log10_scale: float
    exponent: float
    constant: float = 0.0

    def at(self, compute: npt.ArrayLike) -> Array:
        """y at training computes, in their shape."""
        logarithm = self.log10_scale + np.log10(np.asarray(compute, np.float64))
        values: Array = self.constant + 10.0 ** (-self.exponent * logarithm)
        return values


class JointLaw(NamedTuple):
    """y = c + A N^-a + B D^-b of N parameters and D images: log10 of A, a, log10 of B, b, and c (or 0)."""

    log10_model_scale: float
    model_exponent: float
    log10_data_scale: float
    data_exponent: float
    constant: float = 0.0

    def at(self, parameters: npt.ArrayLike, images: npt.ArrayLike) -> Array:
        """y of models of so many parameters after so many images, in their shape."""
        n, d = (np.log10(np.asarray(count, np.float64)) for count in (parameters, images))
        of_model = 10.0 ** (self.log10_model_scale - self.model_exponent * n)
        of_data = 10.0 ** (self.log10_data_scale - self.data_exponent * d)
        values: Array = self.constant + of_model + of_data
        return values


def constants(law: type[PowerLaw] | type[JointLaw], form: Form) -> int:
    """How many a fit has to find."""
    return len(law._fields) - (form is Form.WITHOUT_CONSTANT)


def resolves(points: Sequence[ScalingPoint]) -> bool:
    """Whether a joint law with a constant can be fitted."""
    values = [{point.parameters for point in points}, {point.images for point in points}]
    return min(map(len, values)) >= FEWEST_VALUES and len(points) >= len(JointLaw._fields)


def fit_power_law(points: Sequence[ScalingPoint], form: Form) -> PowerLaw:
    """Least squares of log y over points of different compute, all y above 0. ValueError for too few points.

    Without a constant the logarithms lie on a line. With one the search starts from several exponents; where none does
    better than the line, the constant is 0.
    """
    if len(points) < (fewest := constants(PowerLaw, form)):
        raise ValueError(f"a power law {form} has {fewest} constants and needs as many points, not {len(points)}")
    x, y = np.log([point.compute for point in points]), np.log([point.value for point in points])
    weights = 1 / relative_errors(points)
    centre, end, span = x.mean(), x.max(), np.ptp(x)
    slope, level = np.polyfit(x - centre, y, 1, w=weights)
    line = PowerLaw(float((level / slope - centre) / math.log(10)), float(-slope))
    if form is Form.WITHOUT_CONSTANT:
        return line
    best, least = line, chi_square(points, line) - len(x) * (PRECISION * weights.max()) ** 2
    for excess in STARTS:
        # what the data fix: y at the last point, its fall until there, and how much faster the power alone falls
        start = [level + slope * (end - centre), max(-slope * span, 2 * PRECISION), excess]
        bounds = ([-np.inf, PRECISION, 0], [np.inf, np.inf, LARGEST_EXCESS])
        found = least_squares(
            _residuals, start, bounds=bounds, x_scale="jac", xtol=1e-12, ftol=1e-12, args=(x - end, y, span, weights)
        )
        if 2 * found.cost < least:
            least = 2 * found.cost
            constant, power, exponent = _law_at_end(found.x, span)
            scale = -(math.log(power) / exponent + end) / math.log(10)
            best = PowerLaw(float(scale), float(exponent), float(constant))
    return best


def _law_at_end(parameters: Array, span: float) -> tuple[float, float, float]:
    """Constant, power part at the last point, and exponent b.

    Of (log y at the last point, its fall over the `span` of log C, excess of b over that fall per log C). In these the
    fit is well-conditioned, and a constant of at least 0 is an excess of at least 0.
    """
    last, fall, excess = parameters
    exponent = fall / span + excess
    power = math.exp(last) * math.expm1(fall) / math.expm1(exponent * span)
    return max(math.exp(last) - power, 0.0), power, exponent


def _residuals(parameters: Array, x: Array, y: Array, span: float, weights: Array) -> Array:
    constant, power, exponent = _law_at_end(parameters, span)
    residuals: Array = weights * (np.log(constant + power * np.exp(-exponent * x)) - y)
    return residuals


def fit_joint_law(points: Sequence[ScalingPoint], form: Form, start: JointLaw | None = None) -> JointLaw:
    """Least squares of log y over points with three or more N and D, all y above 0.

    Searches in the logarithms of all constants, from several starts and from `start`, if that is given, in place of
    most of them. A constant below PRECISION of the best value is 0.
    """
    n, d = (np.log([getattr(point, count) for point in points]) for count in ("parameters", "images"))
    y, weights = np.log([point.value for point in points]), 1 / relative_errors(points)
    centres, n, d = (n.mean(), d.mean()), n - n.mean(), d - d.mean()
    smallest = math.exp(y.min())

    def terms(logs: Array) -> Array:
        """A N^-a, B D^-b and c at every point."""
        ones = [np.full(len(y), logs[4])] if len(logs) == 5 else []
        return np.exp([logs[0] - np.exp(logs[1]) * n, logs[2] - np.exp(logs[3]) * d, *ones])

    def residuals(logs: Array) -> Array:
        deviations: Array = weights * (np.log(terms(logs).sum(0)) - y)
        return deviations

    def jacobian(logs: Array) -> Array:
        shares = terms(logs)
        shares *= weights / shares.sum(0)
        columns = [shares[0], -np.exp(logs[1]) * n * shares[0], shares[1], -np.exp(logs[3]) * d * shares[1]]
        return np.stack([*columns, *shares[2:]], axis=1)

    starts = []
    for constant in CONSTANT_STARTS if form is Form.WITH_CONSTANT else (0.0,):
        powers = math.exp(y.mean()) - constant * smallest
        of_constant = [math.log(constant * smallest)] if constant else []
        for share in JOINT_STARTS:
            exponent = math.log(START_EXPONENT)
            starts.append([math.log(share * powers), exponent, math.log((1 - share) * powers), exponent, *of_constant])
    if start is not None:
        factors = [
            scale * math.log(10) - exponent * centre
            for scale, exponent, centre in zip(start[0:3:2], start[1:4:2], centres, strict=True)
        ]
        of_constant = [math.log(max(start.constant, PRECISION * smallest))] if form is Form.WITH_CONSTANT else []
        known = [factors[0], math.log(start.model_exponent), factors[1], math.log(start.data_exponent), *of_constant]
        starts = [known, *starts[len(starts) // 2 : len(starts) // 2 + 1]]
    with np.errstate(over="ignore", invalid="ignore"):  # of steps too far, which the search takes back
        found = [least_squares(residuals, logs, jacobian, method="lm", xtol=1e-10, ftol=1e-10) for logs in starts]
    best = min(found, key=lambda one: float(np.nan_to_num(one.cost, nan=np.inf))).x
    constant = math.exp(best[4]) if form is Form.WITH_CONSTANT else 0.0
    scales = [(best[2 * i] + math.exp(best[2 * i + 1]) * centres[i]) / math.log(10) for i in range(2)]
    return JointLaw(
        float(scales[0]),
        math.exp(best[1]),
        float(scales[1]),
        math.exp(best[3]),
        constant if constant > PRECISION * smallest else 0.0,
    )


def relative_errors(points: Sequence[ScalingPoint]) -> Array:
    """Of the values; ones where the errors are not known, so that all points weigh alike."""
    return np.array([1.0 if point.error is None else point.error / point.value for point in points])


def _deviations(points: Sequence[ScalingPoint], law: PowerLaw | JointLaw) -> Array:
    """Of the values from the law, in units of log y."""
    if isinstance(law, JointLaw):
        expected = law.at([point.parameters for point in points], [point.images for point in points])
    else:
        expected = law.at([point.compute for point in points])
    deviations: Array = np.log([point.value for point in points]) - np.log(expected)
    return deviations


def scatter(points: Sequence[ScalingPoint], law: PowerLaw | JointLaw) -> float:
    return float(np.sqrt(np.mean(_deviations(points, law) ** 2)))


def chi_square(points: Sequence[ScalingPoint], law: PowerLaw | JointLaw) -> float:
    """Sum of squared deviations in units of the errors, or of log y where these are not known."""
    relative = relative_errors(points)
    least = len(points) * (PRECISION / float(relative.max())) ** 2
    return max(float(np.sum((_deviations(points, law) / relative) ** 2)), least)
