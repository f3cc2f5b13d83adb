"""What a pipeline has to register: its finished models and cascades, each with all that was measured of it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from iddpm.errors import UserError
from iddpm.params import Cascade, SurrogateSampling
from iddpm.stages.cascade_model import RECIPE, SURROGATE, Entries, request_defaults, stage_names, write_recipe
from iddpm.stages.context import GROUPS, Stage, fingerprint
from iddpm.stages.lineage import trace
from iddpm.stages.measurements import (
    Measurement,
    best_measured,
    best_sampling,
    but_for_seeds,
    measured_likelihoods,
    measured_reconstructions,
    measured_samples,
    require,
    sample_entry,
    sample_settings,
)
from iddpm.stages.sample import model_folder
from iddpm.stages.single_model import served_defaults
from iddpm.tracking import Package, Result, copy_model, entry_alias
from iddpm.training.checkpoint import Checkpoint, architecture_of, open_checkpoint

MODEL_STAGES = ("train", "import", "mix")


class Gathered(NamedTuple):
    """Results that are complete and up to date; of others, lines that say which stage makes them so, and aliases."""

    results: list[Result]
    problems: list[str]
    unfinished: set[str]


def gather_results(root: Path) -> Gathered:
    """Of every model, import, mixture and cascade of params.yaml; cascades that differ in their seeds are one."""
    pipeline = _Pipeline(root)
    makers: list[tuple[list[str], Callable[[], Result]]] = [
        ([entry_alias("model", name)], partial(pipeline.model, name))
        for kind in MODEL_STAGES
        for name in pipeline.entries(kind)
    ]
    cascades: dict[str, list[str]] = {}
    for name in pipeline.params.cascades:
        alike = but_for_seeds(sample_settings(pipeline.params, name))
        cascades.setdefault(json.dumps(alike, sort_keys=True), []).append(name)
    for names in cascades.values():
        makers.append(([entry_alias("cascade", name) for name in names], partial(pipeline.cascade, names)))
    results, problems, unfinished = list[Result](), list[str](), set[str]()
    for aliases, make in makers:
        try:
            results.append(make())
        except UserError as error:
            problems.append(str(error))
            unfinished.update(aliases)
    return Gathered(results, list(dict.fromkeys(problems)), unfinished)  # a cascade names a missing base model again


class _Pipeline:
    """The outputs under a project's root, as its params.yaml names them."""

    def __init__(self, root: Path) -> None:
        self.root, self.stage = root, Stage("report", "", root)
        self.params = self.stage.params

    def entries(self, kind: str) -> Mapping[str, Any]:
        """Those that stages of this kind run over."""
        group: Mapping[str, Any] = getattr(self.params, GROUPS[kind])
        return group

    def model(self, name: str) -> Result:
        """UserError for a model or measurement that is missing, damaged or outdated."""
        path = f"runs/models/{name}"
        checkpoint = self._trained(name, path)
        samplings = [*self.params.samplings.items(), *self.params.surrogate_samplings.items()]
        samples = [key for key, entry in samplings if entry.model == name and entry.checkpoint is None]
        low_size = (architecture_of(checkpoint.about)["upsampling"] or {}).get("low_size")
        pixels = {"pixels": _pixels(checkpoint), "low_size": low_size}
        evaluated = list(measured_samples(self.root, self.params, samples, _pixels(checkpoint)))
        measurements = [
            *evaluated,
            *measured_likelihoods(self.root, self.params, name, pixels),
            *measured_reconstructions(self.root, self.params, name),
        ]
        defaults = served_defaults(checkpoint, best_sampling(self.params, evaluated))
        package = Package("model", partial(copy_model, checkpoint.path), defaults)
        return self._result([name], package, {"model": (path, checkpoint)}, measurements, {})

    def cascade(self, names: list[str]) -> Result:
        """Of cascades that differ in seeds alone, which are published as the first of them. UserError likewise."""
        entries = self._chain(names[0])
        parts = {}
        for part, entry in zip(stage_names(entries), entries, strict=True):
            model = entry.upsampler if isinstance(entry, Cascade) else entry.model
            path = f"runs/models/{model}"
            parts[part] = path, self._trained(model, path if isinstance(entry, Cascade) else model_folder(entry))
        if isinstance(entries[0], SurrogateSampling):
            surrogate = entries[0].surrogate
            parts[SURROGATE] = f"runs/surrogates/{surrogate}", self._surrogate(surrogate)
        models = {part: checkpoint for part, (_, checkpoint) in parts.items()}
        recipe = json.dumps([entry.model_dump(mode="json") for entry in entries])
        pixels = _pixels(models[stage_names(entries)[-1]])
        measurements = list(measured_samples(self.root, self.params, names, pixels))
        package = Package("cascade", partial(_write_cascade, entries, models), request_defaults(entries))
        return self._result(names, package, parts, measurements, {RECIPE: _sha256(recipe)})

    def _chain(self, name: str) -> Entries:
        """The cascade of that name and what is below it, the sampling of the base model first."""
        entry = sample_entry(self.params, name)
        return [*self._chain(entry.samples), entry] if isinstance(entry, Cascade) else [entry]

    def _trained(self, name: str, folder: str) -> Checkpoint:
        kind = next(kind for kind in MODEL_STAGES if name in self.entries(kind))
        checkpoint = open_checkpoint(require(self.root, folder, f"{kind}@{name}"))
        self.stage.refuse_other_model(name, checkpoint)
        return checkpoint

    def _surrogate(self, name: str) -> Checkpoint:
        checkpoint = open_checkpoint(require(self.root, f"runs/surrogates/{name}", f"surrogate@{name}"))
        self.stage.refuse_other_parameters("surrogates", name, checkpoint)
        return checkpoint

    def _result(
        self,
        names: list[str],
        package: Package,
        parts: dict[str, tuple[str, Checkpoint]],
        measurements: list[Measurement],
        recipe: dict[str, str],
    ) -> Result:
        manifests = {part: fingerprint(checkpoint.path) for part, (_, checkpoint) in parts.items()}
        scores = {f"{one.name}/{score}": value for one in measurements for score, value in one.values.items()}
        settings = {one.name: one.settings for one in measurements if one.settings}
        best, lineage = best_measured(measurements), trace(self.root, parts)
        name, *seeds = names
        return Result(name, package, manifests | recipe, scores, settings, best, lineage, tuple(seeds))


def _write_cascade(entries: Entries, models: Mapping[str, Checkpoint], folder: Path) -> None:
    folder.mkdir()
    for part, checkpoint in models.items():
        copy_model(checkpoint.path, folder / part)
    write_recipe(folder, entries)


def _pixels(checkpoint: Checkpoint) -> int:
    """Of a side of its images."""
    size: int = architecture_of(checkpoint.about)["size"] or checkpoint.about["card"]["size"]
    return size


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
