"""Scaling laws: known forms come back from their own points, and the verdict on a constant follows the joint law."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from iddpm.evaluation.scaling import Study, envelope, scaling_study, training_compute
from iddpm.evaluation.scaling_chance import describes
from iddpm.evaluation.scaling_laws import (
    Form,
    JointLaw,
    PowerLaw,
    ScalingPoint,
    fit_joint_law,
    fit_power_law,
)

MODELS = {"C64": (30_303_494, 10.04e9), "C96": (68_126_598, 22.43e9), "C128": (121_063_942, 39.74e9),
          "C192": (272_281_350, 89.09e9)}  # fmt: skip
"""Parameters and multiply-adds of the paper's models."""
STEPS = (100_000, 200_000, 400_000, 800_000, 1_500_000)
SNAPSHOTS = range(100_000, 1_500_001, 100_000)
BATCH = 128
FID = PowerLaw(math.log10(2.5e-25), 0.22, 4.00)
NLL = PowerLaw(math.log10(3.0e-15), 0.17, 3.40)
"""The fits that the paper publishes, for ImageNet 64x64."""
STRAIGHT = PowerLaw(math.log10(2.5e-25), 0.22)
SETS = 8

Law = PowerLaw | JointLaw


def joint(constant: float, exponent: float = 0.3) -> JointLaw:
    """3.57 for C128 after 800K steps; of what is above the constant, the model's part is 0.3 times the data's."""
    data = (3.57 - constant) / 1.3
    reference = ((0.3 * data, MODELS["C128"][0]), (data, 800_000 * BATCH))
    scales = [math.log10(part) + exponent * math.log10(count) for part, count in reference]
    return JointLaw(scales[0], exponent, scales[1], exponent, constant)


def points(
    law: Law, noise: float = 0.0, seed: int = 0, steps: Sequence[int] = STEPS, offset: float = 0.0
) -> list[ScalingPoint]:
    """On a law, with the models and budgets of the paper's scaling study, with log-normal noise.

    `offset` is the noise that all points of a model share.
    """
    random, found = np.random.default_rng(seed), []
    offsets = dict(zip(MODELS, offset * np.random.default_rng(1000 + seed).standard_normal(len(MODELS)), strict=True))
    for model, (parameters, multiply_adds) in MODELS.items():
        for step in steps:
            images = BATCH * step
            compute = training_compute(multiply_adds, images)
            exact = law.at(parameters, images) if isinstance(law, JointLaw) else law.at(compute)
            value = float(exact) * math.exp(offsets[model] + noise * random.standard_normal())
            found.append(ScalingPoint(model, step, parameters, images, compute, value))
    return found


def at(model: str, compute: float, value: float) -> ScalingPoint:
    return ScalingPoint(model, int(compute), 1, int(compute), compute, value)


def with_errors(of: Sequence[ScalingPoint], relative: float) -> list[ScalingPoint]:
    return [replace(point, error=relative * point.value) for point in of]


def study(law: Law, noise: float = 0.0, seed: int = 0, held_out: str | None = None) -> Study:
    return scaling_study(points(law, noise, seed), held_out, bootstrap=20, seed=0)


def test_compute_is_counted_as_in_the_paper() -> None:
    # 39.74 G multiply-adds, 1.5M steps of 128 images: the right end of the paper's line for C = 128
    assert training_compute(39.74e9, 1_500_000 * 128) == pytest.approx(4.578e19, rel=1e-3)


@pytest.mark.parametrize("law", [FID, NLL, STRAIGHT], ids=["FID", "NLL", "straight"])
def test_the_published_forms_come_back_from_the_envelope(law: PowerLaw) -> None:
    fit = study(law).fits[Form.WITH_CONSTANT]
    assert fit.law == pytest.approx(law, rel=1e-6)


@pytest.mark.parametrize("constant", [0.0, 2.5])
def test_a_joint_law_comes_back_from_its_points(constant: float) -> None:
    law = joint(constant)
    found = study(law)
    form = Form.WITH_CONSTANT if constant else Form.WITHOUT_CONSTANT
    assert found.joint[form].law == pytest.approx(law, rel=1e-5)
    assert found.joint[Form.WITH_CONSTANT].law.constant == pytest.approx(constant, abs=1e-3)
    assert found.supported is form and found.held_out.model == "C192"
    assert abs(found.error(form)) < 1e-3


@pytest.mark.parametrize("exponent", [0.1, 0.3])
def test_an_envelope_of_run_ends_bends_without_a_constant(exponent: float) -> None:
    """All widths end at one step, as in the preset: the envelope's fit finds a constant, the joint law finds none."""
    found = scaling_study(points(joint(0.0, exponent), 0.0001, 3, SNAPSHOTS), None, bootstrap=30, seed=0)
    assert found.fits[Form.WITH_CONSTANT].law.constant > 1
    low, high = found.constant_range
    assert low == 0 and high < 0.17 and found.supported is Form.WITHOUT_CONSTANT


def test_a_constant_is_found_where_there_is_one() -> None:
    found = scaling_study(points(joint(2.5), 0.0005, 3, SNAPSHOTS), None, bootstrap=30, seed=0)
    low, high = found.constant_range
    assert 2.2 < low <= 2.5 <= high < 2.8 and found.supported is Form.WITH_CONSTANT


@pytest.mark.parametrize("steps", [STEPS[::2], STEPS], ids=["3 budgets", "5 budgets"])
def test_a_constant_of_a_fifth_is_not_denied(steps: Sequence[int]) -> None:
    """The share that the paper's FID has: noise of 1 % hides it, and does not disprove it."""
    law = joint(0.67)
    for seed in range(6):
        found = scaling_study(with_errors(points(law, 0.01, seed, steps), 0.01), None, bootstrap=20, seed=0)
        assert 0.17 < 0.67 / found.best < 0.23 and found.supported is not Form.WITHOUT_CONSTANT


@pytest.mark.parametrize("constant", [0.0, 2.5])
def test_snapshots_of_one_training_are_not_taken_for_independent(constant: float) -> None:
    """What chance does to a training moves all its points: four models say little, however many points they have."""
    right = Form.WITH_CONSTANT if constant else Form.WITHOUT_CONSTANT
    held = 0
    for seed in range(5):
        found = scaling_study(points(joint(constant), 0.0005, seed, STEPS, 0.005), None, bootstrap=20, seed=0)
        low, high = found.constant_range
        held += low <= constant <= high
        assert found.supported in (None, right)
    assert held >= 4


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of models whose curves overlap, as in every study."""
    held = 0
    for seed in range(SETS):
        found = scaling_study(points(joint(2.5), 0.003, seed), None, bootstrap=30, seed=seed)
        curves = {one.model: one.compute for one in found.points if one.step == STEPS[-1]}
        assert all(curves["C64"] > one.compute for one in found.points if one.step == STEPS[0])
        low, high = found.constant_range
        held += low <= 2.5 <= high
    assert held >= 0.8 * SETS


def test_too_much_noise_tells_nothing() -> None:
    assert study(joint(2.5), noise=0.2, seed=1).supported is None


def test_points_that_follow_another_law_support_none() -> None:
    """A law of compute alone is no sum of powers of parameters and images, whether errors tell it or the models do."""
    for law in (FID, STRAIGHT):
        few = points(law, 0.003, 0, STEPS[::2])
        for some in (points(law, 0.003), with_errors(few, 0.003)):
            found = scaling_study(some, None, bootstrap=20, seed=0)
            assert found.supported is None and not found.joint_describes


@pytest.mark.parametrize("constant", [0.0, 2.5])
@pytest.mark.parametrize("offset", [0.0, 0.003, 0.005, 0.01])
@pytest.mark.parametrize("error", [0.003, None], ids=["known", "unknown"])
def test_points_that_follow_the_law_are_not_said_to_follow_another(
    constant: float, offset: float, error: float | None
) -> None:
    """Nor where chance moved all points of a model by more than their own errors."""
    found = 0
    for seed in range(10):
        some = points(joint(constant), 0.003, seed, offset=offset)
        known = with_errors(some, error) if error else some
        found += describes(known, fit_joint_law(known, Form.WITH_CONSTANT))
    assert found >= 8


def test_chance_that_models_share_does_not_excuse_another_law() -> None:
    for law in (FID, STRAIGHT):
        for seed in range(3):
            some = points(law, 0.003, seed, offset=0.01)
            for known in (some, with_errors(some, 0.003)):
                assert not describes(known, fit_joint_law(known, Form.WITH_CONSTANT))


def test_chance_moves_the_law_of_the_envelope() -> None:
    """Percentiles of the same redraws: they hold the law that the envelope follows, and are wider with more chance."""
    widths = []
    for noise in (0.001, 0.01):
        fit = scaling_study(points(joint(0.0), noise, 1), None, bootstrap=20, seed=0).fits[Form.WITHOUT_CONSTANT]
        low, high = fit.intervals["exponent"]
        assert low < fit.law.exponent < high and set(fit.intervals) == {"log10_scale", "exponent"}
        widths.append(high - low)
    assert 4 * widths[0] < widths[1]
    three = [one for one in points(joint(2.5), 0.001) if one.model != "C96"]
    assert not any(fit.intervals for fit in scaling_study(three, None, bootstrap=5, seed=0).fits.values())


def test_the_held_out_model_is_predicted_from_the_others() -> None:
    """Its own points, however strange, do not change the prediction; what counts is its last, not its best."""
    law = joint(2.5)
    strange = [replace(one, value=5 + one.step / 1e6) if one.model == "C192" else one for one in points(law)]
    found = scaling_study(strange, "C192", bootstrap=2, seed=0)
    assert found.held_out.step == STEPS[-1] and found.held_out.value == 6.5
    exact = float(law.at(MODELS["C192"][0], BATCH * STEPS[-1]))
    assert found.joint[Form.WITH_CONSTANT].predicted == pytest.approx(exact, rel=1e-4)
    assert found.error(Form.WITH_CONSTANT) == pytest.approx(100 * (exact / 6.5 - 1), rel=1e-3)
    assert study(law, held_out="C96").held_out.model == "C96"


def test_a_prediction_within_chance_decides_nothing() -> None:
    sure, unsure = (
        scaling_study(with_errors(points(joint(2.5)), error), None, bootstrap=2, seed=0) for error in (1e-4, 0.1)
    )
    assert sure.predicts_better is Form.WITH_CONSTANT and unsure.predicts_better is None


def test_an_error_that_all_points_share_is_no_chance_between_them() -> None:
    """That of bits/dim over images: it neither excuses a prediction nor widens an interval."""
    noisy = points(joint(2.5), 1e-4)
    alone, shared, own = (
        scaling_study(some, None, bootstrap=20, seed=0, shared_errors=shares)
        for some, shares in ((noisy, False), (with_errors(noisy, 0.1), True), (with_errors(noisy, 0.1), False))
    )
    assert shared.constant_range == alone.constant_range and shared.predicts_better is Form.WITH_CONSTANT
    assert own.predicts_better is None
    assert np.ptp(own.constant_range) > 10 * np.ptp(shared.constant_range)


def test_points_weigh_by_their_errors() -> None:
    law, wrong = joint(2.5), {("C96", 200_000), ("C192", 800_000)}
    off = [replace(one, value=1.05 * one.value) if (one.model, one.step) in wrong else one for one in points(law)]
    known = [replace(one, error=(0.05 if (one.model, one.step) in wrong else 1e-4) * one.value) for one in off]
    constants = [fit_joint_law(some, Form.WITH_CONSTANT).constant for some in (off, known)]
    assert abs(constants[1] - 2.5) < 0.01 < abs(constants[0] - 2.5)
    on_line = [at("one", 10.0**power, 10.0**-power) for power in range(4)]
    assert fit_power_law(on_line, Form.WITHOUT_CONSTANT).exponent == pytest.approx(1)
    bent = [replace(on_line[0], value=5.0), *on_line[1:]]
    known = [replace(one, error=(1.0 if one.compute == 1 else 1e-4) * one.value) for one in bent]
    assert fit_power_law(bent, Form.WITHOUT_CONSTANT).exponent > 1.1
    assert fit_power_law(known, Form.WITHOUT_CONSTANT).exponent == pytest.approx(1, rel=1e-4)


def test_the_envelope_is_the_best_model_for_every_compute() -> None:
    small = [at("small", 1, 10), at("small", 10, 6), at("small", 100, 5.5)]
    big = [at("big", 5, 9), at("big", 50, 5), at("big", 60, 5.2), at("big", 500, 3)]
    # small passes below big's first point on its way to its second; its last is dominated, big's third too
    assert envelope([*big, *small]) == [small[0], small[1], big[1], big[3]]
    assert envelope([at("a", 1, 2), at("b", 1, 3), at("b", 2, 2)]) == [at("a", 1, 2)]


def test_points_of_a_straight_line_all_lie_on_the_envelope() -> None:
    assert len(envelope(points(STRAIGHT))) == len(MODELS) * len(STEPS)


def test_a_study_without_enough_points_says_less_not_more() -> None:
    two = scaling_study([at("a", 1, 3), at("b", 10, 2), at("b", 20, 2.5)], None, bootstrap=5, seed=0)
    assert set(two.fits) == {Form.WITHOUT_CONSTANT} and two.joint == {} and two.supported is None
    fit = two.fits[Form.WITHOUT_CONSTANT]
    assert fit.law.exponent == pytest.approx(math.log10(1.5))
    assert scaling_study([at("a", 1, 2), at("b", 10, 3)], None, bootstrap=5, seed=0).fits == {}
    with pytest.raises(ValueError, match="with a constant has 3 constants and needs as many points, not 2"):
        fit_power_law([at("a", 1, 2), at("a", 2, 1)], Form.WITH_CONSTANT)


def test_two_models_alone_do_not_tell_a_constant() -> None:
    pair = [one for one in points(joint(2.5)) if one.model in ("C64", "C192")]
    found = scaling_study(pair, None, bootstrap=5, seed=0)
    assert found.joint == {} and found.supported is None
    three = [one for one in points(joint(2.5)) if one.model != "C96"]
    found = scaling_study(three, None, bootstrap=5, seed=0)
    assert found.error(Form.WITH_CONSTANT) is None
    assert found.constant_range is None and found.supported is None  # no model can be left out


def test_the_same_points_give_the_same_study() -> None:
    first, second = (scaling_study(points(FID, 0.01)[::order], None, 5, seed=3) for order in (1, -1))
    assert first == second
    assert scaling_study(points(FID, 0.01), None, 5, seed=4).joint != first.joint


@pytest.mark.parametrize("change", [lambda c: 1000 * c, lambda c: c / 1e15], ids=["larger", "tiny"])
def test_units_of_compute_change_the_scale_alone(change: Callable[[float], float]) -> None:
    law = fit_power_law([replace(one, compute=change(one.compute)) for one in points(FID)], Form.WITH_CONSTANT)
    assert law.exponent == pytest.approx(FID.exponent) and law.constant == pytest.approx(FID.constant)
    assert law.log10_scale == pytest.approx(FID.log10_scale - math.log10(change(1.0)))
