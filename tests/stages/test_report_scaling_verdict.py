"""What the report says of scaling studies: verdicts, and two studies side by side."""

from dataclasses import replace

import numpy as np
import pytest

from iddpm.evaluation.scaling import Study, scaling_study
from iddpm.evaluation.scaling_laws import Form, ScalingPoint
from iddpm.stages.report.scaling_points import PUBLISHED_LAWS, Studied
from iddpm.stages.report.scaling_verdict import compared, verdict

from .test_report_scaling import Bits, nll


def study(law: Bits, name: str) -> Studied:
    """Of four models and six budgets."""
    points = [
        ScalingPoint(f"m{n}", step, 10**n, 10 * step, float(10**n * step), law(10**n, 10 * step))
        for n in range(3, 7)
        for step in 10 ** np.arange(1, 7)
    ]
    found = scaling_study(points, None, 5, 0)
    return Studied(
        name=name, unit="bits/dim", data="test images", settings={"steps": None, "images": 100, "image size": 64},
        bias="", biased_by_samples=None, left_out=[], published=PUBLISHED_LAWS["nll"], other_data=True, costs={},
        study=found,
    )  # fmt: skip


def flat(parameters: float, images: float) -> float:
    """With no constant."""
    return nll(parameters, images) - 3.4


def wavering(parameters: float, images: float) -> float:
    return nll(parameters, images) * (1.3 if int(np.log(parameters * images) * 7) % 2 else 0.8)


@pytest.mark.parametrize(
    ("laws", "said"),
    [
        (
            (nll, flat),
            "the constant of `first` goes away in `second`, it lies between 3.4 and 3.4 in `first` and 0 and",
        ),
        ((flat, nll), "the constant of `second` goes away in `first`"),
        ((flat, flat), "neither shows a constant, none above "),
        ((nll, wavering), "the data do not tell whether both have a constant, neither law is supported in `second`"),
    ],
)
def test_whether_a_constant_goes_away_is_said(laws: tuple[Bits, ...], said: str) -> None:
    first, second = map(study, laws, ("first", "second"))
    assert compared(first, second).startswith(f"`first` and `second`: {said}")


def test_constants_of_studies_that_were_measured_differently_are_not_compared() -> None:
    first, second = study(nll, "first"), study(flat, "second")
    other = replace(second, settings=second.settings | {"steps": 250, "image size": 32})
    assert compared(first, other) == (
        "`first` and `second` were measured differently (steps: all and 250; image size: 64 and 32): their "
        "constants do not compare."
    )


def test_a_constant_of_a_biased_distance_is_not_laid_to_the_models() -> None:
    """Where none is found there is none of the models either: neither can be below 0."""
    said = "But it may be the bias of 10,000 samples, which is much the same for all models"
    for law, found in ((nll, True), (flat, False)):
        one = study(law, "fid")
        biased = replace(one, biased_by_samples=10_000)
        assert (said in verdict(one.study, 10_000)) == (said in compared(biased, biased)) == found
        assert "may be the bias" not in verdict(one.study, None) + compared(one, one)


def test_constants_that_may_be_one_are_not_told_apart() -> None:
    """Each study supports its form, but the intervals overlap."""
    bent, straight = study(nll, "first"), study(flat, "second")
    said = compared(
        replace(bent, study=with_range(bent.study, (0.3, 3.0))),
        replace(straight, study=with_range(straight.study, (0.0, 1.7))),
    )
    assert (
        "the data do not tell whether their constants differ, they lie between 0.3 and 3 in `first` and 0 and" in said
    )


def with_range(study: Study, ends: tuple[float, float]) -> Study:
    fit = study.joint[Form.WITH_CONSTANT]
    points = [replace(one, value=40.0) for one in study.points]  # 5 % of it is more than the lower interval reaches
    joint = study.joint | {Form.WITH_CONSTANT: replace(fit, intervals=fit.intervals | {"constant": ends})}
    return replace(study, points=points, joint=joint)


def test_what_keeps_the_data_from_telling_is_named() -> None:
    points = study(nll, "all").study.points
    few = [one for one in points if (one.model, one.step) in {("m3", 10), ("m3", 100), ("m3", 1000), ("m4", 10),
           ("m5", 10), ("m4", 100)}]  # fmt: skip
    assert "points enough for the joint law with any one model left out (3 numbers" in verdict(
        scaling_study(few, None, 5, 0)
    )
    assert "needs 3 numbers of parameters, 3 of images and 5 points" in verdict(scaling_study(few[:2], None, 5, 0))
    of_compute = [replace(one, value=3 + (one.compute / 1e3) ** -0.2) for one in points]
    assert "the joint law does not describe the points" in verdict(scaling_study(of_compute, None, 5, 0))
