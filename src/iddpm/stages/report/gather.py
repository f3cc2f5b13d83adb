"""What the report shows, read from the outputs of the other stages."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iddpm.params import Params
from iddpm.stages.context import Stage
from iddpm.stages.evaluated import Evaluated, Json
from iddpm.stages.report.groups import Group, grouped
from iddpm.training.metrics_log import read_csv


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
class GradientNoise:
    """One entry of gradient_noises: its record, and the rows of gradient_noise.csv, one for each snapshot."""

    name: str
    record: Json
    rows: list[dict[str, str]]


@dataclass(frozen=True)
class Results:
    """All of it; dictionaries have the names and the order of params.yaml, `logs` and `times` those of folders."""

    params: Params
    cards: dict[str, Json]
    models: dict[str, Json]
    surrogates: dict[str, Json]
    logs: dict[str, list[dict[str, float]]]
    times: dict[str, Json]
    samples: dict[str, Json]
    groups: list[Group]
    likelihoods: list[Likelihood]
    reconstructions: dict[str, Json]
    gradient_noises: list[GradientNoise]

    @property
    def evaluations(self) -> list[Evaluated]:
        return [evaluated for group in self.groups for evaluated in group.evaluations]

    def records(self) -> Iterator[Json]:
        """What each stage that keeps a record wrote of itself."""
        yield from (time["record"] for time in self.times.values())
        yield from self.samples.values()
        yield from (evaluated.about["record"] for evaluated in self.evaluations)
        yield from (likelihood.protocol["record"] for likelihood in self.likelihoods)
        yield from (fidelity["protocol"]["record"] for fidelity in self.reconstructions.values())
        yield from (one.record for one in self.gradient_noises)


def gather(stage: Stage) -> Results:
    """Read everything; UserError names what is missing."""
    params = stage.params
    trained = [f"runs/models/{name}" for name in params.models]
    trained += [f"runs/surrogates/{name}" for name in params.surrogates]
    models = {
        name: _read(stage, f"runs/models/{name}", "checkpoint.json")
        for name in (*params.models, *params.imports, *params.mixtures)
    }
    return Results(
        params=params,
        cards={name: _read(stage, f"data/shards/{name}", "card.json") for name in params.datasets},
        models=models,
        surrogates={name: _read(stage, f"runs/surrogates/{name}", "checkpoint.json") for name in params.surrogates},
        logs={folder: read_csv(stage.input(f"{folder}/metrics.csv")) for folder in trained},
        times={folder: _read(stage, f"{folder.replace('runs/', 'runs/times/')}.json") for folder in trained},
        samples={
            name: _read(stage, f"runs/samples/{name}/record.json")
            for name in (*params.samplings, *params.surrogate_samplings, *params.cascades)
        },
        groups=grouped([_evaluated(stage, name) for name in params.evaluations], models),
        likelihoods=[_likelihood(stage, name) for name in params.likelihoods],
        reconstructions={
            name: _read(stage, f"runs/reconstructions/{name}", "fidelity.json") for name in params.reconstructions
        },
        gradient_noises=[_gradient_noise(stage, name) for name in params.gradient_noises],
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


def _gradient_noise(stage: Stage, name: str) -> GradientNoise:
    folder = f"runs/gradient-noise/{name}"
    record = _read(stage, f"{folder}/record.json")
    return GradientNoise(name, record, _rows(stage.input(f"{folder}/gradient_noise.csv")))


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))
