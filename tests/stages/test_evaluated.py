"""Means over seeds and their intervals, against numbers worked by hand."""

import math
from typing import Any

import pytest

from iddpm.stages.evaluated import Evaluated, common_name, means_over_seeds, told_apart

T_1, T_2, T_3 = 12.70620, 4.30265, 3.18245
"""97.5 % quantiles of Student's t with so many degrees of freedom, from a printed table."""


def seed(name: str, distance: float, number: int = 0, model: str = "m", **scores: float) -> Evaluated:
    about: dict[str, Any] = {"samples": {"params": {"model": model, "seed": number}}, "intervals": {}, "protocol": {}}
    return Evaluated(name, {"frechet_distance": distance} | scores, about)


def sampling_seeds(name: str, *distances: float) -> tuple[str, list[Evaluated]]:
    return name, [seed(f"{name}-{number}", distance, number) for number, distance in enumerate(distances)]


def interval(mean: Evaluated) -> Any:
    return mean.intervals["frechet_distance"]


def test_two_pairs_tell_apart_what_each_with_its_own_spread_could_not() -> None:
    pairs = sampling_seeds("a", 0.200, 0.215), sampling_seeds("b", 0.30, 0.32)
    (alone,), (other,) = (means_over_seeds([pair]) for pair in pairs)
    assert interval(alone)[1] == pytest.approx(0.2075 + T_1 * 0.0106066 / math.sqrt(2), abs=1e-5)
    assert told_apart(alone, other, "frechet_distance") is False
    one, two = means_over_seeds(pairs)
    reach = T_2 * 0.0125 / math.sqrt(2)  # squares 0.015**2 / 2 + 0.02**2 / 2 over 2 degrees of freedom are 0.0125**2
    assert interval(one) == pytest.approx((0.2075 - reach, 0.2075 + reach), abs=1e-6)
    assert interval(two) == pytest.approx((0.31 - reach, 0.31 + reach), abs=1e-6)
    assert told_apart(one, two, "frechet_distance") is True
    assert one.name == "a (2 seeds)" and one.deviations["frechet_distance"] == pytest.approx(0.0106066)  # its own


def test_each_count_of_seeds_has_its_weight() -> None:
    three, two = means_over_seeds([sampling_seeds("a", 11, 12, 13), sampling_seeds("b", 25, 27)])
    reaches = T_3 * math.sqrt(4 / 3 / 3), T_3 * math.sqrt(4 / 3 / 2)  # squares 2 + 2, degrees of freedom 2 + 1
    assert interval(three) == pytest.approx((12 - reaches[0], 12 + reaches[0]), abs=1e-4)
    assert interval(two) == pytest.approx((26 - reaches[1], 26 + reaches[1]), abs=1e-4)


def test_trainings_count_once_each_and_are_pooled_apart_from_sampling_seeds() -> None:
    trained = [
        seed(f"{model}-{n}", value, n, model)
        for model, n, value in (("p", 0, 2), ("p", 1, 4), ("q", 0, 6), ("q", 1, 8))
    ]
    alone = [seed("r-0", 8, 0, "r"), seed("s-0", 10, 1, "s")]
    both, second, sampled = means_over_seeds([("t", trained), ("u", alone), sampling_seeds("v", 5, 5.5)])
    assert both.name == "t (2 training seeds)" and both.scores["frechet_distance"] == 5
    assert [one.name for one in both.sets] == ["p-0", "p-1", "q-0", "q-1"]
    assert both.deviations["frechet_distance"] == pytest.approx(math.sqrt(8))  # of 3 and 7
    reach = T_2 * math.sqrt((8 + 2) / 2 / 2)
    assert interval(both) == pytest.approx((0, 5 + reach), abs=1e-4)  # no distance lies below 0
    assert interval(second) == pytest.approx((9 - reach, 9 + reach), abs=1e-4)
    assert interval(sampled)[1] == pytest.approx(5.25 + T_1 * math.sqrt(0.125 / 2), abs=1e-4)


def test_a_score_is_pooled_over_the_means_that_have_it_and_needs_some_spread() -> None:
    with_recall = [seed("a-0", 1, 0, recall=0.5, copies=0), seed("a-1", 2, 1, recall=0.7, copies=0)]
    one, two = means_over_seeds([("a", with_recall), sampling_seeds("b", 3, 4)])
    assert one.scores["recall"] == pytest.approx(0.6) and one.intervals["recall"] == (0, 1)
    assert "copies" in one.scores and "copies" not in one.intervals and "recall" not in two.scores


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["IWDiff-0", "IWDiff-1"], "IWDiff"),
        (["importance-sampling-2-0", "importance-sampling-2-1"], "importance-sampling-2"),
        (["hybrid-0-100", "hybrid-1-100"], "hybrid-100"),
        (["ancestral-100-seed-0", "ancestral-100-seed-1", "ancestral-100-seed-2"], "ancestral-100"),
        (["a-10", "a-11"], "a"),
        (["ancestral", "second"], "ancestral"),
        (["first-a", "first-b"], "first-a"),
        (["0", "1"], "0"),
        (["cold-seed", "cold-seed"], "cold-seed"),
    ],
)
def test_a_mean_has_the_common_part_of_its_seeds_names(names: list[str], common: str) -> None:
    assert common_name(names) == common
