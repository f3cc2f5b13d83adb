"""gradient-noise: a training's snapshots and its shards -> runs/gradient-noise/NAME, its gradient noise over time.

McCandlish et al. 2018, appendix A; paper, section 3.3. The report draws all entries into one figure.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from iddpm.data import ShardFolder
from iddpm.errors import UserError
from iddpm.evaluation.figures import noise_scale_figure
from iddpm.params import GradientNoise
from iddpm.stages.batches import Arrays, KeptBatches
from iddpm.stages.context import Stage, running, say
from iddpm.stages.progress import Progress, track
from iddpm.training.checkpoint import Checkpoint, open_checkpoint
from iddpm.training.loop import DiffusionTraining

GROUPS = 5


class NoiseScale(NamedTuple):
    """B_simple = tr(covariance of a sample's gradient) / |mean gradient|^2, in images, and its parts."""

    noise_scale: float
    standard_error: float
    gradient_variance: float
    squared_gradient: float


def run(stage: Stage) -> None:
    """Measure the noise scale at every snapshot, under the training's own objective and timestep sampler."""
    entry: GradientNoise = stage.entry
    paths = [stage.input(path) for path in _snapshots(stage)]
    shards = stage.input(f"data/shards/{entry.dataset}")
    with running(stage):
        checkpoints = [_open(stage, path, shards) for path in paths]
        training, kept = _training(stage, shards), KeptBatches(stage.work)
        first = len(kept) * entry.batches
        if len(kept) < len(paths):
            say(f"{stage.address}: reading the images of {entry.batches} batches, for all snapshots at once")
            size = training.training.batch_size
            located = training.stream.locate([step * size for step in _steps(training, entry.batches)], size)
            for _ in track(training.stream.keep(located), stage.address, len(located), "shards"):
                pass
        progress = Progress(stage.address, len(paths) * entry.batches, "batches", first=first)
        scales: dict[int, NoiseScale] = {}
        for number, checkpoint in enumerate(checkpoints):
            measure = partial(_measure, training, checkpoint, entry.batches, progress, number * entry.batches)
            values = {name: float(value) for name, value in kept.get(number, measure).items()}
            scales[checkpoint.about["step"]] = NoiseScale(**values)
        progress.close()
        _write(stage, training, scales)
        kept.clear()


def _snapshots(stage: Stage) -> list[str]:
    """All that the training kept, in order."""
    training = stage.params.models[stage.entry.model].training
    assert training.snapshot_every is not None  # iddpm.checks
    steps = range(training.snapshot_every, training.steps + 1, training.snapshot_every)
    return [f"runs/models/{stage.entry.model}/snapshots/step-{step:09d}" for step in steps]


def _open(stage: Stage, path: Path, shards: Path) -> Checkpoint:
    checkpoint = open_checkpoint(path)
    stage.refuse_other_parameters("models", stage.entry.model, checkpoint)
    if ShardFolder(shards).index_sha256 != checkpoint.about["index_sha256"]:
        raise UserError(
            f"data/shards/{stage.entry.dataset}: not the images that runs/models/{stage.entry.model} was trained on; "
            f"`dvc repro {stage.address}` trains it again"
        )
    return checkpoint


def _training(stage: Stage, shards: Path) -> DiffusionTraining:
    """In this process, with as many images in memory at once as a worker of the training has."""
    model, workers = stage.params.models[stage.entry.model], max(1, stage.params.compute.workers)
    parts = {"microbatches": model.training.microbatches * workers}
    model = model.model_copy(update={"training": model.training.model_copy(update=parts)})
    return DiffusionTraining(model, shards, stage.params.compute.device)


def _measure(
    training: DiffusionTraining, checkpoint: Checkpoint, batches: int, progress: Progress, done: int
) -> Arrays:
    """The training taken back to the snapshot, its timestep sampler included; `done` batches lie before it."""
    training.load(checkpoint.weights, checkpoint.state())
    for count, result in enumerate(gradient_noise_scale(training, batches), 1):
        if result is not None:
            return {name: np.array(value) for name, value in result._asdict().items()}
        progress.to(done + count)
    raise AssertionError("the last is the result")


def _write(stage: Stage, training: DiffusionTraining, scales: Mapping[int, NoiseScale]) -> None:
    output = f"runs/gradient-noise/{stage.name}"
    with stage.output_folder(output) as folder:
        with open(folder / "gradient_noise.csv", "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("step", *NoiseScale._fields))
            writer.writerows((step, *scale) for step, scale in scales.items())
        points = [(step, scale.noise_scale, scale.standard_error) for step, scale in scales.items()]
        noise_scale_figure({stage.name: points}, folder / "gradient_noise")
        chosen = training.training
        about = {
            "objective": chosen.objective.value,
            "timestep_sampling": chosen.timestep_sampling.value,
            "batch_size": chosen.batch_size,
            "device": training.device.type,
        }
        (folder / "record.json").write_text(json.dumps(stage.record() | about, indent=2) + "\n")
    last, scale = max(scales.items())
    stage.scores = {name: value for name, value in scale._asdict().items() if np.isfinite(value)}
    stage.artifacts = [(f"{output}/{name}", "") for name in ("gradient_noise.csv", "gradient_noise.png", "record.json")]
    say(f"{stage.address}: {scale.noise_scale:.4g} images at step {last}, standard error {scale.standard_error:.2g}")


def gradient_noise_scale(training: DiffusionTraining, batches: int) -> Iterator[NoiseScale | None]:
    """Estimate the noise scale at the current weights from `batches` (at least 2 x 5) gradients of whole batches.

    Yields None after every batch, for progress, and the result at the end. Every batch is of an epoch of its own, after
    the training's last: batches of one epoch share no image, which would hide a part of |G|^2 as large as tr / images.
    Both parts are unbiased: within each of five groups of n gradients g_i of batches of B images,
    tr = B * sum |g_i - mean|^2 / (n - 1) and |G|^2 = |mean|^2 - tr / (n B). tr is that of the batches that training
    sees, without an image twice: of the variance between images it holds the share 1 - B / images. The standard error
    of their ratio is a jackknife over the groups. A gradient that drowns in noise gives a scale that is infinite.
    """
    per_group = batches // GROUPS
    if per_group < 2:
        raise ValueError(f"{batches} batches are too few; take at least {2 * GROUPS}")
    steps, size = _steps(training, batches), training.training.batch_size
    parts = np.zeros((GROUPS, 2))
    for group in range(GROUPS):
        total, squares = torch.zeros(1, device=training.device), 0.0
        for step in steps[group * per_group : (group + 1) * per_group]:
            training.accumulate_gradient(step)
            gradient = torch.cat([p.grad.flatten() for p in training.network.parameters() if p.grad is not None])
            total, squares = total + gradient, squares + float(gradient.double().square().sum())
            yield None
        mean_square = float((total / per_group).double().square().sum())
        batch_variance = (squares - per_group * mean_square) / (per_group - 1)
        parts[group] = batch_variance * size, mean_square - batch_variance / per_group
    yield _ratio(parts)


def _steps(training: DiffusionTraining, batches: int) -> list[int]:
    """After the training's last, so far apart that no two batches reach into one epoch."""
    apart = training.stream.epoch_size // training.training.batch_size + 2
    return [training.training.steps + number * apart for number in range(batches)]


def _ratio(parts: np.ndarray) -> NoiseScale:
    """The ratio of the group means of (variance, squared gradient) [groups, 2], with its jackknife error."""

    def scale(rows: np.ndarray) -> float:
        variance, squared = rows.mean(0)
        return float(variance / squared) if squared > 0 else float("inf")

    without = np.array([scale(np.delete(parts, group, axis=0)) for group in range(len(parts))])
    finite = np.isfinite(without).all()
    spread = np.sqrt((len(parts) - 1) * without.var()) if finite else np.inf
    return NoiseScale(scale(parts), float(spread), *parts.mean(0).tolist())
