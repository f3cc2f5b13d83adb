"""evaluate: samples and a dataset -> scores, and the protocol without which they mean nothing.

The stage writes runs/metrics/NAME.json and the folder runs/evaluations/NAME; `iddpm evaluate` scores any two sets.
"""

import contextlib
import csv
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iddpm.data import ShardFolder
from iddpm.errors import UserError
from iddpm.evaluation import ScoredSet, Scores, nearest_figure, score
from iddpm.evaluation.features import FEATURE_NETWORKS, FeatureNetwork, find_files, open_network
from iddpm.evaluation.frechet import Moments
from iddpm.evaluation.images import ImageSet, NpzImages, ShardImages, Statistics
from iddpm.evaluation.refusals import refuse_sets, refuse_splits
from iddpm.params import Evaluation, ScoreSettings
from iddpm.stages.context import Stage, fingerprint, running, say, software
from iddpm.stages.features import features_of
from iddpm.training.device import device_name, resolve_device

CACHE = "work/features"
PROTOCOL, SCORES, RECORD = "protocol.json", "scores.json", "record.json"


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
        made = samples_record(samples)
        if made is None:
            raise UserError(f"{samples.name}: the {RECORD} beside it is missing or another's; draw the samples again")
        reference = averaged_to(samples, ShardImages(ShardFolder(shards_path), evaluation.split))
        device = resolve_device(stage.params.compute.device)
        network = open_network(evaluation.features, stage.root / FEATURE_NETWORKS, device)
        scores = score_sets(samples, reference, evaluation, network, stage.root / CACHE, device)
        about = {
            "reference": {
                "dataset": evaluation.dataset,
                "split": evaluation.split.value,
                "averaged_to": reference.averaged_to,
                "index_sha256": stage.inputs[f"data/shards/{evaluation.dataset}"],
            },
            "samples": made,
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


def averaged_to(samples: ImageSet, reference: ShardImages) -> ShardImages:
    """A dataset at the samples' size where that divides its own, as for the training of a smaller model; else as is."""
    (size, width, _), large = samples.shape, reference.shape[0]
    if size != width or large % size:
        return reference
    return ShardImages(reference.folder, reference.split, size)


def score_sets(
    samples: ImageSet,
    reference: ImageSet,
    settings: ScoreSettings,
    network: FeatureNetwork,
    cache: Path,
    device: torch.device,
) -> Scores:
    """Features of both sets, from the cache where they are known, and every score of them.

    UserError names the set or setting at fault, before any features are computed but for those of two images. Of
    a reference with statistics of Inception features, as OpenAI's files are, an FID is one to these statistics, and all
    else to the images.
    """
    with _refusals():
        refuse_sets(samples, reference, settings)
    first = network(samples.take([0, 1]))
    dimensions = first.features.shape[1]
    with _refusals():
        refuse_splits(samples, reference, settings, dimensions, first.probabilities is not None)
    statistics = _frechet_reference(reference, network)
    if statistics is not None and len(statistics.mean) != dimensions:
        raise UserError(
            f"{reference.name}: mu and sigma are of {len(statistics.mean)} features; Inception's are {dimensions}"
        )
    sets = [_scored_set(images, network, cache, device) for images in (samples, reference)]
    if statistics is not None:
        mean, covariance = (torch.from_numpy(array).to(device) for array in statistics[:2])
        sets[1] = replace(sets[1], moments=Moments(mean, covariance))
    against = f"{reference.count} of {reference.name}" + (" and its mu and sigma" if statistics else "")
    say(f"{samples.name}: {samples.count} images against {against}, {network.distance}")
    with _refusals():
        scores = score(sets[0], sets[1], settings)
    scores.warnings += [*samples.notes, *reference.notes]
    if statistics is None and reference.has_statistics:
        scores.warnings.append(
            f"{reference.name}: its mu and sigma are of Inception features and not used; {network.distance} is one to "
            f"its {reference.count:,} images"
        )
    return scores


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Of the evaluation, as UserErrors."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from None


def _frechet_reference(reference: ImageSet, network: FeatureNetwork) -> Statistics | None:
    """What the Frechet distance is taken to in place of the reference's images."""
    return reference.statistics if network.distance == "FID" else None


def _scored_set(images: ImageSet, network: FeatureNetwork, cache: Path, device: torch.device) -> ScoredSet:
    features, probabilities = features_of(images, network, cache, device_name(device))
    return ScoredSet(
        torch.from_numpy(features).to(device),
        None if probabilities is None else torch.from_numpy(probabilities).to(device),
        images.labels,
        images,
    )


def evaluate_to_folder(
    root: Path, samples: ImageSet, reference: ImageSet, settings: ScoreSettings, out: Path, device: torch.device
) -> Scores:
    """Score sets from anywhere; scores.json, protocol.json and the nearest neighbours go into a new folder `out`.

    Feature networks and cached features are those of the project at `root`. A dataset of larger images is averaged to
    the samples' size where that is possible.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; name a folder to be made")
    network = open_network(settings.features, root / FEATURE_NETWORKS, device)
    made, notes = _made(samples)
    about: dict[str, Any] = {"reference": {"name": reference.name}, "samples": made}
    if isinstance(reference, ShardImages):
        reference = averaged_to(samples, reference)
        about["reference"]["averaged_to"] = reference.averaged_to
    about["record"] = software(root) | {"device": device_name(device)}
    temporary = _beside(out)  # before hours of work
    try:
        scores = score_sets(samples, reference, settings, network, root / CACHE, device)
        scores.warnings += notes
        write_protocol(temporary, samples, reference, settings, network, scores, about)
        (temporary / SCORES).write_text(json.dumps(scores.values, indent=2) + "\n")
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return scores


def samples_record(samples: NpzImages) -> dict[str, Any] | None:
    """The record that a sampling wrote beside the file; None where none lies there, or one of another file.

    UserError names a damaged record.
    """
    path = samples.path.with_name(RECORD)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, no JSON ({error}); mend it, or move it elsewhere") from None
    if not isinstance(record, dict) or record.get("samples_sha256") != fingerprint(samples.path):
        return None
    if not all(isinstance(record.get(key), dict) for key in ("params", "inputs")):
        raise UserError(f"{path}: damaged, has no params and inputs; mend it, or move it elsewhere")
    return record


def _made(samples: ImageSet) -> tuple[dict[str, Any], list[str]]:
    """How the samples were made, as far as that is known; notes."""
    known, notes = {"name": samples.name, "images": samples.count}, list[str]()
    if isinstance(samples, NpzImages):
        if (record := samples_record(samples)) is not None:
            return record, notes
        if (path := samples.path.with_name(RECORD)).is_file():
            notes.append(f"{path} is not used: it does not hold the sha256 of {samples.path.name}")
    return known, notes


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
