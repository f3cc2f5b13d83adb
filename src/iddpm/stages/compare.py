"""Scores side by side, when they were measured alike."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from iddpm.errors import UserError
from iddpm.params import FREE_AMONG_SEEDS
from iddpm.stages.context import flatten
from iddpm.stages.evaluate import PROTOCOL, SCORES
from iddpm.tracking import HIGHER_IS_BETTER


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: its scores, and all that defines them."""

    name: str
    scores: dict[str, float]
    about: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        """What another evaluation must share to be compared, as dotted keys."""
        return flatten(self.about["protocol"])


def compare(root: Path, first: str, second: str) -> str:
    """A table of two evaluations, each a name, the folder of an `iddpm evaluate`, or several with commas between.

    Several are sampling seeds of one thing: they may differ in their seed alone, and stand as their mean. Brackets are
    95 % intervals: of one set of samples as protocol.json has them, of a mean over seeds Student's t. UserError says in
    which keys the protocols differ.
    """
    sides = [[read_evaluation(root, name) for name in side.split(",")] for side in (first, second)]
    for group in sides:
        _refuse_other_samples(group)
    everyone = [evaluated for group in sides for evaluated in group]
    for other in everyone[1:]:
        refuse_other_protocol(everyone[0], other)
    shared = [name for name in everyone[0].scores if all(name in other.scores for other in everyone)]
    rows = [("", first, second, "difference")]
    rows += [_row(name, *sides) for name in shared]
    about = everyone[0].about
    against = f"{about['protocol']['images']} images against {about['protocol']['reference']['images']}"
    legend = "in brackets 95 % intervals, in which the bias of so many images is not included"
    lines = [f"{against}, distance: {about['distance']}; {legend}", "", *_aligned(rows)]
    return "\n".join(lines + _left_out(everyone, shared))


def read_evaluation(root: Path, name: str) -> Evaluated:
    """An evaluation of the pipeline at `root`, or one that `iddpm evaluate --out` wrote."""
    folder = Path(name) if (Path(name) / PROTOCOL).is_file() else root / "runs" / "evaluations" / name
    scores = folder / SCORES
    if not scores.is_file():
        scores = root / "runs" / "metrics" / f"{folder.name}.json"
    try:
        evaluated = Evaluated(name, json.loads(scores.read_text()), json.loads((folder / PROTOCOL).read_text()))
        if not {"protocol", "samples", "intervals", "samples_sha256", "distance"} <= set(evaluated.about):
            raise ValueError("not the protocol of an evaluation")
        return evaluated
    except FileNotFoundError as error:
        raise UserError(
            f"{name}: no evaluation ({error.filename} is missing); name one that has run, or a folder that iddpm "
            "evaluate wrote"
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / PROTOCOL}: damaged ({error}); evaluate again") from None


def refuse_other_protocol(one: Evaluated, other: Evaluated) -> None:
    """UserError with a line for each key in which two protocols differ."""
    ours, theirs = one.protocol, other.protocol
    differing = [key for key in sorted(ours | theirs) if ours.get(key) != theirs.get(key)]
    if differing:
        lines = [f"  {key}: {_shown(ours.get(key))} and {_shown(theirs.get(key))}" for key in differing]
        raise UserError("\n".join([f"{one.name} and {other.name} were measured differently:", *lines]))


def _refuse_other_samples(group: Sequence[Evaluated]) -> None:
    """Members of one side are samplings that differ in their seed alone."""
    ours = _sampling(group[0])
    if len(group) > 1 and not ours:
        raise UserError(f"{group[0].name}: does not say how its samples were made, so it is no seed of a sampling")
    for other in group[1:]:
        theirs = _sampling(other)
        for key in sorted(ours | theirs):
            if ours.get(key) != theirs.get(key):
                raise UserError(
                    f"{group[0].name},{other.name}: not seeds of one sampling: {key} is {_shown(ours.get(key))} and "
                    f"{_shown(theirs.get(key))}"
                )
    if len({evaluated.about["samples_sha256"] for evaluated in group}) < len(group):
        raise UserError(f"{','.join(evaluated.name for evaluated in group)}: the same images twice")


def _sampling(evaluated: Evaluated) -> dict[str, Any]:
    """What made the samples, but for the seed and what does not change them."""
    made = dict(evaluated.about["samples"].get("params", {}))
    return flatten({key: value for key, value in made.items() if key not in FREE_AMONG_SEEDS})


def _row(name: str, first: Sequence[Evaluated], second: Sequence[Evaluated]) -> tuple[str, str, str, str]:
    values = [[evaluated.scores[name] for evaluated in side] for side in (first, second)]
    spreads = [_spread(name, side) for side in (first, second)]
    means = [fmean(side) for side in values]
    shown = [_value(mean, spread) for mean, spread in zip(means, spreads, strict=True)]
    difference = means[1] - means[0]
    better = ""
    if name in HIGHER_IS_BETTER and difference:
        better = " better" if (difference > 0) == HIGHER_IS_BETTER[name] else " worse"
    lows, highs = zip(*(spread or (mean, mean) for spread, mean in zip(spreads, means, strict=True)), strict=True)
    apart = highs[0] < lows[1] or highs[1] < lows[0]
    within = "" if apart or not any(spreads) else ", intervals overlap"
    return name, shown[0], shown[1], f"{difference:+.4g}{better}{within}"


def _spread(name: str, side: Sequence[Evaluated]) -> tuple[float, float] | None:
    """The 95 % interval of a single evaluation, or of a mean over seeds."""
    if len(side) > 1:
        values = [evaluated.scores[name] for evaluated in side]
        reach = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
        return fmean(values) - reach, fmean(values) + reach
    interval = side[0].about["intervals"].get(name)
    return None if interval is None else (interval[0], interval[1])


def _value(mean: float, spread: tuple[float, float] | None) -> str:
    return f"{mean:.4g}" + (f" [{spread[0]:.4g}, {spread[1]:.4g}]" if spread else "")


def _left_out(everyone: Sequence[Evaluated], shared: Sequence[str]) -> list[str]:
    others = sorted({name for evaluated in everyone for name in evaluated.scores} - set(shared))
    return ["", f"not scored on both sides: {', '.join(others)}"] if others else []


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
