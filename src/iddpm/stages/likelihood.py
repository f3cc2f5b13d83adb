"""likelihood: a model and a dataset -> runs/likelihoods/NAME, bits per dimension and its terms."""

import csv
import json
from pathlib import Path

import numpy as np
import torch

from iddpm.data import ShardFolder
from iddpm.diffusion import bound_terms
from iddpm.evaluation.figures import bound_terms_figure
from iddpm.params import Likelihood
from iddpm.randomness import PositionalRandom
from iddpm.stages.context import Stage, running
from iddpm.stages.draw import DiffusionModel
from iddpm.stages.progress import Progress


def run(stage: Stage) -> None:
    """Evaluate every term of the bound (eq. 4) once for every image, with one noise draw per timestep."""
    likelihood: Likelihood = stage.entry
    model_path = stage.input(f"runs/models/{likelihood.model}")
    shards_path = stage.input(f"data/shards/{likelihood.dataset}")
    output = f"runs/likelihoods/{stage.name}"
    with running(stage):
        model = DiffusionModel(model_path, likelihood.weights, stage.params.compute.device)
        stage.refuse_other_parameters("models", likelihood.model, model.checkpoint)
        images, labels = ShardFolder(shards_path).read_split(likelihood.split, likelihood.images)
        vb, x_start_mse, mse, prior = evaluate_bound(stage, model, images, labels)
        total = vb.sum(1) + prior
        scores = {
            "bits_per_dim": float(total.mean()),
            "bits_per_dim_standard_error": float(total.std(ddof=1) / np.sqrt(len(total))) if len(total) > 1 else 0.0,
            "prior_bits_per_dim": float(prior.mean()),
        }
        with stage.output_folder(output) as folder:
            protocol = {
                "images": len(images),
                "split": likelihood.split.value,
                "timesteps": model.process.timesteps,
                "clip": True,
                "noise_draws": 1,
                "weights": likelihood.weights.value,
                "record": stage.record(),
            }
            (folder / "bits_per_dim.json").write_text(json.dumps(scores | {"protocol": protocol}, indent=2) + "\n")
            _write_terms(folder / "terms.csv", vb.mean(0), x_start_mse.mean(0), mse.mean(0))
            bound_terms_figure(vb.mean(0), folder / "terms")
        stage.scores = scores
        stage.artifacts = [(f"{output}/{name}", "") for name in ("bits_per_dim.json", "terms.csv", "terms.png")]


@torch.inference_mode()
def evaluate_bound(
    stage: Stage, model: DiffusionModel, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """vb, x_start and eps squared errors, each float64 [N, T] from step 0 up, and the prior [N]."""
    likelihood: Likelihood = stage.entry
    process, random = model.process, PositionalRandom(likelihood.seed, "likelihood/noise")
    tables = np.zeros((3, len(images), process.timesteps))
    prior = np.zeros(len(images))
    progress = Progress(stage.address, len(images) * process.timesteps, "terms")
    done = 0
    for first in range(0, len(images), likelihood.batch_size):
        rows = slice(first, min(first + likelihood.batch_size, len(images)))
        positions = torch.arange(rows.start, rows.stop, device=model.device)
        x = torch.from_numpy(images[rows]).to(model.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        batch_labels = torch.from_numpy(labels[rows]).to(model.device) if model.network.classes else None
        prior[rows] = process.prior_bits_per_dim(x).cpu().numpy()
        noise = lambda step, where=positions, shape=x.shape[1:]: random.normal(where, shape, draw=step)  # noqa: E731
        for term in bound_terms(process, model.denoiser(batch_labels), x, noise):
            for table, values in zip(tables, (term.vb, term.x_start_mse, term.mse), strict=True):
                table[rows, term.step] = values.cpu().numpy()
            done += len(x)
            progress.to(done)
    progress.close()
    return tables[0], tables[1], tables[2], prior


def _write_terms(path: Path, vb: np.ndarray, x_start_mse: np.ndarray, mse: np.ndarray) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["timestep", "vb_bits_per_dim", "x_start_mse", "eps_mse"])
        for step, row in enumerate(zip(vb, x_start_mse, mse, strict=True)):
            writer.writerow([step, *(f"{value:.8g}" for value in row)])
