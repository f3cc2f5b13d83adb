"""Scaling laws: the published forms come back from their own points, and the verdict follows the data."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from iddpm.evaluation.scaling import (
    Form,
    PowerLaw,
    ScalingPoint,
    Study,
    envelope,
    fit_power_law,
    scaling_study,
    training_compute,
)

MULTIPLY_ADDS = {"C64": 10.04e9, "C96": 22.43e9, "C128": 39.74e9, "C192": 89.09e9}
STEPS = (100_000, 200_000, 400_000, 800_000, 1_500_000)
BATCH = 128
FID = PowerLaw(math.log10(2.5e-25), 0.22, 4.00)
NLL = PowerLaw(math.log10(3.0e-15), 0.17, 3.40)
"""The fits that the paper publishes, for ImageNet 64x64."""
STRAIGHT = PowerLaw(math.log10(2.5e-25), 0.22)
SETS = 12


def points(law: PowerLaw, noise: float = 0.0, seed: int = 0) -> list[ScalingPoint]:
    """On a law, at the computes of the paper's scaling study, with log-normal noise."""
    random, found = np.random.default_rng(seed), []
    for model, multiply_adds in MULTIPLY_ADDS.items():
        for step in STEPS:
            compute = training_compute(multiply_adds, BATCH * step)
            value = float(law.at(compute)) * math.exp(noise * random.standard_normal())
            found.append(ScalingPoint(model, step, compute, value))
    return found


def at(model: str, compute: float, value: float) -> ScalingPoint:
    return ScalingPoint(model, int(compute), compute, value)


def study(law: PowerLaw, noise: float = 0.0, seed: int = 0, held_out: str | None = None) -> Study:
    return scaling_study(points(law, noise, seed), held_out, bootstrap=40, seed=0)


def test_compute_is_counted_as_in_the_paper() -> None:
    # 39.74 G multiply-adds, 1.5M steps of 128 images: the right end of the paper's line for C = 128
    assert training_compute(39.74e9, 1_500_000 * 128) == pytest.approx(4.578e19, rel=1e-3)


@pytest.mark.parametrize("law", [FID, NLL], ids=["FID", "NLL"])
def test_the_published_forms_come_back(law: PowerLaw) -> None:
    found = study(law)
    fit = found.fits[Form.WITH_CONSTANT]
    assert fit.law == pytest.approx(law, rel=1e-6)
    assert all(low == pytest.approx(high, rel=1e-6) for low, high in fit.intervals.values())
    assert found.supported is Form.WITH_CONSTANT and found.held_out.model == "C192"
    assert abs(found.error(Form.WITH_CONSTANT)) < 1e-4 < abs(found.error(Form.POWER_LAW))


def test_a_law_without_a_constant_has_none() -> None:
    found = study(STRAIGHT)
    assert found.fits[Form.POWER_LAW].law == pytest.approx(STRAIGHT, rel=1e-9)
    assert found.fits[Form.WITH_CONSTANT].law == found.fits[Form.POWER_LAW].law
    assert found.supported is Form.POWER_LAW and found.fits[Form.WITH_CONSTANT].intervals["constant"][1] < 1e-2


@pytest.mark.parametrize(("law", "noise"), [(FID, 0.003), (NLL, 0.0005)], ids=["FID", "NLL"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(law: PowerLaw, noise: float) -> None:
    """Of a family of models without overlap, so that the noise does not choose the envelope."""
    computes, held = np.geomspace(4e17, 1e20, 12), 0
    for seed in range(SETS):
        values = law.at(computes) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(computes)))
        along = [at(f"model {number // 3}", *pair) for number, pair in enumerate(zip(computes, values, strict=True))]
        found = scaling_study(along, None, bootstrap=60, seed=seed)
        assert len(found.envelope) == len(computes)
        low, high = found.fits[Form.WITH_CONSTANT].intervals["constant"]
        held += low <= law.constant <= high
    assert held >= 0.8 * SETS


def test_too_much_noise_tells_nothing() -> None:
    found = study(FID, noise=0.2, seed=1)
    assert found.supported is None


def test_a_constant_that_may_be_anything_supports_no_law_without_one() -> None:
    """AICc alone would take the simpler law for few points, whatever they hide."""
    computes = np.geomspace(1e18, 4e18, 6)
    values = NLL.at(computes) * (1 + 0.001 * np.array([1, -1, 1, 1, -1, 1]))
    few = [
        at("one" if compute < 2e18 else "two", compute, value) for compute, value in zip(computes, values, strict=True)
    ]
    found = scaling_study(few, None, bootstrap=40, seed=0)
    low, high = found.fits[Form.WITH_CONSTANT].intervals["constant"]
    assert low < 0.5 and high > 3 and found.preferred is Form.POWER_LAW and found.supported is None


def test_the_held_out_model_is_predicted_from_the_others() -> None:
    """Its own points, however strange, do not change the prediction."""
    others = [point for point in points(FID) if point.model != "C192"]
    strange = [ScalingPoint("C192", step, 1e21 + step, 5.0 + step / 1e9) for step in STEPS]
    found = scaling_study(others + strange, "C192", bootstrap=2, seed=0)
    assert found.held_out == strange[0]
    assert found.fits[Form.WITH_CONSTANT].predicted == pytest.approx(float(FID.at(strange[0].compute)), rel=1e-6)
    assert found.error(Form.WITH_CONSTANT) == pytest.approx(100 * (float(FID.at(1e21 + 1e5)) / 5.0001 - 1), rel=1e-3)
    assert study(FID, held_out="C96").held_out.model == "C96"


def test_a_prediction_within_chance_decides_nothing() -> None:
    sure, unsure = (
        scaling_study(
            [ScalingPoint(one.model, one.step, one.compute, one.value, error * one.value) for one in points(FID)],
            None,
            bootstrap=2,
            seed=0,
        )
        for error in (0.001, 0.1)
    )
    assert sure.predicts_better is Form.WITH_CONSTANT and unsure.predicts_better is None


def test_the_envelope_is_the_best_model_for_every_compute() -> None:
    small = [at("small", 1, 10), at("small", 10, 6), at("small", 100, 5.5)]
    big = [at("big", 5, 9), at("big", 50, 5), at("big", 60, 5.2), at("big", 500, 3)]
    # small passes below big's first point on its way to its second; its last is dominated, big's third too
    assert envelope([*big, *small]) == [small[0], small[1], big[1], big[3]]
    assert envelope([at("a", 1, 2), at("b", 1, 3), at("b", 2, 2)]) == [at("a", 1, 2)]


def test_points_of_a_straight_line_all_lie_on_the_envelope() -> None:
    assert len(envelope(points(STRAIGHT))) == len(MULTIPLY_ADDS) * len(STEPS)


def test_a_study_without_enough_points_says_less_not_more() -> None:
    two = scaling_study([at("a", 1, 3), at("b", 10, 2), at("b", 20, 2.5)], None, bootstrap=5, seed=0)
    assert set(two.fits) == {Form.POWER_LAW} and two.supported is None
    fit = two.fits[Form.POWER_LAW]
    assert fit.law.exponent == pytest.approx(math.log10(1.5)) and fit.intervals == {} and fit.aicc is None
    assert fit.predicted is None and two.error(Form.POWER_LAW) is None
    assert scaling_study([at("a", 1, 2), at("b", 10, 3)], None, bootstrap=5, seed=0).fits == {}
    with pytest.raises(ValueError, match="3 constants need as many points, not 2"):
        fit_power_law([1, 2], [2, 1], Form.WITH_CONSTANT)


def test_the_same_points_give_the_same_study() -> None:
    first, second = (scaling_study(points(FID, 0.01)[::order], None, 20, seed=3) for order in (1, -1))
    assert first == second
    assert scaling_study(points(FID, 0.01), None, 20, seed=4).fits != first.fits


@pytest.mark.parametrize("change", [lambda c: 1000 * c, lambda c: c / 1e15], ids=["larger", "tiny"])
def test_units_of_compute_change_the_scale_alone(change: Callable[[float], float]) -> None:
    computes, values = [one.compute for one in points(FID)], [one.value for one in points(FID)]
    law = fit_power_law([change(compute) for compute in computes], values, Form.WITH_CONSTANT)
    assert law.exponent == pytest.approx(FID.exponent) and law.constant == pytest.approx(FID.constant)
    assert law.log10_scale == pytest.approx(FID.log10_scale - math.log10(change(1.0)))
