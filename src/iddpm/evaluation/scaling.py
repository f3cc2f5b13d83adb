"""Scaling studies: a metric as power laws of training compute (paper, figure 10), and of parameters and images.

Whether the metric has an irreducible constant is asked of the joint law y = c + A N^-a + B D^-b, N parameters and D
images seen (Hoffmann et al. 2022), fitted to all points. The envelope alone does not tell: where all models end at one
step, it turns from the curve of a small one into the row of the others' ends, and bends with no constant at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from iddpm.evaluation.confidence import TAIL, student_reach
from iddpm.evaluation.scaling_chance import describes, redraws
from iddpm.evaluation.scaling_laws import (
    PRECISION,
    Array,
    Form,
    JointLaw,
    PowerLaw,
    ScalingPoint,
    constants,
    fit_joint_law,
    fit_power_law,
    named,
    resolves,
    scatter,
)

FEWEST_MODELS, FEWEST_POINTS = 2, 3
"""Of a study; the joint law needs more."""
PASSES = 3
"""Forward passes that a training step costs as the paper counts: one, and a backward pass of twice its price."""
SMALL_CONSTANT = 0.05
"""Share of the best value: a law without a constant is supported only if every constant above it is excluded."""


@dataclass(frozen=True)
class Fit:
    """A law fitted to the envelope of all models, and the root mean square relative deviation of its points.

    `intervals` are percentiles of laws fitted to the envelopes of redrawn points, by the names of PowerLaw: what chance
    does to this curve, at 95 %, not whether its constant is the models'. {} where JointFit has none, or an envelope of
    redrawn points is too short.
    """

    law: PowerLaw
    scatter: float
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class JointFit:
    """A joint law fitted to all points; `scatter` as in Fit.

    `intervals` at 95 % are by the names of JointLaw, {} unless any one model can be left out. `predicted` is the
    held-out value by the law of the other models alone, None where these have too few values of N or D.
    """

    law: JointLaw
    scatter: float
    intervals: dict[str, tuple[float, float]]
    predicted: float | None


@dataclass(frozen=True)
class Study:
    """Points in the order of compute, those on the envelope, the held-out model's last, and what fits.

    A form is missing from `fits` where the envelope has fewer points than it has constants; `joint` is {} with too few
    values of N or D. `joint_describes` is False where the points deviate from the joint law by more than chance: they
    follow some other law, and its constant means nothing.
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
        advantage = abs(without) - abs(with_constant)
        if abs(advantage) <= 100 * chance:
            return None
        return Form.WITH_CONSTANT if advantage > 0 else Form.WITHOUT_CONSTANT

    @property
    def told(self) -> Form | None:
        """What the interval of the constant says: it excludes 0, or every constant that is not small."""
        if self.constant_range is None:
            return None
        low, high = self.constant_range
        if low > 0:
            return Form.WITH_CONSTANT
        return Form.WITHOUT_CONSTANT if high < SMALL_CONSTANT * self.best else None

    @property
    def best(self) -> float:
        return min(point.value for point in self.points)

    @property
    def supported(self) -> Form | None:
        """The form that the data support, None where they cannot tell.

        The joint law describes them, the interval of the constant tells, and the held-out prediction does not
        contradict.
        """
        contradicted = self.predicts_better not in (None, self.told)
        return self.told if self.joint_describes and not contradicted else None


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
    one; with `shared_errors` these may be common to all (the same images, the same noise), and only the scatter about a
    law tells what chance does to one point against another.

    Intervals cover what two ways say, from the lower low to the higher high: `bootstrap` redraws of all points, with
    chance of each point and chance that all points of a model share, and the jackknife over models, which asks the
    same of laws without one model each. Snapshots of one training are not independent, and it counts models.
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
        redrawn: list[list[ScalingPoint]] = []
        if resolves(weighed):
            law = fit_joint_law(weighed, form)
            redrawn = list(redraws(weighed, law, form, bootstrap, seed))
            joint[form] = _joint_fit(weighed, law, target, form, redrawn)
        if (of_envelope := _envelope_law(weighed, form)) is not None:
            told = redrawn if form in joint and joint[form].intervals else []
            fits[form] = Fit(of_envelope, scatter(envelope(weighed), of_envelope), _percentiles(told, form))
    described = bool(joint) and describes(weighed, joint[Form.WITH_CONSTANT].law)
    return Study(ordered, envelope(ordered), target, fits, joint, described, shared_errors)


def _joint_fit(
    points: Sequence[ScalingPoint],
    law: JointLaw,
    target: ScalingPoint,
    form: Form,
    redrawn: Sequence[Sequence[ScalingPoint]],
) -> JointFit:
    models = dict.fromkeys(point.model for point in points)
    others = {model: [point for point in points if point.model != model] for model in models}
    left_out = {model: fit_joint_law(rest, form) for model, rest in others.items() if resolves(rest)}
    predicted = None
    if target.model in left_out:
        predicted = float(left_out[target.model].at(target.parameters, target.images))
    ends = {}
    if len(left_out) == len(models):
        reach = student_reach(len(models) - 1) * _jackknife_error(np.array(list(left_out.values())))
        low, high = np.quantile([fit_joint_law(one, form) for one in redrawn], (TAIL, 1 - TAIL), axis=0)
        low, high = np.minimum(low, np.array(law) - reach), np.maximum(high, np.array(law) + reach)
        low[[1, 3, 4]] = np.maximum(low[[1, 3, 4]], 0)  # exponents and the constant
        ends = named(law, form, low, high)
    return JointFit(law, scatter(points, law), ends, predicted)


def _jackknife_error(laws: Array) -> Array:
    """Standard error of each constant, from laws with one model left out each, [models, constants]."""
    error: Array = math.sqrt(len(laws) - 1) * laws.std(0)
    return error


def _envelope_law(points: Sequence[ScalingPoint], form: Form) -> PowerLaw | None:
    best = envelope(points)
    return fit_power_law(best, form) if len(best) >= constants(PowerLaw, form) else None


def _percentiles(redrawn: Sequence[Sequence[ScalingPoint]], form: Form) -> dict[str, tuple[float, float]]:
    """Of the law of the envelope, where it has one for all redrawn points."""
    laws = [law for points in redrawn if (law := _envelope_law(points, form)) is not None]
    if not laws or len(laws) < len(redrawn):
        return {}
    return named(laws[0], form, *np.quantile(laws, (TAIL, 1 - TAIL), axis=0))
