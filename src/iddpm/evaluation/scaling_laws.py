"""Laws of scaling studies and their fits: a metric of training compute, and jointly of parameters and images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CONSTANTS = (0.5, 0.9)
EXPONENT = 0.3
"""Where searches begin: the constant as a share of the best value, and every exponent."""
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
    """Least squares of log y over points of different compute, y above 0 and falling. ValueError for too few points."""
    if len(points) < (fewest := constants(PowerLaw, form)):
        raise ValueError(f"a power law {form} has {fewest} constants and needs as many points, not {len(points)}")
    logs = _fit_powers(points, [[point.compute for point in points]], form)
    return PowerLaw(-logs[0] / logs[1] / math.log(10), logs[1], logs[2])


def fit_joint_law(points: Sequence[ScalingPoint], form: Form) -> JointLaw:
    """Least squares of log y over points with FEWEST_VALUES or more of N and of D, all y above 0."""
    counts = [[point.parameters for point in points], [point.images for point in points]]
    logs = _fit_powers(points, counts, form)
    return JointLaw(logs[0] / math.log(10), logs[1], logs[2] / math.log(10), logs[3], logs[4])


def _fit_powers(points: Sequence[ScalingPoint], variables: Sequence[Sequence[float]], form: Form) -> list[float]:
    """The law y = c + sum of A_i x_i^-a_i, as [log A_1, a_1, ..., c], for variables x_i with a value at every point.

    Searches in the logarithms of all constants, from several starts. A constant that makes no difference is 0.
    """
    from scipy.optimize import least_squares  # a tenth of every command's start, were it above

    x = np.log(np.array(variables, np.float64))
    centres = x.mean(1)
    x -= centres[:, None]
    y, weights = np.log([point.value for point in points]), 1 / relative_errors(points)
    powers = len(x)

    def terms(logs: Array) -> Array:
        """Each A_i x_i^-a_i and c, [terms, points]."""
        parts = [logs[2 * i] - np.exp(logs[2 * i + 1]) * x[i] for i in range(powers)]
        parts += [np.full(len(y), constant) for constant in logs[2 * powers :]]
        return np.exp(parts)

    def residuals(logs: Array) -> Array:
        deviations: Array = weights * (np.log(terms(logs).sum(0)) - y)
        return deviations

    def jacobian(logs: Array) -> Array:
        shares = terms(logs)
        shares *= weights / shares.sum(0)
        exponents = np.exp(logs[1 : 2 * powers : 2])
        by_powers = [column for i in range(powers) for column in (shares[i], -exponents[i] * x[i] * shares[i])]
        return np.stack([*by_powers, *shares[powers:]], axis=1)

    def best(constant_shares: Sequence[float]) -> tuple[float, Array]:
        """Sum of squares and solution of the best search."""
        found = []
        for constant in constant_shares:
            height = math.log(math.exp(y.mean()) - constant * math.exp(y.min()))
            start = [height - math.log(powers), math.log(EXPONENT)] * powers
            start += [math.log(constant) + y.min()] if constant else []
            search = least_squares(residuals, start, jacobian, method="lm", xtol=1e-10, ftol=1e-10)
            found.append((2 * float(np.nan_to_num(search.cost, nan=np.inf)), search.x))
        return min(found, key=lambda one: one[0])

    with np.errstate(over="ignore", invalid="ignore"):  # of steps too far, which the search takes back
        least, logs = best((0.0,))
        if form is Form.WITH_CONSTANT:
            bent, its_logs = best(CONSTANTS)
            logs = its_logs if bent < least - len(y) * (PRECISION * weights.max()) ** 2 else logs
    law = []
    for i in range(powers):
        exponent = math.exp(logs[2 * i + 1])
        law += [float(logs[2 * i] + exponent * centres[i]), exponent]
    return [*law, math.exp(logs[-1]) if len(logs) > 2 * powers else 0.0]


def relative_errors(points: Sequence[ScalingPoint]) -> Array:
    """Of the values; ones where the errors are not known, so that all points weigh alike."""
    return np.array([1.0 if point.error is None else point.error / point.value for point in points])


def deviations(points: Sequence[ScalingPoint], law: PowerLaw | JointLaw) -> Array:
    """Of the values from the law, in units of log y."""
    if isinstance(law, JointLaw):
        expected = law.at([point.parameters for point in points], [point.images for point in points])
    else:
        expected = law.at([point.compute for point in points])
    deviations: Array = np.log([point.value for point in points]) - np.log(expected)
    return deviations


def log_slopes(points: Sequence[ScalingPoint], law: JointLaw) -> Array:
    """Of log y by the law's constants, each in a unit of its own that makes them of one size, [points, constants]."""
    n, d = np.log([point.parameters for point in points]), np.log([point.images for point in points])
    of_model = np.exp(law.log10_model_scale * math.log(10) - law.model_exponent * n)
    of_data = np.exp(law.log10_data_scale * math.log(10) - law.data_exponent * d)
    columns = [of_model, of_model * (n - n.mean()), of_data, of_data * (d - d.mean()), np.ones(len(points))]
    slopes = np.stack(columns, axis=1) / (law.constant + of_model + of_data)[:, None]
    sizes: Array = np.linalg.norm(slopes, axis=0)
    scaled: Array = slopes / np.where(sizes > 0, sizes, 1)
    return scaled


def scatter(points: Sequence[ScalingPoint], law: PowerLaw | JointLaw) -> float:
    return float(np.sqrt(np.mean(deviations(points, law) ** 2)))


def chi_square(points: Sequence[ScalingPoint], law: PowerLaw | JointLaw) -> float:
    """Sum of squared deviations in units of the errors, or of log y where these are not known."""
    relative = relative_errors(points)
    least = len(points) * (PRECISION / float(relative.max())) ** 2
    return max(float(np.sum((deviations(points, law) / relative) ** 2)), least)


def named(law: PowerLaw | JointLaw, form: Form, low: Array, high: Array) -> dict[str, tuple[float, float]]:
    """Ends of intervals by the names of the law's constants."""
    count = constants(type(law), form)
    ends = list(zip(low.tolist(), high.tolist(), strict=True))
    return dict(zip(law._fields[:count], ends[:count], strict=True))
