"""Evaluations that may be compared, and in them what differs in seeds alone."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iddpm.stages.context import flatten
from iddpm.stages.evaluated import (
    Evaluated,
    Json,
    all_but_seeds,
    common_name,
    sampling_seeds,
    training_seeds,
    trainings,
)
from iddpm.stages.seeds import means_over_seeds


@dataclass(frozen=True)
class Group:
    """Evaluations of one protocol: only they may stand in one table, figure or ranking.

    `samplings` has every sampling once: its only evaluation, or the mean over its seeds and those of its training.
    """

    title: str
    evaluations: list[Evaluated]
    samplings: list[Evaluated]

    @property
    def distance(self) -> str:
        distance: str = self.evaluations[0].about["distance"]
        return distance

    @property
    def ranked(self) -> list[Evaluated]:
        """The samplings by their distance, the smallest first."""
        return sorted(self.samplings, key=lambda one: one.scores["frechet_distance"])

    @property
    def ranked_sets(self) -> list[Evaluated]:
        """Likewise with each seed for itself, as pictures are."""
        return [one for sampling in self.ranked for one in sampling.sets]


def grouped(evaluations: Sequence[Evaluated], models: Mapping[str, Json]) -> list[Group]:
    """Evaluations by what they must share to be compared, in the order of their first.

    `models` has the checkpoint.json of each model by its key.
    """
    by_protocol: dict[str, list[Evaluated]] = {}
    for evaluated in evaluations:
        key = json.dumps([evaluated.about["distance"], evaluated.about["protocol"]], sort_keys=True)
        by_protocol.setdefault(key, []).append(evaluated)
    titles = _titles([group[0].about for group in by_protocol.values()])
    return [
        Group(title, group, _samplings(group, models))
        for title, group in zip(titles, by_protocol.values(), strict=True)
    ]


def _titles(abouts: Sequence[Json]) -> list[str]:
    """Of each group; where two would read the same, with the settings that differ."""
    plain = []
    for about in abouts:
        protocol, reference = about["protocol"], about["reference"]
        size = f" at {reference['averaged_to']} pixels" if reference.get("averaged_to") else ""
        plain.append(
            f"{about['distance']}, {protocol['images']:,} images against the {protocol['reference']['images']:,} "
            f"{reference['split']} images of {reference['dataset']}{size}"
        )
    flat = [flatten(about["protocol"]) for about in abouts]
    titles = []
    for title, protocol in zip(plain, flat, strict=True):
        others = [other for same, other in zip(plain, flat, strict=True) if same == title]
        differing = [key for key in protocol if any(other.get(key) != protocol[key] for other in others)]
        titles.append(", ".join([title, *(f"{key} {_short(protocol[key])}" for key in differing)]))
    return titles


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def _samplings(group: Sequence[Evaluated], models: Mapping[str, Json]) -> list[Evaluated]:
    """Evaluations that differ in the seeds of sampling and training alone are one; so are several of the same samples.

    Seeds that gave the same images are no draws of chance: they stay apart.
    """
    seeds: dict[str, dict[str, Evaluated]] = {}
    for evaluated in group:
        made = evaluated.made
        same = seeds.setdefault(json.dumps(all_but_seeds(made, models), sort_keys=True), {})
        same.setdefault(json.dumps([trainings(made), sampling_seeds(made)]), evaluated)
    rows: list[list[Evaluated]] = []
    for same in seeds.values():
        members = list(same.values())
        distinct = len({one.about["samples_sha256"] for one in members}) == len(members)
        rows += [members] if distinct else [[one] for one in members]
    names = [common_name([one.name for one in members]) for members in rows]
    shared = Counter(name for name, members in zip(names, rows, strict=True) if len(members) > 1)
    named = [members[0].name if shared[name] > 1 else name for name, members in zip(names, rows, strict=True)]
    return means_over_seeds(list(zip(named, rows, strict=True)), lambda one: training_seeds(one.made, models))
