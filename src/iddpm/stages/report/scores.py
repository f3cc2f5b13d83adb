"""The scores of samples: the summary, the tables and scores.csv."""

import csv
import math
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from iddpm.stages.evaluated import Evaluated
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
from iddpm.stages.report.gather import Likelihood, Results
from iddpm.stages.report.groups import Group
from iddpm.stages.report.protocol import FID, protocol_fold, score_name
from iddpm.stages.seeds import told_apart
from iddpm.tracking import HIGHER_IS_BETTER

CSV_COLUMNS = (
    "evaluation", "model", "start", "sampler", "network_evaluations", "surrogate_evaluations", "seconds_per_image",
    "distance", "frechet_distance", "frechet_distance_infinity", "kid", "inception_score", "class_probabilities",
    "precision", "recall", "density", "coverage", "authenticity", "copies", "label_accuracy",
)  # fmt: skip
ALIKE = "distances, KID and IS in proportion to their level"
POOLED = (
    "of a mean over seeds, Student's t, by the variance over seeds of all means of this table together, which assumes "
    f"that they spread alike, {ALIKE}, and that no chance moves two rows together; means over training seeds and over "
    "sampling seeds are pooled each for themselves. Rows are told apart where their intervals do not overlap."
)
BESIDE_SHIFT = (
    "of a mean over seeds, Student's t. All rows have the same seeds, whose chance may move every row alike. This "
    "shift is not in the intervals of means: they are for comparing rows, and an absolute value is less certain. They "
    f"are by the variance left beside row and seed, which is taken to be alike in all rows, {ALIKE}. Rows are told "
    "apart by their difference (Tukey's test: in 5 % of tables of equal rows any two are told apart), whether or not "
    "their intervals overlap."
)
SHIFT_LEFT_OUT = "without the shift that all rows share by their seeds"
NOTES_SHOWN = 4
MEANINGS = {
    "distance": "Frechet distance between Gaussians fitted to the features of samples and reference; 0 is equality. "
    "FID when, and only when, the features are those of the 2015 Inception network.",
    "∞": "the same, extrapolated to infinitely many samples; the reference's share of the bias stays.",
    "KID": "squared maximum mean discrepancy with a cubic kernel; unbiased, so it may lie below 0.",
    "IS": "inception score: whether single samples have a clear class and all of them many. IS and KID are "
    "the published quantities with the 2015 Inception alone; what else they are by stands in brackets.",
    "precision": "samples within the reference's manifold of k nearest neighbours: fidelity.",
    "recall": "reference images within the samples' manifold: diversity.",
    "density": "in how many reference neighbourhoods a sample lies, over k; real images have about 1.",
    "coverage": "reference images whose neighbourhood holds a sample.",
    "authenticity": "samples farther from their nearest reference image than that one is from its nearest other.",
    "copies": "samples with the very pixels of a reference image.",
    "label accuracy": "samples that show the class that was asked for, by the vote of their nearest reference images.",
}


class Shown(NamedTuple):
    """How a score's column shows it: a factor to its unit, and significant digits."""

    factor: int = 1
    digits: int = 3


SCORES = {
    "frechet_distance": Shown(digits=4),
    "frechet_distance_infinity": Shown(digits=4),
    "kid": Shown(factor=1000),
    "inception_score": Shown(),
    "precision": Shown(),
    "recall": Shown(),
    "density": Shown(),
    "coverage": Shown(),
    "authenticity": Shown(),
    "copies": Shown(),
    "label_accuracy": Shown(),
}
EFFORT: dict[str, Callable[[Evaluated], float]] = {
    "network evaluations": lambda one: one.made["network_evaluations"],
    "surrogate evaluations": lambda one: one.made["surrogate_evaluations"],
    "seconds per image": lambda one: one.seconds_per_image,
}


def write_csv(path: Path, evaluations: Sequence[Evaluated]) -> None:
    """A row for each evaluation, of all protocols.

    `distance` names the feature network, `class_probabilities` what the inception score is by.
    """
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, CSV_COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        for one in evaluations:
            about: dict[str, Any] = {
                "evaluation": one.name,
                "model": one.model,
                "start": one.start,
                "sampler": one.sampler,
            }
            about |= {key.replace(" ", "_"): effort(one) for key, effort in EFFORT.items()}
            about |= {"distance": one.about["distance"]}
            about |= {"class_probabilities": one.protocol.get("class_probabilities", "")}
            writer.writerow(about | one.scores)


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
    key, (best, *others) = "frechet_distance", group.ranked
    note = quoted(best)
    if interval := best.intervals.get(key):
        near = [quoted(one) for one in others if told_apart(best, one, key) is False]
        note += f", 95 % {number(interval[0], 3)} to {number(interval[1], 3)}"
        note += f", {SHIFT_LEFT_OUT}" if best.beside_shift else ""
        note += f"; not told apart from {joined(near)}" if near else ""
    return Tile(f"{'Lowest' if others else 'The only'} {group.title}", number(best.scores[key], 3), note)


def quoted(one: Evaluated) -> str:
    """The name of an evaluation as code; of a mean as it is."""
    return one.name if one.seeds else f"`{one.name}`"


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
        blocks += [protocol_fold(group), *_warnings(group)]
    meanings = Notes("", [f"{score}: {meaning}" for score, meaning in MEANINGS.items()])
    return [*blocks, Fold("What the scores mean", [meanings])] if blocks else []


def _table(group: Group) -> Table:
    first_of_seeds = {
        one.name: min(map(_order, sampling.sets)) for sampling in group.samplings for one in sampling.sets
    }
    rows = sorted(group.evaluations, key=lambda one: (first_of_seeds.get(one.name, _order(one)), _order(one)))
    for mean in (one for one in group.samplings if one.seeds):  # behind the last of its seeds
        rows.insert(max(map(rows.index, mean.sets)) + 1, mean)
    models = {one.model for one in rows}
    table = {
        Column("evaluation", False): [_named(one, len(models) > 1) for one in rows],
        Column("network evaluations"): _efforts("network evaluations", rows),
    }
    about = group.evaluations[0].about
    for key, (factor, _) in SCORES.items():
        if any(key in one.scores for one in rows):
            best = _best(key, group.samplings)
            title = score_name(key, about) + (f" × {factor:,}" if factor > 1 else "")
            table[Column(title)] = [_score(one, key, one.name in best) for one in rows]
    if any(one.surrogate for one in rows):
        table[Column("surrogate evaluations")] = _efforts("surrogate evaluations", rows)
    table[Column("seconds per image")] = _efforts("seconds per image", rows)
    set_apart = frozenset(i for i, one in enumerate(rows) if one.seeds)
    return Table(list(table), [list(row) for row in zip(*table.values(), strict=True)], _caption(group), set_apart)


def _efforts(key: str, rows: Sequence[Evaluated]) -> list[Cell]:
    return [Cell(number(EFFORT[key](one), 3)) for one in rows]


def _named(one: Evaluated, model: bool) -> Cell:
    made = ", ".join([*([one.model] if model else []), f"from {one.start}", one.sampler])
    if not one.seeds:
        return Cell(quoted(one), made)
    spread = number(one.deviations["frechet_distance"], 2)
    return Cell(quoted(one), f"mean, standard deviation of {one.about['distance']} {spread}; {made}")


def _caption(group: Group) -> str:
    first = group.evaluations[0]
    parts = ["In small print 95 % intervals at this number of images, without its bias"]
    means = [one for one in group.samplings if one.seeds]
    parts[0] += f"; {BESIDE_SHIFT if any(one.beside_shift for one in means) else POOLED}" if means else "."
    parts.append("Marked: the best of a column and all that is not told apart from it, unless that is every row.")
    if "coverage" in first.scores:
        protocol = first.about["protocol"]
        real = protocol["manifold_reference"] or protocol["reference"]["images"]
        ceiling = number(coverage_ceiling(protocol["images"], real, protocol["neighbours"]), 2)
        parts.append(f"With so many images a perfect generator would reach a coverage of {ceiling} on average.")
    if (own := first.scores.get("label_accuracy_reference")) is not None:
        parts.append(f"Label accuracy of the reference images themselves: {number(own, 3)}.")
    if group.distance != FID:
        parts.append(f"{group.distance} is not an FID: compare it within this table only.")
    return " ".join(parts)


def coverage_ceiling(samples: int, reference: int, neighbours: int) -> float:
    """What coverage a generator of the reference's own distribution reaches on average.

    With N samples, M reference images and k neighbours 1 - prod_{i < k} (M - 1 - i) / (M - 1 - i + N): seen from
    a reference image all other images, M - 1 and N, are alike, and it is covered unless the k nearest of them all are
    reference images.
    """
    others = [reference - 1 - i for i in range(neighbours)]
    return 1 - prod(count / (count + samples) for count in others)


def _order(one: Evaluated) -> tuple[Any, ...]:
    """By model, what started the chain, sampler and effort."""
    sampling = one.sampling
    return (
        one.network,
        sampling.get("checkpoint") or math.inf,
        one.surrogate or "",
        sampling.get("t_mid", 0),
        one.sampler,
        one.made["network_evaluations"],
        sampling["seed"],
    )


def _best(key: str, evaluations: Sequence[Evaluated]) -> set[str]:
    """Names of the best and of all that cannot be told apart from it; of none if that is all of them or not known."""
    scored = [one for one in evaluations if key in one.scores]
    if key not in HIGHER_IS_BETTER or not all(key in one.intervals for one in scored):
        return set()
    sign = 1 if HIGHER_IS_BETTER[key] else -1
    best = max(scored, key=lambda one: sign * one.scores[key], default=None)
    near = {one.name for one in scored if best and not told_apart(one, best, key)}
    return near if len(near) < len(scored) else set()


def _score(one: Evaluated, key: str, best: bool) -> Cell:
    if key not in one.scores:
        return Cell("")
    factor, digits = SCORES[key]
    note = ""
    if interval := one.intervals.get(key):
        low, high = (number(factor * end, 3) for end in interval)
        note = f"{low} to {high}"
    return Cell(number(factor * one.scores[key], digits), note, "best" if best else "")


def _warnings(group: Group) -> list[Block]:
    """What the scores warn of, each once with the evaluations it concerns."""
    named: dict[str, list[str]] = {}
    for one in group.evaluations:
        alike = [other for other in group.evaluations if other.about["samples_sha256"] == one.about["samples_sha256"]]
        same = ["the same images from different seeds"] if len({other.sampling["seed"] for other in alike}) > 1 else []
        for warning in [*one.about["warnings"], *same]:
            named.setdefault(warning, []).append(f"`{one.name}`")
    everyone = len(group.evaluations)
    notes = [
        f"{warning} ({'all' if len(names) == everyone > 1 else joined(names)})" for warning, names in named.items()
    ]
    if len(notes) <= NOTES_SHOWN:
        return [Notes("Warnings", notes)] if notes else []
    return [Fold(f"{len(notes)} warnings of these scores", [Notes("Warnings", notes)])]
