"""Scaling studies: a metric as power laws of training compute (paper, figure 10), and of parameters and images.

Whether the metric has an irreducible constant is asked of the joint law y = c + A N^-a + B D^-b, N parameters and D
images seen (Hoffmann et al. 2022), fitted to all points. The envelope alone does not tell: where all models end at one
step, it turns from the curve of a small one into the row of the others' ends, and bends with no constant at all.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import fdtrc, ndtri

from iddpm.evaluation.scaling_laws import (
    PRECISION,
    Form,
    JointLaw,
    PowerLaw,
    ScalingPoint,
    aicc,
    chi_square,
    constants,
    fit_joint_law,
    fit_power_law,
    named,
    relative_errors,
    resolves,
    scatter,
)
from iddpm.randomness import PositionalRandom

PASSES = 3
"""Forward passes that a training step costs as the paper counts: one, and a backward pass of twice its price."""
CONFIDENCE = 0.95
AICC_MARGIN = 2.0
"""Difference of two AICc below which neither model is preferred (Burnham and Anderson 2002, section 2.6)."""
SMALL_CONSTANT = 0.5
"""Share of the best value: a law without a constant is supported only if a constant above it is excluded."""


@dataclass(frozen=True)
class Fit:
    """A law fitted to the envelope of all models.

    `scatter` is the root mean square relative deviation of the points; `intervals` at 95 % are by the names of
    PowerLaw, {} where there are as many constants as points.
    """

    law: PowerLaw
    scatter: float
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class JointFit:
    """A joint law fitted to all points; the rest as in Fit.

    `aicc` needs three points more than constants; `predicted` is the held-out value by the law of the other models
    alone, None where these have too few values of N or D.
    """

    law: JointLaw
    scatter: float
    intervals: dict[str, tuple[float, float]]
    aicc: float | None
    predicted: float | None


@dataclass(frozen=True)
class Study:
    """Points in the order of compute, those on the envelope, the held-out model's last, and what fits.

    A form is missing from `fits` where the envelope has fewer points than it has constants; `joint` is {} with too few
    values of N or D. `joint_describes` is False where the points scatter more about the joint law than about that of
    the envelope, by more than chance: they follow some other law, and its constant means nothing.
    """

    points: list[ScalingPoint]
    envelope: list[ScalingPoint]
    held_out: ScalingPoint
    fits: dict[Form, Fit]
    joint: dict[Form, JointFit]
    joint_describes: bool
    shared_errors: bool

    @property
    def constant_range(self) -> tuple[float, float] | None:
        """The joint law's constant at 95 %."""
        return self.joint[Form.WITH_CONSTANT].intervals.get("constant") if self.joint else None

    def error(self, form: Form) -> float | None:
        """Of the held-out prediction, in percent of the measured value; above 0 the prediction is too high."""
        predicted = self.joint[form].predicted if self.joint else None
        return None if predicted is None else 100 * (predicted / self.held_out.value - 1)

    @property
    def aicc_advantage(self) -> float | None:
        """AICc of the law without a constant minus that of the law with one: above 0 it speaks for the constant."""
        values = [self.joint[form].aicc if self.joint else None for form in Form]
        without, with_constant = values
        return None if without is None or with_constant is None else without - with_constant

    @property
    def preferred(self) -> Form | None:
        """The form with the lower AICc, if by more than AICC_MARGIN."""
        return _preference(self.aicc_advantage, AICC_MARGIN)

    @property
    def predicts_better(self) -> Form | None:
        """The form with the smaller error of the held-out prediction, if by more than chance may make it.

        Chance is the scatter of the points about the closer law, or the value's standard error, if that is larger and
        the value's own.
        """
        without, with_constant = (self.error(form) for form in Form)
        if without is None or with_constant is None:
            return None
        own = 0.0 if self.shared_errors else (self.held_out.error or 0.0) / self.held_out.value
        chance = max(own, PRECISION, min(fit.scatter for fit in self.joint.values()))
        return _preference(abs(without) - abs(with_constant), 100 * chance)

    @property
    def constant_told(self) -> bool:
        """Whether the interval of the constant says something: it excludes 0, or a constant worth the name."""
        if self.constant_range is None:
            return False
        low, high = self.constant_range
        if self.preferred is Form.WITH_CONSTANT:
            return low > 0
        return high < SMALL_CONSTANT * min(point.value for point in self.points)

    @property
    def supported(self) -> Form | None:
        """The form that the data support, None where they cannot tell.

        The joint law describes them, AICc prefers the form, the interval of the constant agrees, and the held-out
        prediction does not contradict.
        """
        contradicted = self.predicts_better not in (None, self.preferred)
        return self.preferred if self.joint_describes and self.constant_told and not contradicted else None


def _preference(advantage: float | None, margin: float) -> Form | None:
    """Of the constant, if it has an advantage above the margin; of the law without it, if below minus the margin."""
    if advantage is None or abs(advantage) <= margin:
        return None
    return Form.WITH_CONSTANT if advantage > 0 else Form.WITHOUT_CONSTANT


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


def scaling_study(
    points: Sequence[ScalingPoint], held_out: str | None, bootstrap: int, seed: int, *, shared_errors: bool = False
) -> Study:
    """Fit both forms to the envelope, and joint laws to all points and to all models but one, whose last they predict.

    Values are above 0; `held_out` None takes the model of most compute. Points weigh by their errors, where all have
    one; with `shared_errors` these are mostly common to all (the same images, the same noise), and only the scatter
    about a law tells what chance does to one point against another.

    Intervals are from `bootstrap` redraws of all points, envelope and fit anew in each. At 95 % they held the truth
    less often, in simulations of the paper's widths and budgets with 0.05 to 1 % of noise: the joint law's constant
    in 80 to 93 % of 30 or 40 sets on such a law; the envelope's in 67 % (1 % of noise) and 83 % (0.3 %) of 30 sets on
    a law of compute, where the curves of all models are one.
    """
    ordered = sorted(points, key=lambda point: (point.compute, point.value))
    name = held_out or ordered[-1].model
    target = max((point for point in ordered if point.model == name), key=lambda point: point.step)
    if shared_errors or not all(point.error for point in ordered):
        weighed = [replace(point, error=None) for point in ordered]
    else:
        weighed = ordered
    fits, joint = {}, {}
    for form in Form:
        if (law := _envelope_law(weighed, form)) is not None:
            best = envelope(weighed)
            ends = _envelope_intervals(weighed, law, form, bootstrap, seed)
            fits[form] = Fit(law, scatter(best, law), ends)
        if resolves(weighed):
            joint[form] = _joint_fit(weighed, target, form, bootstrap, seed)
    describes = _describes(weighed, fits, joint)
    return Study(ordered, envelope(ordered), target, fits, joint, describes, shared_errors)


def _joint_fit(points: Sequence[ScalingPoint], target: ScalingPoint, form: Form, bootstrap: int, seed: int) -> JointFit:
    law = fit_joint_law(points, form)
    others, predicted = [point for point in points if point.model != target.model], None
    if resolves(others):
        predicted = float(fit_joint_law(others, form).at(target.parameters, target.images))
    ends, freedom = {}, len(points) - constants(JointLaw, form)
    if freedom > 0:
        spread = math.sqrt(chi_square(points, law) / freedom)
        laws = [fit_joint_law(redrawn, form) for redrawn in _redraws(points, spread, bootstrap, seed)]
        tail = (1 - CONFIDENCE) / 2
        ends = named(law, form, *np.quantile(np.array(laws), (tail, 1 - tail), axis=0))
    return JointFit(law, scatter(points, law), ends, aicc(points, law, form), predicted)


def _envelope_law(points: Sequence[ScalingPoint], form: Form) -> PowerLaw | None:
    best = envelope(points)
    return fit_power_law(best, form) if len(best) >= constants(PowerLaw, form) else None


def _envelope_intervals(
    points: Sequence[ScalingPoint], law: PowerLaw, form: Form, bootstrap: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Of each constant of the law: normal, with the spread of redraws, and less what the choice of points adds.

    The envelope picks the luckiest points. What that does to the law is seen in redraws about smooth curves, whose
    own envelope is known. {} where neither errors nor curves tell what chance does.
    """
    smooth, spread = _smoothed(points)
    exact = _envelope_law(smooth, form)
    if exact is None or (spread is None and points[0].error is None):
        return {}
    laws = [_envelope_law(redrawn, form) for redrawn in _redraws(smooth, spread or 0.0, bootstrap, seed)]
    shifts = np.array([one for one in laws if one is not None]) - np.array(exact)
    centre, reach = np.array(law) - shifts.mean(0), float(ndtri((1 + CONFIDENCE) / 2)) * shifts.std(0)
    low, high = centre - reach, centre + reach
    return named(law, form, np.array([*low[:2], max(low[2], 0)]), np.array([*high[:2], max(high[2], 0)]))


def _smoothed(points: Sequence[ScalingPoint]) -> tuple[list[ScalingPoint], float | None]:
    """Each model's points on a parabola of log y in log D, of three a line, and their spread about it.

    In units of their errors, or of log y where these are not known; None if no model has three points.
    """
    smooth, squares, freedom = [], 0.0, 0
    for model in dict.fromkeys(point.model for point in points):
        own = [point for point in points if point.model == model]
        x, y = np.log([point.images for point in own]), np.log([point.value for point in own])
        degree = min(len(own) - 2, 2)
        if degree > 0:
            errors = relative_errors(own)
            curve = np.polynomial.Polynomial.fit(x, y, degree, w=1 / errors)(x)
            squares, freedom = squares + float(np.sum(((y - curve) / errors) ** 2)), freedom + len(own) - degree - 1
            own = [replace(point, value=math.exp(value)) for point, value in zip(own, curve, strict=True)]
        smooth += own
    return smooth, math.sqrt(squares / freedom) if freedom else None


def _redraws(points: Sequence[ScalingPoint], spread: float, bootstrap: int, seed: int) -> Iterator[list[ScalingPoint]]:
    """All points with normal chance added to log y: of their errors, or as much more as they spread about a fit.

    `spread` is in units of the errors, or of log y where these are not known.
    """
    if points[0].error is not None:
        spread = max(spread, 1.0)
    chance = PositionalRandom(seed, "scaling/bootstrap").normal(torch.arange(bootstrap), (len(points),)).numpy()
    for factors in np.exp(spread * relative_errors(points) * chance.astype(np.float64)).tolist():
        yield [
            replace(point, value=factor * point.value, error=None if point.error is None else factor * point.error)
            for point, factor in zip(points, factors, strict=True)
        ]


def _describes(points: Sequence[ScalingPoint], fits: dict[Form, Fit], joint: dict[Form, JointFit]) -> bool:
    """Whether the variance about the joint law is that about the envelope's, by the F test of both."""
    best = envelope(points)
    freedom = [len(points) - len(JointLaw._fields), len(best) - len(PowerLaw._fields)]
    if not joint or min(freedom) < 1:
        return bool(joint)
    form = Form.WITH_CONSTANT
    squares = chi_square(points, joint[form].law), chi_square(best, fits[form].law)
    ratio = squares[0] / freedom[0] / (squares[1] / freedom[1])
    return bool(fdtrc(*freedom, ratio) >= 1 - CONFIDENCE)
