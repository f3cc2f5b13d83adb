"""Scaling studies: a metric against training compute (paper, figure 10) as power laws with and without a constant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import least_squares

from iddpm.randomness import PositionalRandom

Array = npt.NDArray[np.float64]

PASSES = 3
"""Forward passes that a training step costs as the paper counts: one, and a backward pass of twice its price."""
STARTS = (0.01, 0.1, 0.5)
LARGEST_EXCESS = 5.0
"""Of the exponent of a law with a constant over that of the line through its ends: where searches begin and end."""
PRECISION = 1e-6
"""Relative deviation below which a value and a law agree: results are written with about seven digits."""
CONFIDENCE = 0.95
AICC_MARGIN = 2.0
"""Difference of two AICc below which neither model is preferred (Burnham and Anderson 2002, section 2.6)."""
SMALL_CONSTANT = 0.5
"""Share of the best value: a law without a constant is supported only if a constant above it is excluded."""


class Form(StrEnum):
    """What a metric y is as a function of training compute C."""

    POWER_LAW = "power law"  # (a C)^-b
    WITH_CONSTANT = "power law with a constant"  # c + (a C)^-b

    @property
    def constants(self) -> int:
        """How many of them a fit has to find."""
        return 3 if self is Form.WITH_CONSTANT else 2


@dataclass(frozen=True)
class ScalingPoint:
    """A metric of a model after a training step, the operations spent until then, and the metric's standard error."""

    model: str
    step: int
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


@dataclass(frozen=True)
class Fit:
    """A law fitted to the envelope of all models.

    `scatter` is the root mean square relative deviation of the points; `intervals` at 95 % are by the names of
    PowerLaw, {} where there are as many constants as points; `aicc` needs three points more than constants;
    `predicted` is the held-out value by the law of the other models alone, None where these have too few points.
    """

    law: PowerLaw
    scatter: float
    intervals: dict[str, tuple[float, float]]
    aicc: float | None
    predicted: float | None


@dataclass(frozen=True)
class Study:
    """Points in the order of compute, those on the envelope, the held-out model's best, and what fits.

    A form is missing from `fits` where the envelope has fewer points than it has constants.
    """

    points: list[ScalingPoint]
    envelope: list[ScalingPoint]
    held_out: ScalingPoint
    fits: dict[Form, Fit]

    def error(self, form: Form) -> float | None:
        """Of the held-out prediction, in percent of the measured value; above 0 the prediction is too high."""
        predicted = self.fits[form].predicted if form in self.fits else None
        return None if predicted is None else 100 * (predicted / self.held_out.value - 1)

    @property
    def aicc_advantage(self) -> float | None:
        """AICc of the law without a constant minus that of the law with one: above 0 it speaks for the constant."""
        values = [self.fits[form].aicc if form in self.fits else None for form in Form]
        without, with_constant = values
        return None if without is None or with_constant is None else without - with_constant

    @property
    def preferred(self) -> Form | None:
        """The form with the lower AICc, if by more than AICC_MARGIN."""
        return _preference(self.aicc_advantage, AICC_MARGIN)

    @property
    def predicts_better(self) -> Form | None:
        """The form with the smaller error of the held-out prediction, if by more than chance may make it.

        Chance is the value's standard error, or the scatter of the points round the closer law, if that is larger.
        """
        without, with_constant = (self.error(form) for form in Form)
        if without is None or with_constant is None:
            return None
        scatter = min(fit.scatter for fit in self.fits.values())
        chance = max((self.held_out.error or 0.0) / self.held_out.value, scatter)
        return _preference(abs(without) - abs(with_constant), 100 * chance)

    @property
    def constant_told(self) -> bool:
        """Whether the interval of the constant says something: it excludes 0, or a constant worth the name."""
        if Form.WITH_CONSTANT not in self.fits or not self.fits[Form.WITH_CONSTANT].intervals:
            return False
        low, high = self.fits[Form.WITH_CONSTANT].intervals["constant"]
        if self.preferred is Form.WITH_CONSTANT:
            return low > 0
        return high < SMALL_CONSTANT * self.envelope[-1].value

    @property
    def supported(self) -> Form | None:
        """The form that the data support, None where they cannot tell.

        AICc prefers it, the interval of the constant agrees, and the held-out prediction does not contradict.
        """
        contradicted = self.predicts_better not in (None, self.preferred)
        return self.preferred if self.constant_told and not contradicted else None


def _preference(advantage: float | None, margin: float) -> Form | None:
    """Of the constant, if it has an advantage above the margin; of the law without it, if below minus the margin."""
    if advantage is None or abs(advantage) <= margin:
        return None
    return Form.WITH_CONSTANT if advantage > 0 else Form.POWER_LAW


def training_compute(multiply_adds: float, images: float) -> float:
    """Operations of a training on so many images (batch times steps), as the paper counts them.

    A multiply-add of the forward pass is two operations, forward and backward pass are three forward passes.
    """
    return 2.0 * PASSES * multiply_adds * images


def envelope(points: Sequence[ScalingPoint]) -> list[ScalingPoint]:
    """The best that was reached for every compute, in its order.

    Points that none with as little compute equals, and no model passes below on the way between two of its own.
    """
    curves: dict[str, list[ScalingPoint]] = {}
    ordered = sorted(points, key=lambda point: (point.compute, point.value))
    for point in ordered:
        curves.setdefault(point.model, []).append(point)
    best: list[ScalingPoint] = []
    for point in ordered:
        reached = min(_on_the_way(curve, point.compute) for curve in curves.values())
        if (not best or point.value < best[-1].value) and point.value <= reached * (1 + PRECISION):
            best.append(point)
    return best


def _on_the_way(curve: Sequence[ScalingPoint], compute: float) -> float:
    """A model's value at a compute between its points, both logarithmic; inf before the first and after the last."""
    if any(point.compute == compute for point in curve):  # free of rounding
        return min(point.value for point in curve if point.compute == compute)
    x, y = np.log([point.compute for point in curve]), np.log([point.value for point in curve])
    return float(np.exp(np.interp(math.log(compute), x, y, left=np.inf, right=np.inf)))


def scaling_study(points: Sequence[ScalingPoint], held_out: str | None, bootstrap: int, seed: int) -> Study:
    """Fit both forms to the envelope, and to that of all models but one, whose best value they predict.

    Values are above 0; `held_out` None takes the model of most compute. Intervals: percentiles of refits to
    `bootstrap` sets of values, each the law times residuals drawn with replacement, which hold errors of measurement
    and what is no power law.
    """
    ordered = sorted(points, key=lambda point: (point.compute, point.value))
    name = held_out or ordered[-1].model
    target = min((point for point in ordered if point.model == name), key=lambda point: point.value)
    others = envelope([point for point in ordered if point.model != name])
    best = envelope(ordered)
    fits = {}
    for form in Form:
        if len(best) >= form.constants:
            law, predicted = _fitted(best, form), None
            if len(others) >= form.constants:
                predicted = float(_fitted(others, form).at(target.compute))
            residuals = _log_residuals(best, law)
            scatter = float(np.sqrt(np.mean(residuals**2)))
            intervals = _intervals(best, form, law, residuals, bootstrap, seed)
            fits[form] = Fit(law, scatter, intervals, _aicc(len(best), form, scatter), predicted)
    return Study(ordered, best, target, fits)


def fit_power_law(compute: npt.ArrayLike, values: npt.ArrayLike, form: Form) -> PowerLaw:
    """Least squares of log y over points [N] of different compute, all y above 0. ValueError for too few points.

    Without a constant the logarithms lie on a line. With one the search starts from several exponents; where none does
    better than the line, the constant is 0.
    """
    x, y = np.log(np.asarray(compute, np.float64)), np.log(np.asarray(values, np.float64))
    if len(x) < form.constants:
        raise ValueError(f"{form}: {form.constants} constants need as many points, not {len(x)}")
    centre, end, span = x.mean(), x.max(), np.ptp(x)
    slope, level = np.polyfit(x - centre, y, 1)
    line = PowerLaw(float((level / slope - centre) / math.log(10)), float(-slope))
    if form is Form.POWER_LAW:
        return line
    least, best = float(np.sum((level + slope * (x - centre) - y) ** 2)) - len(x) * PRECISION**2, line
    for excess in STARTS:
        # what the data fix: y at the last point, its fall until there, and how much faster the power alone falls
        start = [level + slope * (end - centre), max(-slope * span, 2 * PRECISION), excess]
        bounds = ([-np.inf, PRECISION, 0], [np.inf, np.inf, LARGEST_EXCESS])
        found = least_squares(
            _residuals, start, bounds=bounds, x_scale="jac", xtol=1e-12, ftol=1e-12, args=(x - end, y, span)
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


def _residuals(parameters: Array, x: Array, y: Array, span: float) -> Array:
    constant, power, exponent = _law_at_end(parameters, span)
    residuals: Array = np.log(constant + power * np.exp(-exponent * x)) - y
    return residuals


def _fitted(points: Sequence[ScalingPoint], form: Form) -> PowerLaw:
    return fit_power_law([point.compute for point in points], [point.value for point in points], form)


def _log_residuals(points: Sequence[ScalingPoint], law: PowerLaw) -> Array:
    values = np.array([point.value for point in points])
    residuals: Array = np.log(values) - np.log(law.at([point.compute for point in points]))
    return residuals


def _aicc(count: int, form: Form, scatter: float) -> float | None:
    """Akaike's criterion of least squares with its small-sample correction; the residuals' variance is fitted too."""
    fitted = form.constants + 1
    if count - fitted < 2:
        return None
    deviance = 2 * count * math.log(max(scatter, PRECISION))
    return deviance + 2 * fitted + 2 * fitted * (fitted + 1) / (count - fitted - 1)


def _intervals(
    points: Sequence[ScalingPoint], form: Form, law: PowerLaw, residuals: Array, bootstrap: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Of each constant of the law, from resampled residuals, widened by the degrees of freedom that the fit took."""
    count = len(points)
    if count == form.constants:
        return {}
    compute = [point.compute for point in points]
    widened = residuals * math.sqrt(count / (count - form.constants))
    drawn = PositionalRandom(seed, "scaling/bootstrap").bits(torch.arange(bootstrap), count).numpy() % count
    laws = [fit_power_law(compute, law.at(compute) * np.exp(widened[row]), form) for row in drawn]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.array(laws), (tail, 1 - tail), axis=0).tolist()
    fitted = PowerLaw._fields[: form.constants]
    return dict(zip(fitted, zip(low, high, strict=True), strict=False))
