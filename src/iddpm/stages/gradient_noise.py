"""The gradient noise scale of models in training (McCandlish et al. 2018, appendix A; paper, section 3.3)."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from iddpm.checks import load_params
from iddpm.data import ShardFolder
from iddpm.errors import UserError
from iddpm.evaluation.figures import lines_with_errors
from iddpm.params import Device, Model, Params
from iddpm.stages.progress import Progress
from iddpm.training.checkpoint import Checkpoint, open_checkpoint
from iddpm.training.loop import DiffusionTraining

GROUPS = 5


class NoiseScale(NamedTuple):
    """B_simple = tr(covariance of a sample's gradient) / |mean gradient|^2, in images, and its parts."""

    noise_scale: float
    standard_error: float
    gradient_variance: float
    squared_gradient: float


COLUMNS = ("model", "objective", "timestep_sampling", "step", *NoiseScale._fields)


def compare_gradient_noise(root: Path, names: Sequence[str], batches: int, out: Path) -> None:
    """The paper's comparison (its figure of L_vlb, L_hybrid and resampled L_vlb) for trained models.

    Measures the models of runs/models at their snapshots, each under its own objective and timestep sampler, and
    writes gradient_noise.csv, .png and .svg into `out`. UserError names a model that is unknown or has no snapshots.
    """
    if batches < 2 * GROUPS:
        raise UserError(f"--batches {batches}: take at least {2 * GROUPS}")
    params = load_params(root / "params.yaml")
    device = params.compute.device
    snapshots = {name: _snapshots(root, name, params) for name in names}  # of all, before the first is measured
    rows = []
    for name, checkpoints in snapshots.items():
        for checkpoint in checkpoints:
            training = _training(root, name, checkpoint, device)
            progress = Progress(f"{name} step {checkpoint.about['step']}", batches, "batches")
            for done, result in enumerate(gradient_noise_scale(training, batches), 1):
                if result is not None:
                    chosen = training.training
                    rows.append(
                        [
                            name,
                            chosen.objective.value,
                            chosen.timestep_sampling.value,
                            checkpoint.about["step"],
                            *result,
                        ]
                    )
                progress.to(min(done, batches))
            progress.close()
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "gradient_noise.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    lines_with_errors(
        {
            name: [(row[3], row[4], row[5] if np.isfinite(row[5]) else np.nan) for row in rows if row[0] == name]
            for name in names
        },
        out / "gradient_noise",
        xlabel="training step (no error bar: unbounded)",
        ylabel="gradient noise scale (images)",
    )


def _snapshots(root: Path, name: str, params: Params) -> list[Checkpoint]:
    if name not in params.models:
        raise UserError(f"params.yaml: {name!r} is not in models ({', '.join(params.models) or 'which is empty'})")
    folder = root / "runs" / "models" / name / "snapshots"
    paths = sorted(folder.glob("step-*"))
    if not paths:
        raise UserError(
            f"{folder.relative_to(root)}: no snapshots; set models.{name}.training.snapshot_every and train again"
        )
    return [open_checkpoint(path) for path in paths]


def _training(root: Path, name: str, checkpoint: Checkpoint, device: Device) -> DiffusionTraining:
    """The training as it stood at the snapshot, its timestep sampler included."""
    model = Model.model_validate_json(json.dumps(checkpoint.about["params"]))
    shards = root / "data" / "shards" / model.dataset
    if ShardFolder(shards).index_sha256 != checkpoint.about["index_sha256"]:
        raise UserError(f"data/shards/{model.dataset}: not the images that runs/models/{name} was trained on")
    training = DiffusionTraining(model, shards, device)
    training.load(checkpoint.weights, checkpoint.state())
    return training


def gradient_noise_scale(training: DiffusionTraining, batches: int) -> Iterator[NoiseScale | None]:
    """Estimate the noise scale at the current weights from `batches` (at least 2 x 5) gradients of whole batches.

    Yields None after every batch, for progress, and the result at the end. The batches are those that training
    would see after its last step. Both parts are unbiased: within each of five groups of n gradients g_i of batches
    of B images, tr = B * sum |g_i - mean|^2 / (n - 1) and |G|^2 = |mean|^2 - tr / (n B). The standard error of
    their ratio is a jackknife over the groups. A gradient that drowns in noise gives a scale that is infinite.
    """
    per_group = batches // GROUPS
    if per_group < 2:
        raise ValueError(f"{batches} batches are too few; take at least {2 * GROUPS}")
    first = training.training.steps
    parts = np.zeros((GROUPS, 2))
    for group in range(GROUPS):
        total, squares = torch.zeros(1, device=training.device), 0.0
        for step in range(first + group * per_group, first + (group + 1) * per_group):
            training.accumulate_gradient(step)
            gradient = torch.cat([p.grad.flatten() for p in training.network.parameters() if p.grad is not None])
            total, squares = total + gradient, squares + float(gradient.double().square().sum())
            yield None
        mean_square = float((total / per_group).double().square().sum())
        batch_variance = (squares - per_group * mean_square) / (per_group - 1)
        parts[group] = batch_variance * training.training.batch_size, mean_square - batch_variance / per_group
    yield _ratio(parts)


def _ratio(parts: np.ndarray) -> NoiseScale:
    """The ratio of the group means of (variance, squared gradient) [groups, 2], with its jackknife error."""

    def scale(rows: np.ndarray) -> float:
        variance, squared = rows.mean(0)
        return float(variance / squared) if squared > 0 else float("inf")

    without = np.array([scale(np.delete(parts, group, axis=0)) for group in range(len(parts))])
    finite = np.isfinite(without).all()
    spread = np.sqrt((len(parts) - 1) * without.var()) if finite else np.inf
    return NoiseScale(scale(parts), float(spread), *parts.mean(0).tolist())
