"""What the report shows, read from the outputs of the other stages."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from iddpm.params import FREE_AMONG_SEEDS, Params
from iddpm.stages.context import Stage, flatten
from iddpm.training.metrics_log import read_csv

Json = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """One evaluation, or the mean over the sampling seeds of several: its intervals are one standard deviation then."""

    name: str
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    about: Json
    members: tuple[str, ...] = ()

    @property
    def made(self) -> Json:
        """The record of the samples."""
        made: Json = self.about["samples"]
        return made

    @property
    def sampling(self) -> Json:
        """The parameters of the samples."""
        sampling: Json = self.made["params"]
        return sampling

    @property
    def surrogate(self) -> str | None:
        return self.sampling.get("surrogate")

    @property
    def start(self) -> str:
        return f"{self.surrogate}, t_mid {self.sampling['t_mid']}" if self.surrogate else "noise"

    @property
    def sampler(self) -> str:
        eta = f", eta {self.sampling['eta']:g}" if self.sampling["sampler"] == "ddim" else ""
        return f"{self.sampling['sampler']}{eta}"

    @property
    def seconds_per_image(self) -> float:
        return float(self.made["sampling_seconds"] / self.made["images"])


@dataclass(frozen=True)
class Group:
    """Evaluations of one protocol: only they may stand in one table, figure or ranking."""

    title: str
    distance: str
    evaluations: list[Evaluated]
    over_seeds: list[Evaluated]

    @property
    def independent(self) -> list[Evaluated]:
        """Every sampling once: the mean in the place of its seeds."""
        merged = {name for mean in self.over_seeds for name in mean.members}
        return [*(one for one in self.evaluations if one.name not in merged), *self.over_seeds]

    @property
    def ranked(self) -> list[Evaluated]:
        """The evaluations by their distance, the smallest first."""
        return sorted(self.evaluations, key=lambda one: one.values["frechet_distance"])


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

    @property
    def evaluations(self) -> list[Evaluated]:
        return [evaluated for group in self.groups for evaluated in group.evaluations]

    def records(self) -> Iterator[Json]:
        """What each stage that keeps a record wrote of itself."""
        yield from self.samples.values()
        yield from (evaluated.about["record"] for evaluated in self.evaluations)
        yield from (likelihood.protocol["record"] for likelihood in self.likelihoods)


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
            for name in (*params.samplings, *params.surrogate_samplings)
        },
        groups=grouped([_evaluated(stage, name) for name in params.evaluations]),
        likelihoods=[_likelihood(stage, name) for name in params.likelihoods],
    )


def _read(stage: Stage, path: str, file: str = "") -> Json:
    content: Json = json.loads((stage.input(path) / file).read_text())
    return content


def _evaluated(stage: Stage, name: str) -> Evaluated:
    about = _read(stage, f"runs/evaluations/{name}/protocol.json")
    intervals = {key: (low, high) for key, (low, high) in about["intervals"].items()}
    return Evaluated(name, _read(stage, f"runs/metrics/{name}.json"), intervals, about)


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
    return [
        Group(title, group[0].about["distance"], group, _over_seeds(group))
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


def _over_seeds(group: Sequence[Evaluated]) -> list[Evaluated]:
    """Mean and standard deviation of evaluations whose samples differ in the seed alone."""
    sets: dict[str, dict[int, Evaluated]] = {}
    for evaluated in group:
        kept = {key: value for key, value in evaluated.sampling.items() if key not in FREE_AMONG_SEEDS}
        same = sets.setdefault(json.dumps(kept, sort_keys=True), {})
        same.setdefault(evaluated.sampling["seed"], evaluated)
    return [_mean(list(seeds.values())) for seeds in sets.values() if len(seeds) > 1]


def _mean(seeds: Sequence[Evaluated]) -> Evaluated:
    values, intervals = {}, {}
    for name in seeds[0].values:
        ours = [evaluated.values[name] for evaluated in seeds if name in evaluated.values]
        if len(ours) == len(seeds):
            values[name] = fmean(ours)
            intervals[name] = (values[name] - stdev(ours), values[name] + stdev(ours))
    first = replace(seeds[0], values=values, intervals=intervals, members=tuple(seed.name for seed in seeds))
    made = first.made | {
        "sampling_seconds": sum(seed.made["sampling_seconds"] for seed in seeds),
        "images": sum(seed.made["images"] for seed in seeds),
    }
    return replace(first, name=f"{seeds[0].name}, {len(seeds)} seeds", about=first.about | {"samples": made})
