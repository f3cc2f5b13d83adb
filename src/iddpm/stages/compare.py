"""Scores side by side, when they were measured alike."""

import json
from collections.abc import Sequence
from pathlib import Path

from iddpm.errors import UserError
from iddpm.stages.evaluate import PROTOCOL, SCORES
from iddpm.stages.evaluated import Evaluated, Interval, mean_over_seeds, told_apart
from iddpm.tracking import HIGHER_IS_BETTER


def compare(root: Path, first: str, second: str) -> str:
    """A table of two evaluations, each a name, the folder of an `iddpm evaluate`, or several with commas between.

    Several are sampling seeds of one thing: they may differ in their seed alone, and stand as their mean. Brackets are
    95 % intervals: of one set of samples as protocol.json has them, of a mean over seeds Student's t. The second is
    better or worse where they do not overlap. UserError says in which keys the protocols differ.
    """
    sides = [[read_evaluation(root, name) for name in side.split(",")] for side in (first, second)]
    for group in sides:
        _refuse_other_samples(group)
    everyone = [evaluated for group in sides for evaluated in group]
    for other in everyone[1:]:
        refuse_other_protocol(everyone[0], other)
    one, two = (mean_over_seeds(side) if len(side) > 1 else side[0] for side in sides)
    shared = [name for name in one.scores if name in two.scores]
    rows = [("", first, second, "difference")]
    rows += [_row(name, one, two) for name in shared]
    about = everyone[0].about
    against = f"{about['protocol']['images']} images against {about['protocol']['reference']['images']}"
    legend = "in brackets 95 % intervals, without the bias of so many images; better or worse where they are apart"
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
    if len(group) > 1 and not group[0].sampling:
        raise UserError(f"{group[0].name}: does not say how its samples were made, so it is no seed of a sampling")
    ours = group[0].all_but_seed
    for other in group[1:]:
        theirs = other.all_but_seed
        for key in sorted(ours | theirs):
            if ours.get(key) != theirs.get(key):
                raise UserError(
                    f"{group[0].name},{other.name}: not seeds of one sampling: {key} is {_shown(ours.get(key))} and "
                    f"{_shown(theirs.get(key))}"
                )
    if len({evaluated.sampling.get("seed") for evaluated in group}) < len(group):
        raise UserError(f"{','.join(evaluated.name for evaluated in group)}: the same images twice")


def _row(name: str, one: Evaluated, two: Evaluated) -> tuple[str, str, str, str]:
    shown = [_value(side.scores[name], side.intervals.get(name)) for side in (one, two)]
    difference, apart, verdict = two.scores[name] - one.scores[name], told_apart(one, two, name), ""
    if apart is False:
        verdict = " not told apart"
    elif apart and name in HIGHER_IS_BETTER:
        verdict = " better" if (difference > 0) == HIGHER_IS_BETTER[name] else " worse"
    return name, shown[0], shown[1], f"{difference:+.4g}{verdict}"


def _value(value: float, interval: Interval | None) -> str:
    return f"{value:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def _left_out(everyone: Sequence[Evaluated], shared: Sequence[str]) -> list[str]:
    others = sorted({name for evaluated in everyone for name in evaluated.scores} - set(shared))
    return ["", f"not scored on both sides: {', '.join(others)}"] if others else []


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
