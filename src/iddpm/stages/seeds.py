"""Means over seeds, of sampling or of training: their intervals, and which of them are told apart."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from iddpm.stages.evaluated import Evaluated, Json, Spread, sampling_seeds, trainings

BOUNDS = {
    "frechet_distance": (0, math.inf),
    "density": (0, math.inf),
    "inception_score": (1, math.inf),
} | dict.fromkeys(
    ("precision", "recall", "coverage", "authenticity", "copies", "label_accuracy", "label_accuracy_reference"), (0, 1)
)
"""Of scores that cannot lie elsewhere, nor their intervals."""
IN_PROPORTION = ("frechet_distance", "frechet_distance_infinity", "kid", "inception_score")
"""Scores without an upper bound, whose spread over seeds grows with their level."""
SPREADS = ("kid_standard_error", "inception_score_std")
"""Values that tell of another score how far it varies within one set of samples; none of their own."""
ROUNDING = 1e-9
"""Of what the values are: so small a spread is none."""
Row = tuple[str, Sequence[Evaluated]]
TrainingSeeds = Callable[[Evaluated], list[Any] | None]


def means_over_seeds(rows: Sequence[Row], training_seeds: TrainingSeeds) -> list[Evaluated]:
    """All rows of a table, each a name and its seeds: the mean over two or more, a single one as it is.

    Of every score that all seeds of a row have, with a 95 % interval, Student's t, cut off at the score's bounds. Two
    seeds alone hardly know their spread, several pairs together do, if all spread alike. Distances and the other scores
    of IN_PROPORTION spread alike in proportion to their level, so they are taken as logarithms, if all are above 0: the
    interval is the mean divided and multiplied by a factor.
    Where all seeds agree, as on no copies, their spread tells nothing, and there is no interval.

    Where every row has the same seeds, one seed's chance may shift all rows together. Then the spread is what is left
    beside row and seed (two-way layout, (rows - 1) (seeds - 1) degrees of freedom): the shift is not in the intervals,
    nor in the differences of rows. Else rows count as independent, and the spread is that about each row's own mean.
    Trainings spread more than the sampling seeds of one, so means over trainings are then pooled among themselves.

    A training counts once, by the mean of its sampling seeds. `training_seeds` of an evaluation are those of all models
    that drew its samples, None if not known; they matter where the trainings of a row are several.
    """
    units = [_by_training(seeds) for _, seeds in rows]
    over_trainings = [len(of_one) > 1 for of_one in units]
    seeds = [
        [_mean(alike) for alike in of_one] if several else of_one[0]
        for of_one, several in zip(units, over_trainings, strict=True)
    ]
    if aligned := _aligned(seeds, over_trainings, training_seeds):
        spreads = [_spreads(aligned, beside_shift=True)] * len(rows)
    else:
        kinds: dict[bool, list[Sequence[Evaluated]]] = {}
        for of_one, several in zip(seeds, over_trainings, strict=True):
            kinds.setdefault(several, []).append(of_one)
        pooled = {several: _spreads(alike, beside_shift=False) for several, alike in kinds.items()}
        spreads = [pooled[several] for several in over_trainings]
    means = []
    for (name, _), of_one, several, known in zip(rows, seeds, over_trainings, spreads, strict=True):
        counted = f"{name} ({len(of_one)} {'training ' if several else ''}seeds)"
        means.append(_mean(of_one, counted, known))
    return means


def _by_training(seeds: Iterable[Evaluated]) -> list[list[Evaluated]]:
    found: dict[str, list[Evaluated]] = {}
    for one in seeds:
        found.setdefault(trainings(one.made), []).append(one)
    return list(found.values())


def _aligned(
    rows: Sequence[Sequence[Evaluated]], over_trainings: Sequence[bool], training_seeds: TrainingSeeds
) -> list[list[Evaluated]] | None:
    """The rows with their seeds in one order; None if they are not two rows or more of the same two seeds or more."""
    placed: list[dict[str, Evaluated]] = []
    for seeds, several in zip(rows, over_trainings, strict=True):
        places: dict[str, Evaluated] = {}
        for one in seeds:
            # the one training of a row is no chance that its seeds share with those of another
            trained = training_seeds(one) if several else []
            drawn = [sampling_seeds(each.made) for each in one.sets]
            if trained is None or any(None in stages for stages in drawn):
                return None
            places[json.dumps([trained, sorted(map(json.dumps, drawn))])] = one
        if len(places) < max(len(seeds), 2):
            return None
        placed.append(places)
    first, *others = placed
    if not others or any(places.keys() != first.keys() for places in others):
        return None
    return [[places[place] for place in first] for places in placed]


def _spreads(rows: Sequence[Sequence[Evaluated]], beside_shift: bool) -> dict[str, Spread]:
    """Of each score the sum of squares beside rows, with `beside_shift` beside seeds too, by its degrees of freedom."""
    scores: dict[str, list[list[float]]] = {}
    for seeds in rows:
        if len(seeds) > 1:
            for key, values in _shared(seeds).items():
                scores.setdefault(key, []).append(values)
    spreads = {}
    for key, of_rows in scores.items():
        of_logs = key in IN_PROPORTION and all(value > 0 for values in of_rows for value in values)
        scaled = [np.log(values) if of_logs else np.array(values) for values in of_rows]
        left = [values - values.mean() for values in scaled]
        freedom = sum(len(values) - 1 for values in left)
        if two_way := beside_shift and len(left) > 1:  # a score of one row alone is nothing to be told apart
            shift = np.mean(left, axis=0)
            left = [values - shift for values in left]
            freedom -= len(shift) - 1
        squares, whole = (sum(float(values @ values) for values in of_one) for of_one in (left, scaled))
        if squares > ROUNDING**2 * whole:
            spreads[key] = Spread(squares / freedom, freedom, of_logs, two_way, len(left))
    return spreads


def _mean(seeds: Sequence[Evaluated], name: str = "", spreads: dict[str, Spread] | None = None) -> Evaluated:
    """With intervals if their spread is known; a single one is itself."""
    if len(seeds) == 1:
        return seeds[0]
    scores, intervals = {}, {}
    spreads = spreads or {}
    for key, values in _shared(seeds).items():
        scores[key] = fmean(values)
        if key in spreads:
            reach, of_logs = spreads[key].reach(len(values)), spreads[key].of_logs
            centre = math.log(scores[key]) if of_logs else scores[key]
            low, high = (math.exp(end) if of_logs else end for end in (centre - reach, centre + reach))
            least, most = BOUNDS.get(key, (-math.inf, math.inf))
            intervals[key] = (max(low, least), min(high, most))
    about: Json = seeds[0].about | {"intervals": intervals}
    return Evaluated(name or seeds[0].name, scores, about, tuple(seeds), {key: spreads[key] for key in intervals})


def _shared(seeds: Sequence[Evaluated]) -> dict[str, list[float]]:
    """The values of every score that all have."""
    shared = [key for key in seeds[0].scores if key not in SPREADS and all(key in one.scores for one in seeds)]
    return {key: [one.scores[key] for one in seeds] for key in shared}


def _mean_of(values: Iterable[float], of_logs: bool) -> float:
    return fmean(map(math.log, values) if of_logs else values)


def told_apart(one: Evaluated, other: Evaluated, score: str) -> bool | None:
    """Whether two rows of a table differ at 95 %; None where one of them has no interval of the score.

    Means over the same seeds by their difference, in which the shift that they share is not. Others if their intervals
    do not overlap.
    """
    ours, theirs = one.intervals.get(score), other.intervals.get(score)
    if ours is None or theirs is None:
        return None
    spread = one.spreads.get(score)
    if spread and spread.beside_shift and spread == other.spreads.get(score):
        means = [_mean_of([seed.scores[score] for seed in row.seeds], spread.of_logs) for row in (one, other)]
        return abs(means[0] - means[1]) > spread.difference_reach(len(one.seeds))
    return ours[1] < theirs[0] or theirs[1] < ours[0]
