"""The paper's comparison of gradient noise (its figure of L_vlb, L_hybrid and resampled L_vlb) for trained models."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from iddpm.data import ShardFolder
from iddpm.errors import UserError
from iddpm.evaluation.figures import lines_with_errors
from iddpm.params import Device, Model
from iddpm.stages.progress import Progress
from iddpm.training.checkpoint import Checkpoint, open_checkpoint
from iddpm.training.gradient_noise import GROUPS, NoiseScale, gradient_noise_scale
from iddpm.training.loop import DiffusionTraining

COLUMNS = ("model", "objective", "timestep_sampling", "step", *NoiseScale._fields)


def compare_gradient_noise(root: Path, names: Sequence[str], batches: int, out: Path, device: Device) -> None:
    """Measure the models of runs/models at their snapshots, each under its own objective and timestep sampler.

    Writes gradient_noise.csv, .png and .svg into `out`. UserError names a model that has no snapshots.
    """
    if batches < 2 * GROUPS:
        raise UserError(f"--batches {batches}: take at least {2 * GROUPS}")
    snapshots = {name: _snapshots(root, name) for name in names}  # all of them, before the first is measured
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
        {name: [(row[3], row[4], row[5]) for row in rows if row[0] == name] for name in names},
        out / "gradient_noise",
        xlabel="training step",
        ylabel="gradient noise scale (images)",
    )


def _snapshots(root: Path, name: str) -> list[Checkpoint]:
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
