"""evaluate: samples and a dataset -> scores, and the protocol without which they mean nothing.

The stage writes runs/metrics/NAME.json and the folder runs/evaluations/NAME; `iddpm evaluate` scores any two sets.
"""

import csv
import json
import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iddpm.data import Card, ShardFolder
from iddpm.errors import UserError
from iddpm.evaluation import ScoredSet, Scores, nearest_figure, score
from iddpm.evaluation.features import (
    FEATURE_NETWORKS,
    MOST_PIXEL_FEATURES,
    PIXELS,
    FeatureNetwork,
    find_files,
    open_network,
)
from iddpm.evaluation.frechet import Moments
from iddpm.evaluation.images import ImageSet, NpzImages, ShardImages, Statistics
from iddpm.params import Evaluation, ScoreSettings
from iddpm.stages.context import Stage, running, say, software
from iddpm.stages.features import features_of
from iddpm.training.device import device_name, resolve_device

CACHE = "work/features"
PROTOCOL, SCORES = "protocol.json", "scores.json"


def run(stage: Stage) -> None:
    """Score one set of samples against a part of a dataset."""
    evaluation: Evaluation = stage.entry
    samples_path = stage.input(f"runs/samples/{evaluation.samples}")
    shards_path = stage.input(f"data/shards/{evaluation.dataset}")
    find_files(evaluation.features, stage.root / FEATURE_NETWORKS)
    stage.input(f"{FEATURE_NETWORKS}/{evaluation.features}")
    metrics, output = f"runs/metrics/{stage.name}.json", f"runs/evaluations/{stage.name}"
    with running(stage):
        samples = NpzImages(samples_path / "samples.npz")
        shards = ShardFolder(shards_path)
        refuse_other_images(f"evaluations.{stage.name}.samples", samples, shards.card)
        reference = ShardImages(shards, evaluation.split, samples.shape[0])
        device = resolve_device(stage.params.compute.device)
        network = open_network(evaluation.features, stage.root / FEATURE_NETWORKS, device)
        scores = score_sets(samples, reference, evaluation, network, stage.root / CACHE, device)
        about = {
            "reference": {
                "dataset": evaluation.dataset,
                "split": evaluation.split.value,
                "averaged_to": samples.shape[0] if samples.shape[0] != shards.card.size else None,
                "index_sha256": stage.inputs[f"data/shards/{evaluation.dataset}"],
            },
            "samples": json.loads((samples_path / "record.json").read_text()),
            "record": stage.record() | {"device": device_name(device)},
        }
        with stage.output_folder(output) as folder:
            write_protocol(folder, samples, reference, evaluation, network, scores, about)
        with stage.output_file(metrics) as file:
            file.write_text(json.dumps(scores.values, indent=2) + "\n")
        stage.scores = scores.values
        stage.artifacts = [(metrics, ""), (f"{output}/{PROTOCOL}", ""), (f"{output}/nearest.png", "")]
        for warning in scores.warnings:
            say(f"{stage.address}: {warning}")
        say(f"{stage.address}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.values.items()))


def refuse_other_images(key: str, samples: ImageSet, card: Card) -> None:
    """The reference has the samples' size, or a multiple of it, which is averaged as for a smaller model's training."""
    height, width, channels = samples.shape
    if (height, channels) != (width, card.channels) or card.size % width:
        raise UserError(
            f"params.yaml: {key}: images of {height}x{width} pixels and {channels} channels cannot be compared with "
            f"{card.size}x{card.size} and {card.channels} of the dataset"
        )


def score_sets(
    samples: ImageSet,
    reference: ImageSet,
    settings: ScoreSettings,
    network: FeatureNetwork,
    cache: Path,
    device: torch.device,
) -> Scores:
    """Features of both sets, from the cache where they are known, and every score of them; UserError names a setting.

    Both sets have images of one size and number of channels. Of a reference with statistics of Inception features, as
    OpenAI's files are, an FID is one to these statistics, and all else to the images.
    """
    if samples.shape != reference.shape:
        height, width, channels = samples.shape
        theirs = reference.shape
        raise UserError(
            f"{samples.name}: images of {height}x{width} pixels and {channels} channels cannot be compared with "
            f"{theirs[0]}x{theirs[1]} and {theirs[2]} of {reference.name}"
        )
    values = math.prod(samples.shape)
    if settings.features == PIXELS and values > MOST_PIXEL_FEATURES:
        raise UserError(f"{samples.name}: pixels of these images are {values} features; take lite0 or inception")
    statistics = _frechet_reference(reference, network)  # read before hours of work
    sets = [_scored_set(images, network, cache, device) for images in (samples, reference)]
    if statistics is not None:
        sets[1] = replace(sets[1], moments=_moments(statistics, reference.name, sets[1].features))
    against = f"{reference.count} of {reference.name}" + (" and its mu and sigma" if statistics else "")
    say(f"{samples.name}: {samples.count} images against {against}, {network.distance}")
    try:
        scores = score(sets[0], sets[1], settings)
    except ValueError as error:
        raise UserError(f"{samples.name}: {error}") from None
    scores.warnings += [*samples.notes, *reference.notes]
    if statistics is None and reference.statistics is not None:
        scores.warnings.append(
            f"{reference.name}: its mu and sigma are of Inception features and not used; {network.distance} is one to "
            f"its {reference.count:,} images"
        )
    return scores


def _frechet_reference(reference: ImageSet, network: FeatureNetwork) -> Statistics | None:
    """What the Frechet distance is taken to in place of the reference's images."""
    return reference.statistics if network.distance == "FID" else None


def _scored_set(images: ImageSet, network: FeatureNetwork, cache: Path, device: torch.device) -> ScoredSet:
    features, probabilities = features_of(images, network, cache)
    return ScoredSet(
        torch.from_numpy(features).to(device),
        None if probabilities is None else torch.from_numpy(probabilities).to(device),
        images.labels,
        images,
    )


def _moments(statistics: Statistics, name: str, features: Tensor) -> Moments:
    """On the features' device; UserError when they are of another number of features."""
    if len(statistics.mean) != features.shape[1]:
        raise UserError(
            f"{name}: mu and sigma are of {len(statistics.mean)} features; those of Inception are {features.shape[1]}"
        )
    mean, covariance = (torch.from_numpy(array).to(features.device) for array in statistics[:2])
    return Moments(mean, covariance)


def evaluate_to_folder(
    root: Path, samples: ImageSet, reference: ImageSet, settings: ScoreSettings, out: Path, device: torch.device
) -> Scores:
    """Score sets from anywhere; scores.json, protocol.json and the nearest neighbours go into a new folder `out`.

    Feature networks and cached features are those of the project at `root`.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; name a folder to be made")
    network = open_network(settings.features, root / FEATURE_NETWORKS, device)
    about = {"reference": {"name": reference.name}, "samples": _made(samples)}
    about["record"] = software(root) | {"device": device_name(device)}
    temporary = _beside(out)  # before hours of work
    try:
        scores = score_sets(samples, reference, settings, network, root / CACHE, device)
        write_protocol(temporary, samples, reference, settings, network, scores, about)
        (temporary / SCORES).write_text(json.dumps(scores.values, indent=2) + "\n")
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return scores


def _made(samples: ImageSet) -> dict[str, Any]:
    """How the samples were made, where a record lies beside them."""
    record = samples.path.with_name("record.json") if isinstance(samples, NpzImages) else None
    if record is not None and record.is_file():
        made: dict[str, Any] = json.loads(record.read_text())
        return made
    return {"name": samples.name, "images": samples.count}


def _beside(out: Path) -> Path:
    """A temporary folder that can take the name of `out`."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out}: cannot be made ({error.strerror})") from None


def shown_scores(scores: Scores) -> str:
    """A line for each score with its 95 % interval at this number of images, then the warnings."""
    width = max(map(len, scores.values))
    lines = []
    for name, value in scores.values.items():
        low, high = scores.intervals.get(name, (None, None))
        lines.append(f"{name:{width}}  {value:.6g}" + ("" if low is None else f"  [{low:.6g}, {high:.6g}]"))
    return "\n".join(lines + [f"note: {warning}" for warning in scores.warnings])


def write_protocol(
    folder: Path,
    samples: ImageSet,
    reference: ImageSet,
    settings: ScoreSettings,
    network: FeatureNetwork,
    scores: Scores,
    about: dict[str, Any],
) -> None:
    """protocol.json, and the nearest reference images as a picture and a table."""
    fixed = settings.model_dump(mode="json", include=set(ScoreSettings.model_fields) - {"features", "bootstrap"})
    statistics = _frechet_reference(reference, network)
    protocol = {
        "features": network.identity,
        "images": samples.count,
        "reference": {"images": reference.count, "sha256": reference.sha256},
        **({} if statistics is None else {"frechet_reference": {"sha256": statistics.sha256}}),
        **fixed,
        **scores.about,
    }
    content = {
        "distance": network.distance,
        "protocol": protocol,
        "samples_sha256": samples.sha256,
        "intervals": scores.intervals,
        "bootstrap": settings.bootstrap,
        "warnings": scores.warnings,
        **about,
    }
    (folder / PROTOCOL).write_text(json.dumps(content, indent=2) + "\n")
    nearest_figure(samples, reference, scores.nearest, folder / "nearest.png")
    with open(folder / "nearest.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sample", "nearest_reference", "distance", "ratio"])
        nearest = scores.nearest
        rows = zip(nearest.indices[:, 0], nearest.distances[:, 0], nearest.ratio, strict=True)
        for number, (index, distance, ratio) in enumerate(rows):
            writer.writerow([number, int(index), f"{float(distance):.6g}", f"{float(ratio):.6g}"])
