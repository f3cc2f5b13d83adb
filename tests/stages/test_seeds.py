"""Means over seeds and their intervals, against numbers worked by hand."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from iddpm.stages.evaluated import Evaluated
from iddpm.stages.seeds import means_over_seeds, told_apart

Row = tuple[str, list[Evaluated]]
T_1, T_2, T_3 = 12.70620, 4.30265, 3.18245
"""97.5 % quantiles of Student's t with so many degrees of freedom, from a printed table."""
Q_3_2 = 8.331
"""95 % quantile of the studentized range of three means with two degrees of freedom, likewise."""


def seed(name: str, distance: float, number: int = 0, model: str = "m", **scores: float) -> Evaluated:
    about: dict[str, Any] = {"samples": {"params": {"model": model, "seed": number}}, "intervals": {}, "protocol": {}}
    return Evaluated(name, {"frechet_distance": distance} | scores, about)


def sampling_seeds(name: str, *distances: float, first: int = 0) -> Row:
    return name, [seed(f"{name}-{number}", distance, number) for number, distance in enumerate(distances, first)]


def means(*rows: Row) -> list[Evaluated]:
    """The training seed of a model is the end of its name, if that is a number."""
    return means_over_seeds(rows, lambda one: [one.network[-1]] if one.network[-1].isdigit() else None)


def interval(mean: Evaluated) -> Any:
    return mean.intervals["frechet_distance"]


def around(*distances: float, reach: float) -> Any:
    """The mean, by a reach of logarithms."""
    mean = sum(distances) / len(distances)
    return pytest.approx((mean * math.exp(-reach), mean * math.exp(reach)), rel=1e-5)


def test_two_pairs_tell_apart_what_each_with_its_own_spread_could_not() -> None:
    pairs = sampling_seeds("a", 0.200, 0.215), sampling_seeds("b", 0.30, 0.32, first=2)
    (alone,), (other,) = (means(pair) for pair in pairs)
    assert interval(alone) == around(0.200, 0.215, reach=T_1 * 0.0723207 / 2)  # the logarithm of 0.215 / 0.2
    assert told_apart(alone, other, "frechet_distance") is False
    one, two = means(*pairs)
    reach = T_2 * 0.0484652 / math.sqrt(2)  # squares 0.0723207**2 / 2 + 0.0645385**2 / 2 over 2 degrees of freedom
    assert interval(one) == around(0.200, 0.215, reach=reach) and interval(two) == around(0.30, 0.32, reach=reach)
    assert told_apart(one, two, "frechet_distance") is True
    assert one.name == "a (2 seeds)" and one.deviations["frechet_distance"] == pytest.approx(0.0106066)  # its own


def test_each_count_of_seeds_has_its_weight() -> None:
    ten = math.log(10)
    three, two = means(sampling_seeds("a", 1, 10, 100), sampling_seeds("b", 5, 500))
    reaches = T_3 * ten * math.sqrt(4 / 3 / 3), T_3 * ten * math.sqrt(4 / 3 / 2)  # squares 2 + 2 over 2 + 1
    assert interval(three) == around(1, 10, 100, reach=reaches[0])
    assert interval(two) == around(5, 500, reach=reaches[1])


@pytest.mark.parametrize(("score", "deviation"), [("frechet_distance", 0.1), ("kid", 0.1), ("inception_score", 0.03)])
def test_intervals_hold_on_every_row_though_levels_differ(score: str, deviation: float) -> None:
    draws, levels = 800, np.array([50.0, 20.0, 10.0, 3.0])
    noise = np.random.default_rng(0).standard_normal((draws, len(levels), 2))
    held = np.zeros(len(levels))
    for values in levels[:, None] * (1 + deviation * noise):
        rows = [(str(row), [seed("s", 1, 2 * row + i, **{score: of}) for i, of in enumerate(two)]) for row, two in enumerate(values)]  # fmt: skip # noqa: E501
        intervals = [mean.intervals[score] for mean in means(*rows)]
        held += [low < level < high for (low, high), level in zip(intervals, levels, strict=True)]
    assert np.all(held / draws > 0.93) and np.all(held / draws < 0.97)


def test_shares_and_scores_that_reach_below_0_are_pooled_on_their_own_scale() -> None:
    def pair(name: str, first: int, recalls: Sequence[float], kids: Sequence[float]) -> Row:
        return name, [
            seed(name, 1, number, recall=recall, kid=kid)
            for number, (recall, kid) in enumerate(zip(recalls, kids, strict=True), first)
        ]

    one, two = means(pair("a", 0, (0.50, 0.51), (0.3, 0.31)), pair("b", 2, (0.10, 0.12), (-0.001, 0.019)))
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
    both, second, sampled = means(("t", trained), ("u", alone), sampling_seeds("v", 5, 5.5))
    assert both.name == "t (2 training seeds)"
    assert both.scores["frechet_distance"] == 5
    assert [one.name for one in both.sets] == ["p-0", "p-1", "q-0", "q-1"]
    assert both.deviations["frechet_distance"] == pytest.approx(math.sqrt(8))  # of 3 and 7
    squares = [math.log(7 / 3) ** 2 / 2, math.log(10 / 8) ** 2 / 2]
    reach = T_2 * math.sqrt(sum(squares) / 2 / 2)
    assert interval(both) == around(3, 7, reach=reach) and interval(second) == around(8, 10, reach=reach)
    assert interval(sampled) == around(5, 5.5, reach=T_1 * math.log(5.5 / 5) / 2)


def test_a_score_is_pooled_over_the_means_that_have_it_and_needs_some_spread() -> None:
    with_recall = [seed("a-0", 1, 0, recall=0.5, copies=0), seed("a-1", 2, 1, recall=0.7, copies=0)]
    one, two = means(("a", with_recall), sampling_seeds("b", 3, 4))
    assert one.scores["recall"] == pytest.approx(0.6) and one.intervals["recall"] == (0, 1)  # by its own seeds
    assert "copies" in one.scores and "copies" not in one.intervals and "recall" not in two.scores


def recalls(name: str, *values: float, order: Sequence[int] = (0, 1)) -> Row:
    return name, [seed(name, 1, number, recall=values[number]) for number in order]


def test_rows_of_the_same_seeds_are_told_apart_beside_the_shift_that_they_share() -> None:
    rows = recalls("a", 0.5, 0.6), recalls("b", 0.405, 0.525, order=(1, 0)), recalls("c", 0.42, 0.5)
    one, two, three = means(*rows)
    error = math.sqrt(4 * 0.01**2 / 2) / math.sqrt(2)  # seeds differ by 0.1, 0.12 and 0.08: residuals 0, 0.01, 0.01
    reach = T_2 * error
    for mean, value in ((one, 0.55), (two, 0.465), (three, 0.46)):
        assert mean.beside_shift
        assert mean.intervals["recall"] == pytest.approx((value - reach, value + reach), abs=1e-6)
    assert one.intervals["recall"][0] < two.intervals["recall"][1]  # they overlap, but their difference is
    assert told_apart(one, two, "recall") is True and Q_3_2 * error < 0.085
    assert told_apart(two, three, "recall") is False
    one, _, three = means(rows[0], rows[1], recalls("c", 0.44, 0.52))  # further apart than the 0.061 of a t test
    assert one.scores["recall"] - three.scores["recall"] == pytest.approx(0.07)
    assert told_apart(one, three, "recall") is False and Q_3_2 * error > 0.07
    near, other = means(recalls("a", 0.5, 0.6), recalls("b", 0.48, 0.57))
    assert told_apart(near, other, "recall") is False  # residuals 0.0025, t of 1 degree of freedom


def test_distances_of_the_same_seeds_are_compared_by_their_ratio() -> None:
    one, two = means(sampling_seeds("a", 0.200, 0.215), sampling_seeds("b", 0.30, 0.32))
    deviation = abs(math.log(0.30 / 0.200) - math.log(0.32 / 0.215)) / 2  # of two residuals in each row, all alike
    reach = T_1 * deviation / math.sqrt(2)
    assert interval(one) == around(0.200, 0.215, reach=reach) and interval(two) == around(0.30, 0.32, reach=reach)
    for factor, apart in ((1.04, False), (1.06, True)):  # exp(sqrt(2) * reach) is 1.051
        near = sampling_seeds("b", 0.200 * factor * math.exp(-deviation), 0.215 * factor * math.exp(deviation))
        assert told_apart(*means(sampling_seeds("a", 0.200, 0.215), near), "frechet_distance") is apart
    unlike = sampling_seeds("b", 0.12 * math.exp(0.0138), 12 * math.exp(-0.0138))  # seed 1 does not outweigh seed 0
    assert told_apart(*means(sampling_seeds("a", 0.1, 10), unlike), "frechet_distance") is True


@pytest.mark.parametrize(("score", "level"), [("frechet_distance", 20.0), ("recall", 0.5)])
@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_differences_over_common_seeds_hold_with_and_without_a_common_shift(
    score: str, level: float, shift: float
) -> None:
    """Of three equal rows any two are told apart in 5 % of the tables; one that is far better nearly always."""
    draws, of_logs = 2000, score == "frechet_distance"
    random = np.random.default_rng(0)
    shifts = shift * random.standard_normal((draws, 1, 2))  # 0.9 of the variance, or none
    noise = shifts + 0.05 * random.standard_normal((draws, 3, 2))
    if not of_logs:
        shifts, noise = shifts / 5, noise / 5
    values = level * np.exp(noise) if of_logs else level + noise
    moved = level * np.exp(shifts.mean(2)) if of_logs else level + shifts.mean(2)
    better = np.array([[1.0], [1.0], [0.3]])

    def table(of_draw: Any) -> list[Evaluated]:
        rows = [[seed("s", 1, number, **{score: one}) for number, one in enumerate(two)] for two in of_draw]
        return means(*((str(row), of_row) for row, of_row in enumerate(rows)))

    held, alike, different = np.zeros(3), 0, 0
    for of_draw, (target,) in zip(values, moved, strict=True):
        rows = table(of_draw)
        held += [low < target < high for low, high in (mean.intervals[score] for mean in rows)]
        alike += any(told_apart(one, other, score) for one, other in combinations(rows, 2))
    for of_draw in values[:200]:
        rows = table(of_draw * better)
        different += told_apart(rows[0], rows[2], score) is True
    assert np.all(held / draws > 0.935) and np.all(held / draws < 0.965)
    assert 0.035 < alike / draws < 0.065
    assert different / 200 > 0.98


def test_seeds_are_training_and_sampling_seeds_together() -> None:
    def trained(name: str, *pairs: tuple[int, int], values: Sequence[float] = (2, 4)) -> Row:
        return name, [seed(f"{name}-{n}", value, n, f"{name}{m}") for (m, n), value in zip(pairs, values, strict=True)]

    def shared(*rows: Row) -> bool:
        found = {one.beside_shift for one in means(*rows)}
        assert len(found) == 1
        return found.pop()

    a = trained("a", (0, 0), (1, 1))
    assert shared(a, trained("b", (1, 1), (0, 0), values=(6, 9)))
    assert not shared(a, trained("b", (0, 1), (1, 0), values=(6, 9)))
    assert not shared(a, trained("b", (2, 0), (3, 1), values=(6, 9)))
    assert not shared(trained("x", (0, 0), (0, 0)), trained("y", (0, 0), (0, 0), values=(6, 9)))  # no two seeds
    several = (0, 0), (0, 1), (1, 0), (1, 1)
    assert shared(trained("a", *several, values=(2, 3, 4, 5)), trained("b", *several, values=(3, 5, 8, 13)))
    assert not shared(trained("a", *several, values=(2, 3, 4, 5)), a)
    unknown = [("p", [seed(f"p-{n}", 2 + n, n, f"p-{'xy'[n]}") for n in (0, 1)]) for _ in range(2)]
    assert not shared(*unknown)
    assert shared(sampling_seeds("v", 1, 2), sampling_seeds("w", 5, 6))  # of one training each, whatever its seed
    assert not shared(sampling_seeds("v", 1, 2), a)


def test_a_table_of_other_rows_is_pooled() -> None:
    pair, alike, pooled = sampling_seeds("a", 0.200, 0.215), sampling_seeds("b", 0.30, 0.32), 0.0484652
    single = ("c", [seed("c", 0.5)])
    for others in (
        [alike, sampling_seeds("c", 0.5, 0.5, first=5)],
        [alike, sampling_seeds("c", 0.5, 0.5, 0.5)],
        [alike, single],
    ):
        found = means(pair, *others)
        assert not any(one.beside_shift for one in found) and found[0].intervals.keys() == {"frechet_distance"}
    reach = T_2 * pooled / math.sqrt(2)
    assert interval(found[0]) == around(0.200, 0.215, reach=reach)
    assert found[2] is single[1][0]  # as it is


def test_rows_that_differ_by_the_very_same_in_every_seed_have_no_spread_to_go_by() -> None:
    for mean in means(recalls("a", 0.1, 0.12), recalls("b", 0.3, 0.32)):  # but for rounding
        assert "recall" not in mean.intervals
