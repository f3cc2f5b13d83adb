"""What was measured of finished models and cascades, refused where it is missing or older than what it measures."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from iddpm.errors import UserError
from iddpm.params import FREE_AMONG_SEEDS, Cascade, Params, Sampling, Section
from iddpm.stages.compare import read_evaluation
from iddpm.stages.context import fingerprint, flatten
from iddpm.stages.evaluated import Evaluated
from iddpm.tracking import HIGHER_IS_BETTER, Measured, Score

Json = dict[str, Any]


class Measurement(NamedTuple):
    """An entry of params.yaml that measured a model: all its values, and the title of each that can be the best.

    Those of one protocol and `made` differ in their seed alone, and those of one `seed` as well are the same. None in
    `made`: the images are not the model's own work alone. `settings` are those of the entry that drew the images, all
    stages of a cascade; empty where none were drawn.
    """

    name: str
    values: Mapping[str, float]
    titles: Mapping[str, str]
    protocol: Json
    made: Json | None
    seed: str
    settings: Json


def sample_entry(params: Params, samples: str) -> Sampling | Cascade:
    """The entry that runs/samples/SAMPLES is made by."""
    return params.samplings.get(samples) or params.surrogate_samplings.get(samples) or params.cascades[samples]


def sample_settings(params: Params, samples: str) -> Json:
    """How the samples are made, all stages of a cascade."""
    entry = sample_entry(params, samples)
    own = entry.model_dump(mode="json")
    return own | {"samples": sample_settings(params, entry.samples)} if isinstance(entry, Cascade) else own


def but_for_seeds(settings: Json) -> Json:
    """Settings without seeds and what does not change images."""
    kept = {key: value for key, value in settings.items() if key not in FREE_AMONG_SEEDS}
    return {key: but_for_seeds(value) if isinstance(value, dict) else value for key, value in kept.items()}


def require(root: Path, path: str, address: str) -> Path:
    """That output of a stage; UserError when the stage has not run."""
    if not (root / path).exists():
        raise UserError(f"{path}: missing; `dvc repro {address}` makes it")
    return root / path


def current_evaluation(root: Path, params: Params, name: str) -> Evaluated:
    """The evaluation of that name; UserError when it has not run, or not of what lies there now."""
    evaluation = params.evaluations[name]
    require(root, f"runs/metrics/{name}.json", f"evaluate@{name}")
    evaluated = read_evaluation(root, name)
    _refuse_outdated(root, evaluated.about["record"], evaluation)
    _refuse_outdated_samples(root, params, evaluated.about["samples"], evaluation.samples)
    return evaluated


def measured_samples(root: Path, params: Params, samples: Sequence[str], pixels: int) -> Iterator[Measurement]:
    """Every evaluation of these entries of samplings or cascades, of images of so many pixels a side."""
    for name, evaluation in params.evaluations.items():
        if evaluation.samples not in samples:
            continue
        evaluated = current_evaluation(root, params, name)
        about: Json = {"dataset": evaluation.dataset, "split": evaluation.split.value, "pixels": pixels}
        distance = evaluated.about["distance"].lower()
        titles = {score: f"{score}-{evaluation.features}" for score in evaluated.scores if score in HIGHER_IS_BETTER}
        titles |= {"frechet_distance": distance}
        if "frechet_distance_infinity" in titles:
            titles["frechet_distance_infinity"] = f"{distance}-infinity"
        alone = evaluation.samples not in params.surrogate_samplings
        settings = sample_settings(params, evaluation.samples)
        how = but_for_seeds(settings) if alone else None
        seed = evaluated.about["samples_sha256"]
        yield Measurement(name, evaluated.scores, titles, about | evaluated.protocol, how, seed, settings)


def measured_likelihoods(root: Path, params: Params, model: str, about: Json) -> Iterator[Measurement]:
    """Every likelihood of the finished model; `about` is what bits/dim depend on besides the images and the chain."""
    for name, entry in params.likelihoods.items():
        if entry.model != model:
            continue
        path = require(root, f"runs/likelihoods/{name}/bits_per_dim.json", f"likelihood@{name}")
        values, measured_by = _read(root, path, entry)
        shown = {
            "dataset": entry.dataset,
            "split": "test" if measured_by["split"] == "both" else measured_by["split"],
            "steps": measured_by["steps"] or "all",
            **about,
            **{key: measured_by[key] for key in ("images", "clip", "noise_draws", "weights")},
            "shards_sha256": measured_by["record"]["inputs"][f"data/shards/{entry.dataset}"],
        }
        yield Measurement(name, values, {"bits_per_dim": "bits_per_dim"}, shown, {}, str(entry.seed), {})


def measured_reconstructions(root: Path, params: Params, upsampler: str) -> Iterator[Measurement]:
    """Every reconstruction by that model."""
    for name, entry in params.reconstructions.items():
        if entry.upsampler != upsampler:
            continue
        path = require(root, f"runs/reconstructions/{name}/fidelity.json", f"reconstruct@{name}")
        values, measured_by = _read(root, path, entry)
        alike = ("dataset", "split", "size", "low_size", "images", "low_resolution", "psnr_over", "ssim_window")
        shown = {key: measured_by[key] for key in alike}
        shown["shards_sha256"] = measured_by["record"]["inputs"][f"data/shards/{entry.dataset}"]
        settings = entry.model_dump(mode="json")
        titles = {score: score for score in ("psnr", "ssim")}
        yield Measurement(name, values, titles, shown, but_for_seeds(settings), str(entry.seed), settings)


def best_measured(measurements: Sequence[Measurement]) -> list[Measured]:
    """For each protocol the best of each score, sampling seeds of one thing as their mean."""
    protocols: dict[str, Json] = {}
    groups: dict[str, dict[str, dict[str, Measurement]]] = {}
    for one in measurements:
        if one.made is not None:
            alike = json.dumps(one.protocol, sort_keys=True)
            protocols[alike] = one.protocol
            seeds = groups.setdefault(alike, {}).setdefault(json.dumps(one.made, sort_keys=True), {})
            seeds.setdefault(one.seed, one)
    found = []
    for alike, by_made in groups.items():
        scores: dict[str, Score] = {}
        for seeds in by_made.values():
            for title, score in _means(list(seeds.values())):
                if title not in scores or _better(score, scores[title]):
                    scores[title] = score
        found.append(Measured(protocols[alike], scores))
    return found


def best_sampling(params: Params, evaluated: Sequence[Measurement]) -> Sampling | None:
    """The sampling of a model that has the best Frechet distance, of several protocols by the first.

    Where no distance is to be had, the next score of HIGHER_IS_BETTER decides; of several seeds the first counts.
    """
    scores = [score for one in best_measured(evaluated) for score in one.scores.values()]
    if not scores:
        return None
    first = min(scores, key=lambda score: list(HIGHER_IS_BETTER).index(score.score))
    return params.samplings[params.evaluations[first.of[0]].samples]


def _means(seeds: Sequence[Measurement]) -> Iterator[tuple[str, Score]]:
    for score, title in seeds[0].titles.items():
        values = [one.values[score] for one in seeds if score in one.values]
        if len(values) == len(seeds) and all(map(math.isfinite, values)):
            yield title, Score(score, fmean(values), tuple(one.name for one in seeds))


def _better(one: Score, other: Score) -> bool:
    return one.value > other.value if HIGHER_IS_BETTER[one.score] else one.value < other.value


def _read(root: Path, path: Path, entry: Section) -> tuple[dict[str, float], Json]:
    """The values that there are, and their protocol."""
    content: Json = json.loads(path.read_text())
    protocol = content.pop("protocol")
    _refuse_outdated(root, protocol["record"], entry)
    return {score: value for score, value in content.items() if value is not None}, protocol


def _refuse_outdated_samples(root: Path, params: Params, record: Json, samples: str) -> None:
    """UserError likewise for the samples, in a cascade of all its stages."""
    entry = sample_entry(params, samples)
    _refuse_outdated(root, record, entry)
    if isinstance(entry, Cascade):
        _refuse_outdated_samples(root, params, record["base"], entry.samples)


def _refuse_outdated(root: Path, record: Json, entry: Section) -> None:
    """UserError when a result was made of other outputs than lie there now, or by other parameters."""
    address = record["stage"]
    ours, theirs = flatten(entry.model_dump(mode="json")), flatten(record["params"])
    for key in ours | theirs:
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"{address}: outdated: made with {key} {theirs.get(key)}, which is {ours.get(key)} in params.yaml; "
                f"`dvc repro {address}` makes it again"
            )
    for path, sha256 in record["inputs"].items():
        if path.startswith("runs/") and fingerprint(root / path) != sha256:
            raise UserError(f"{address}: outdated: {path} has changed since; `dvc repro {address}` makes it again")
