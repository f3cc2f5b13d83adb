"""What the report shows, read from the outputs of the other stages."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iddpm.params import Params
from iddpm.stages.context import Stage, flatten
from iddpm.stages.evaluated import Evaluated, Json, mean_over_seeds
from iddpm.training.metrics_log import read_csv


@dataclass(frozen=True)
class Group:
    """Evaluations of one protocol: only they may stand in one table, figure or ranking.

    `samplings` has every sampling once: its only evaluation, or the mean over its seeds.
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
        return [one for sampling in self.ranked for one in sampling.seeds or (sampling,)]


@dataclass(frozen=True)
class Likelihood:
    """One entry of likelihoods: bits_per_dim.json, and its rows over checkpoints if they were asked for."""

    name: str
    model: str
    dataset: str
    values: Json
    checkpoints: list[dict[str, str]]

    @property
    def protocol(self) -> Json:
        protocol: Json = self.values["protocol"]
        return protocol

    @property
    def shown_split(self) -> str:
        """Whose images' bits/dim stand for the model."""
        split: str = self.protocol["split"]
        return "test" if split == "both" else split

    @property
    def terms(self) -> str:
        strided, every = self.protocol["evaluated_timesteps"], self.protocol["timesteps"]
        return "all T" if self.protocol["steps"] is None else f"{strided:,} of {every:,}"


@dataclass(frozen=True)
class Results:
    """All of it; dictionaries have the names and the order of params.yaml."""

    params: Params
    cards: dict[str, Json]
    models: dict[str, Json]
    surrogates: dict[str, Json]
    logs: dict[str, list[dict[str, float]]]
    samples: dict[str, Json]
    groups: list[Group]
    likelihoods: list[Likelihood]
    reconstructions: dict[str, Json]

    @property
    def evaluations(self) -> list[Evaluated]:
        return [evaluated for group in self.groups for evaluated in group.evaluations]

    def records(self) -> Iterator[Json]:
        """What each stage that keeps a record wrote of itself."""
        yield from self.samples.values()
        yield from (evaluated.about["record"] for evaluated in self.evaluations)
        yield from (likelihood.protocol["record"] for likelihood in self.likelihoods)
        yield from (fidelity["protocol"]["record"] for fidelity in self.reconstructions.values())


def gather(stage: Stage) -> Results:
    """Read everything; UserError names what is missing."""
    params = stage.params
    trained = [f"runs/models/{name}" for name in params.models]
    trained += [f"runs/surrogates/{name}" for name in params.surrogates]
    return Results(
        params=params,
        cards={name: _read(stage, f"data/shards/{name}", "card.json") for name in params.datasets},
        models={
            name: _read(stage, f"runs/models/{name}", "checkpoint.json")
            for name in (*params.models, *params.imports, *params.mixtures)
        },
        surrogates={name: _read(stage, f"runs/surrogates/{name}", "checkpoint.json") for name in params.surrogates},
        logs={folder: read_csv(stage.input(f"{folder}/metrics.csv")) for folder in trained},
        samples={
            name: _read(stage, f"runs/samples/{name}/record.json")
            for name in (*params.samplings, *params.surrogate_samplings, *params.cascades)
        },
        groups=grouped([_evaluated(stage, name) for name in params.evaluations]),
        likelihoods=[_likelihood(stage, name) for name in params.likelihoods],
        reconstructions={
            name: _read(stage, f"runs/reconstructions/{name}", "fidelity.json") for name in params.reconstructions
        },
    )


def _read(stage: Stage, path: str, file: str = "") -> Json:
    content: Json = json.loads((stage.input(path) / file).read_text())
    return content


def _evaluated(stage: Stage, name: str) -> Evaluated:
    about = _read(stage, f"runs/evaluations/{name}/protocol.json")
    return Evaluated(name, _read(stage, f"runs/metrics/{name}.json"), about)


def _likelihood(stage: Stage, name: str) -> Likelihood:
    entry, folder = stage.params.likelihoods[name], f"runs/likelihoods/{name}"
    values = _read(stage, f"{folder}/bits_per_dim.json")
    checkpoints = stage.root / folder / "checkpoints.csv"
    rows = _rows(stage.input(f"{folder}/checkpoints.csv")) if checkpoints.exists() else []
    return Likelihood(name, entry.model, entry.dataset, values, rows)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def grouped(evaluations: Sequence[Evaluated]) -> list[Group]:
    """Evaluations by what they must share to be compared, in the order of their first."""
    by_protocol: dict[str, list[Evaluated]] = {}
    for evaluated in evaluations:
        key = json.dumps([evaluated.about["distance"], evaluated.about["protocol"]], sort_keys=True)
        by_protocol.setdefault(key, []).append(evaluated)
    titles = _titles([group[0].about for group in by_protocol.values()])
    return [Group(title, group, _samplings(group)) for title, group in zip(titles, by_protocol.values(), strict=True)]


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


def _samplings(group: Sequence[Evaluated]) -> list[Evaluated]:
    """Evaluations whose samples differ in the seed alone are one; so are several of the same samples.

    Seeds that gave the same images are no draws of chance: they stay apart.
    """
    seeds: dict[str, dict[int, Evaluated]] = {}
    for evaluated in group:
        same = seeds.setdefault(json.dumps(evaluated.all_but_seed, sort_keys=True), {})
        same.setdefault(evaluated.sampling["seed"], evaluated)
    samplings: list[Evaluated] = []
    for members in ([*same.values()] for same in seeds.values()):
        distinct = {one.about["samples_sha256"] for one in members}
        samplings += [mean_over_seeds(members)] if 1 < len(members) == len(distinct) else members
    return samplings
