"""likelihood: a model and a dataset -> runs/likelihoods/NAME, bits per dimension and its terms."""

import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from iddpm.data import ShardFolder
from iddpm.diffusion import GaussianDiffusion, bound_terms, strided_process
from iddpm.evaluation.figures import bound_terms_figure
from iddpm.params import Likelihood
from iddpm.randomness import PositionalRandom
from iddpm.stages.context import Stage, running
from iddpm.stages.models import DiffusionModel, Images, Labels
from iddpm.stages.progress import Progress

Table = npt.NDArray[np.float64]


def run(stage: Stage) -> None:
    """Evaluate every term of the bound (eq. 4) of a full or strided chain once per image, with one noise draw each."""
    likelihood: Likelihood = stage.entry
    model_path = stage.input(f"runs/models/{likelihood.model}")
    shards_path = stage.input(f"data/shards/{likelihood.dataset}")
    output = f"runs/likelihoods/{stage.name}"
    with running(stage):
        model = DiffusionModel(model_path, likelihood.weights, stage.params.compute.device)
        stage.refuse_other_model(likelihood.model, model.checkpoint)
        process = strided_process(model.process, likelihood.steps) if likelihood.steps else model.process
        images, labels = ShardFolder(shards_path).read_split(likelihood.split, likelihood.images)
        vb, x_start_mse, mse, prior = evaluate_bound(stage, model, process, images, labels)
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
                "steps": likelihood.steps,
                "evaluated_timesteps": process.timesteps,
                "clip": likelihood.clip,
                "noise_draws": 1,
                "weights": likelihood.weights.value,
                "record": stage.record(),
            }
            (folder / "bits_per_dim.json").write_text(json.dumps(scores | {"protocol": protocol}, indent=2) + "\n")
            columns = (process.timestep_map, vb.mean(0), x_start_mse.mean(0), mse.mean(0))
            _write_terms(folder / "terms.csv", *columns)
            bound_terms_figure(process.timestep_map, vb.mean(0), folder / "terms")
        stage.scores = scores
        stage.artifacts = [(f"{output}/{name}", "") for name in ("bits_per_dim.json", "terms.csv", "terms.png")]


@torch.inference_mode()
def evaluate_bound(
    stage: Stage, model: DiffusionModel, process: GaussianDiffusion, images: Images, labels: Labels
) -> tuple[Table, Table, Table, Table]:
    """vb, x_start and eps squared errors, each float64 [N, steps of `process`] from step 0 up, and the prior [N]."""
    likelihood: Likelihood = stage.entry
    random = PositionalRandom(likelihood.seed, "likelihood/noise")
    tables = np.zeros((3, len(images), process.timesteps))
    prior = np.zeros(len(images))
    progress = Progress(stage.address, len(images) * process.timesteps, "terms")
    done = 0
    for first in range(0, len(images), likelihood.batch_size):
        rows = slice(first, min(first + likelihood.batch_size, len(images)))
        x, denoiser = model.on_images(images[rows], labels[rows])
        positions = torch.arange(rows.start, rows.stop, device=model.device)
        prior[rows] = process.prior_bits_per_dim(x).cpu().numpy()
        # Drawn by original timestep: a strided chain meets the noise of the full one.
        noise = lambda step, where=positions, shape=x.shape[1:]: random.normal(  # noqa: E731
            where, shape, draw=process.timestep_map[step]
        )
        for term in bound_terms(process, denoiser, x, noise, clip=likelihood.clip):
            for table, values in zip(tables, (term.vb, term.x_start_mse, term.mse), strict=True):
                table[rows, term.step] = values.cpu().numpy()
            done += len(x)
            progress.to(done)
    progress.close()
    return tables[0], tables[1], tables[2], prior


def _write_terms(path: Path, timesteps: list[int], vb: Table, x_start_mse: Table, mse: Table) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["timestep", "vb_bits_per_dim", "x_start_mse", "eps_mse"])
        for timestep, *row in zip(timesteps, vb, x_start_mse, mse, strict=True):
            writer.writerow([timestep, *(f"{value:.8g}" for value in row)])
