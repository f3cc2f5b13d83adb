"""Means over seeds in simulated tables: how often equal rows are told apart, and how often intervals hold.

    python benchmarks/seed_intervals.py    # the figures of docs/scores.md, in half a minute

Every table goes through the code that makes those of the report. A score is a Frechet distance: a row's level times
the exponential of normal chance, part of which all rows of a seed share.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from iddpm.stages.evaluated import Evaluated
from iddpm.stages.seeds import means_over_seeds, told_apart

SCORE = "frechet_distance"
TABLES = 4000
SEEDS = 2
CHANCE = 0.1
"""Standard deviation of a logarithm."""


class Table(NamedTuple):
    """`common`: share of the variance that all rows of a seed have in common; `same_seeds`: whether they have any."""

    levels: Sequence[float]
    common: float
    same_seeds: bool


class Found(NamedTuple):
    """Shares of the tables: the first two rows told apart, any two; and of the intervals, row by row, that hold."""

    first_two: float
    any_two: float
    held: list[float]


def main() -> None:
    equal = [10.0] * 6
    for name, table in {
        "six equal rows, the same seeds, nothing in common": Table(equal, 0.0, True),
        "six equal rows, the same seeds, nine tenths in common": Table(equal, 0.9, True),
        "the same, taken as other seeds": Table(equal, 0.9, False),
        "four rows of other seeds, at 50, 20, 10 and 3": Table([50.0, 20.0, 10.0, 3.0], 0.0, False),
    }.items():
        found = simulated(table, np.random.default_rng(0))
        held = ", ".join(f"{100 * share:.1f}" for share in found.held)
        print(f"{name}: first two rows told apart in {100 * found.first_two:.1f} % of the tables, ", end="")
        print(f"any two in {100 * found.any_two:.1f} %; intervals hold, row by row: {held} %")


def simulated(table: Table, random: np.random.Generator) -> Found:
    """Of TABLES tables. An interval holds if the level, moved by the shift where that is left out, lies in it."""
    first_two = any_two = 0
    held = np.zeros(len(table.levels))
    for _ in range(TABLES):
        shift = CHANCE * math.sqrt(table.common) * random.standard_normal(SEEDS)
        own = CHANCE * math.sqrt(1 - table.common) * random.standard_normal((len(table.levels), SEEDS))
        values = np.array(table.levels)[:, None] * np.exp(shift + own)
        rows = [(str(row), evaluated(row, of_row, table.same_seeds)) for row, of_row in enumerate(values)]
        means = means_over_seeds(rows, lambda one: None)
        apart = [told_apart(one, other, SCORE) for one, other in combinations(means, 2)]
        first_two += bool(apart[0])
        any_two += any(apart)
        moved = math.exp(shift.mean()) if table.same_seeds else 1.0
        for row, (mean, level) in enumerate(zip(means, table.levels, strict=True)):
            low, high = mean.intervals[SCORE]
            held[row] += low <= level * moved <= high
    return Found(first_two / TABLES, any_two / TABLES, (held / TABLES).tolist())


def evaluated(row: int, values: Sequence[float], same_seeds: bool) -> list[Evaluated]:
    """Seeds of one sampling of one model."""
    return [
        Evaluated(
            f"{row}-{seed}",
            {SCORE: float(value)},
            {
                "protocol": {},
                "intervals": {},
                "samples": {"params": {"model": str(row), "seed": seed if same_seeds else 1000 * row + seed}},
            },
        )
        for seed, value in enumerate(values)
    ]


if __name__ == "__main__":
    main()
