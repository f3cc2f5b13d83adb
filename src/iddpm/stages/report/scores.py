"""The scores of samples: the summary, the tables and scores.csv."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iddpm.stages.report.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Heading,
    Notes,
    Picture,
    Pictures,
    Table,
    Tile,
    Tiles,
    joined,
    number,
)
from iddpm.stages.report.gather import Evaluated, Group, Likelihood, Results
from iddpm.tracking import HIGHER_IS_BETTER

CSV_COLUMNS = (
    "evaluation", "model", "start", "sampler", "network_evaluations", "surrogate_evaluations", "seconds_per_image",
    "distance", "frechet_distance", "frechet_distance_infinity", "kid", "inception_score", "precision", "recall",
    "density", "coverage", "authenticity", "copies", "label_accuracy",
)  # fmt: skip
NOTES_SHOWN = 4
MEANINGS = {
    "distance": "Frechet distance between Gaussians fitted to the features of samples and reference; 0 is equality. "
    "FID when, and only when, the features are those of the 2015 Inception network.",
    "∞": "the same, extrapolated to infinitely many samples; the reference's share of the bias stays.",
    "KID": "squared maximum mean discrepancy with a cubic kernel; unbiased, so it may lie below 0.",
    "IS": "inception score: whether single samples have a clear class and all of them many.",
    "precision": "samples within the reference's manifold of k nearest neighbours: fidelity.",
    "recall": "reference images within the samples' manifold: diversity.",
    "density": "in how many reference neighbourhoods a sample lies, over k; real images have about 1.",
    "coverage": "reference images whose neighbourhood holds a sample.",
    "authenticity": "samples farther from their nearest reference image than that one is from its nearest other.",
    "copies": "samples with the very pixels of a reference image.",
    "label accuracy": "samples that show the class that was asked for, by the vote of their nearest reference images.",
}


class Shown(NamedTuple):
    """A score's column: its title, a factor to its unit, significant digits, and whether its best is a merit.

    Bad images are authentic, and a density may exceed that of real ones.
    """

    title: str
    factor: float = 1
    digits: int = 3
    merit: bool = True


SCORES = {
    "frechet_distance": Shown("", digits=4),  # titled by the feature network
    "frechet_distance_infinity": Shown("", digits=4),
    "kid": Shown("KID × 1000", 1000),
    "inception_score": Shown("IS"),
    "precision": Shown("precision"),
    "recall": Shown("recall"),
    "density": Shown("density", merit=False),
    "coverage": Shown("coverage"),
    "authenticity": Shown("authenticity", merit=False),
    "copies": Shown("copies", merit=False),
    "label_accuracy": Shown("label accuracy"),
}
EFFORT: dict[str, Callable[[Evaluated], float]] = {
    "network evaluations": lambda one: one.made["network_evaluations"],
    "surrogate evaluations": lambda one: one.made["surrogate_evaluations"],
    "seconds per image": lambda one: one.seconds_per_image,
}


def write_csv(path: Path, evaluations: Sequence[Evaluated]) -> None:
    """A row for each evaluation, of all protocols; `distance` names what the Frechet distance is one of."""
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, CSV_COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        for one in evaluations:
            about = {"evaluation": one.name, "model": one.sampling["model"], "start": one.start, "sampler": one.sampler}
            about |= {key.replace(" ", "_"): effort(one) for key, effort in EFFORT.items()}
            writer.writerow(about | {"distance": one.about["distance"]} | one.values)


def summary(results: Results) -> list[Block]:
    """The best of each protocol, and of each kind of likelihood."""
    tiles = [_best_distance(group) for group in results.groups]
    kinds: dict[tuple[object, ...], list[Likelihood]] = {}
    for one in results.likelihoods:
        kind = (one.dataset, one.shown_split, one.protocol["images"], one.terms, one.protocol["clip"])
        kinds.setdefault(kind, []).append(one)
    for likelihoods in kinds.values():
        tiles += _best_likelihood(min(likelihoods, key=_bits_then_gap))
    return [Tiles(tiles)] if tiles else []


def _best_distance(group: Group) -> Tile:
    best, *others = group.ranked
    note = f"`{best.name}`"
    if interval := best.intervals.get("frechet_distance"):
        low, high = interval
        reached = [one for one in others if one.intervals.get("frechet_distance", (math.inf,))[0] <= high]
        near = [f"`{one.name}`" for one in reached]
        note += f", 95 % {number(low, 3)} to {number(high, 3)}"
        note += f"; not told apart from {joined(near)}" if near else ""
    least = "Lowest" if others else "The only"
    return Tile(f"{least} {group.title}", number(best.values["frechet_distance"], 3), note)


def _bits_then_gap(likelihood: Likelihood) -> tuple[float, bool]:
    return likelihood.values["bits_per_dim"], "gap_bits_per_dim" not in likelihood.values


def _best_likelihood(best: Likelihood) -> list[Tile]:
    labels = {
        "bits_per_dim": f"Lowest bits/dim of {best.protocol['images']:,} {best.shown_split} images of {best.dataset}, "
        f"{best.terms} terms",
        "gap_bits_per_dim": "Bits/dim of test images minus those of training images",
    }
    tiles = []
    for key, label in labels.items():
        if (value := best.values.get(key)) is not None:
            error = best.values[f"{key}_standard_error"]
            note = f"`{best.name}`" + (f", standard error {number(error, 2)}" if error is not None else "")
            tiles.append(Tile(label, number(value), note))
    return tiles


def score_blocks(results: Results, figures: dict[str, list[Picture]]) -> list[Block]:
    """A table, its figures and its warnings for each protocol."""
    blocks: list[Block] = []
    for group in results.groups:
        blocks += [Heading(group.title), _table(group)]
        blocks += [Pictures(pictures)] if (pictures := figures.get(group.title)) else []
        blocks += _warnings(group)
    meanings = Notes("", [f"{score}: {meaning}" for score, meaning in MEANINGS.items()])
    return [*blocks, Fold("What the scores mean", [meanings])] if blocks else []


def _table(group: Group) -> Table:
    rows = sorted(group.evaluations, key=_order)
    for mean in group.over_seeds:  # behind the last of its seeds
        rows.insert(max(i for i, one in enumerate(rows) if one.name in mean.members) + 1, mean)
    models = {one.sampling["model"] for one in rows}
    table = {
        Column("evaluation", False): [_named(one, len(models) > 1) for one in rows],
        Column("network evaluations"): _efforts("network evaluations", rows),
    }
    for key in SCORES:
        if any(key in one.values for one in rows):
            best = _best(key, group.independent)
            table[Column(_title(key, group))] = [_score(one, key, best) for one in rows]
    if any(one.surrogate for one in rows):
        table[Column("surrogate evaluations")] = _efforts("surrogate evaluations", rows)
    table[Column("seconds per image")] = _efforts("seconds per image", rows)
    set_apart = frozenset(i for i, one in enumerate(rows) if one.members)
    return Table(list(table), [list(row) for row in zip(*table.values(), strict=True)], _caption(group), set_apart)


def _efforts(key: str, rows: Sequence[Evaluated]) -> list[Cell]:
    return [Cell(number(EFFORT[key](one), 3)) for one in rows]


def _named(one: Evaluated, model: bool) -> Cell:
    made = ", ".join([*([one.sampling["model"]] if model else []), f"from {one.start}", one.sampler])
    if one.members:
        return Cell(one.name, f"mean ± standard deviation; {made}")
    return Cell(f"`{one.name}`", made)


def _caption(group: Group) -> str:
    first = group.evaluations[0]
    parts = [
        "In small print 95 % intervals at this number of images, without its bias; marked, the best of each column."
    ]
    if (ceiling := first.values.get("label_accuracy_reference")) is not None:
        parts.append(f"Label accuracy of the reference images themselves: {number(ceiling, 3)}.")
    if group.distance != "FID":
        parts.append(f"{group.distance} is not an FID: compare it within this table only.")
    return " ".join([*parts, "Every number's protocol is in `runs/evaluations/NAME/protocol.json`."])


def _order(one: Evaluated) -> tuple[Any, ...]:
    """By model, what started the chain, sampler and effort."""
    sampling = one.sampling
    return (
        sampling["model"],
        one.surrogate or "",
        sampling.get("t_mid", 0),
        one.sampler,
        one.made["network_evaluations"],
        sampling["seed"],
    )


def _title(key: str, group: Group) -> str:
    if key.startswith("frechet_distance"):
        return f"{group.distance}{' ∞' if key.endswith('infinity') else ''}"
    return SCORES[key].title


def _best(key: str, evaluations: Sequence[Evaluated]) -> float | None:
    values = [one.values[key] for one in evaluations if key in one.values]
    if not SCORES[key].merit or len(set(values)) < 2:
        return None
    return max(values) if HIGHER_IS_BETTER[key] else min(values)


def _score(one: Evaluated, key: str, best: float | None) -> Cell:
    if key not in one.values:
        return Cell("")
    shown, value = SCORES[key], one.values[key]
    mark = "best" if value == best else ""
    note = ""
    if interval := one.intervals.get(key):
        low, high = (shown.factor * end for end in interval)
        note = f"± {number((high - low) / 2, 2)}" if one.members else f"{number(low, 3)} to {number(high, 3)}"
    return Cell(number(shown.factor * value, shown.digits), note, mark)


def _warnings(group: Group) -> list[Block]:
    """What the scores warn of, each once with the evaluations it concerns."""
    named: dict[str, list[str]] = {}
    for one in group.evaluations:
        for warning in one.about["warnings"]:
            named.setdefault(warning, []).append(f"`{one.name}`")
    everyone = len(group.evaluations)
    notes = [
        f"{warning} ({'all' if len(names) == everyone > 1 else joined(names)})" for warning, names in named.items()
    ]
    if len(notes) <= NOTES_SHOWN:
        return [Notes("Warnings", notes)] if notes else []
    return [Fold(f"{len(notes)} warnings of these scores", [Notes("Warnings", notes)])]
