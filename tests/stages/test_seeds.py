"""Means over seeds and their intervals, against numbers worked by hand."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
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


def around(mean: float, reach: float) -> Any:
    """Of a distance, whose reach is one of logarithms."""
    return pytest.approx((mean * math.exp(-reach), mean * math.exp(reach)), rel=1e-5)


def test_two_pairs_tell_apart_what_each_with_its_own_spread_could_not() -> None:
    pairs = sampling_seeds("a", 0.200, 0.215), sampling_seeds("b", 0.30, 0.32)
    (alone,), (other,) = (means_over_seeds([pair]) for pair in pairs)
    assert interval(alone) == around(0.2075, T_1 * 0.0723207 / 2)  # the logarithm of 0.215 / 0.2
    assert told_apart(alone, other, "frechet_distance") is False
    one, two = means_over_seeds(pairs)
    reach = T_2 * 0.0484652 / math.sqrt(2)  # squares 0.0723207**2 / 2 + 0.0645385**2 / 2 over 2 degrees of freedom
    assert interval(one) == around(0.2075, reach) and interval(two) == around(0.31, reach)
    assert told_apart(one, two, "frechet_distance") is True
    assert one.name == "a (2 seeds)" and one.deviations["frechet_distance"] == pytest.approx(0.0106066)  # its own


def test_each_count_of_seeds_has_its_weight() -> None:
    ten = math.log(10)
    three, two = means_over_seeds([sampling_seeds("a", 1, 10, 100), sampling_seeds("b", 5, 500)])
    reaches = T_3 * ten * math.sqrt(4 / 3 / 3), T_3 * ten * math.sqrt(4 / 3 / 2)  # squares 2 + 2 over 2 + 1
    assert interval(three) == around(37, reaches[0])
    assert interval(two) == around(252.5, reaches[1])


@pytest.mark.parametrize(("score", "deviation"), [("frechet_distance", 0.1), ("kid", 0.1), ("inception_score", 0.03)])
def test_intervals_hold_on_every_row_though_levels_differ(score: str, deviation: float) -> None:
    draws, levels = 800, np.array([50.0, 20.0, 10.0, 3.0])
    noise = np.random.default_rng(0).standard_normal((draws, len(levels), 2))
    held = np.zeros(len(levels))
    for values in levels[:, None] * (1 + deviation * noise):
        groups = [(str(row), [seed("s", 1, i, **{score: of}) for i, of in enumerate(two)]) for row, two in enumerate(values)]  # fmt: skip # noqa: E501
        intervals = [mean.intervals[score] for mean in means_over_seeds(groups)]
        held += [low < level < high for (low, high), level in zip(intervals, levels, strict=True)]
    assert np.all(held / draws > 0.93) and np.all(held / draws < 0.97)


def test_shares_and_scores_that_reach_below_0_are_pooled_on_their_own_scale() -> None:
    def pair(name: str, recalls: Sequence[float], kids: Sequence[float]) -> tuple[str, list[Evaluated]]:
        return name, [
            seed(name, 1, number, recall=recall, kid=kid)
            for number, (recall, kid) in enumerate(zip(recalls, kids, strict=True))
        ]

    one, two = means_over_seeds([pair("a", (0.50, 0.51), (0.3, 0.31)), pair("b", (0.10, 0.12), (-0.001, 0.019))])
    reach = T_2 * 0.0111803 / math.sqrt(2)  # squares 0.01**2 / 2 + 0.02**2 / 2 over 2 degrees of freedom
    assert one.intervals["recall"] == pytest.approx((0.505 - reach, 0.505 + reach), abs=1e-6)
    assert two.intervals["recall"] == pytest.approx((0.11 - reach, 0.11 + reach), abs=1e-6)
    assert one.intervals["kid"] == pytest.approx((0.305 - reach, 0.305 + reach), abs=1e-6)
    assert two.intervals["kid"] == pytest.approx((0.009 - reach, 0.009 + reach), abs=1e-6)


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
    squares = [math.log(7 / 3) ** 2 / 2, math.log(10 / 8) ** 2 / 2]
    reach = T_2 * math.sqrt(sum(squares) / 2 / 2)
    assert interval(both) == around(5, reach) and interval(second) == around(9, reach)
    assert interval(sampled) == around(5.25, T_1 * math.log(5.5 / 5) / 2)


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
