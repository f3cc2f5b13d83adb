"""likelihood: a model and a dataset -> runs/likelihoods/NAME, bits per dimension and its terms."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from iddpm.data import ShardFolder
from iddpm.diffusion import GaussianDiffusion, bound_terms, strided_process
from iddpm.errors import UserError
from iddpm.evaluation.figures import bound_terms_figure
from iddpm.params import Likelihood
from iddpm.randomness import PositionalRandom
from iddpm.stages.batches import Arrays, KeptBatches
from iddpm.stages.context import Stage, running
from iddpm.stages.models import DiffusionModel
from iddpm.stages.progress import Progress

Table = npt.NDArray[np.float64]
TABLES = ("vb", "x_start_mse", "mse")


def run(stage: Stage) -> None:
    """Evaluate every term of the bound (eq. 4) of a full or strided chain once per image, with one noise draw each."""
    likelihood: Likelihood = stage.entry
    model_path = stage.input(f"runs/models/{likelihood.model}")
    shards_path = stage.input(f"data/shards/{likelihood.dataset}")
    output = f"runs/likelihoods/{stage.name}"
    with running(stage):
        shards = ShardFolder(shards_path)
        available = sum(shard.samples for shard in shards.splits[likelihood.split])
        if likelihood.images is not None and likelihood.images > available:
            raise UserError(
                f"params.yaml: likelihoods.{stage.name}.images: {likelihood.images} is more than the {available} "
                f"{likelihood.split} images of {likelihood.dataset}"
            )
        model = DiffusionModel(model_path, likelihood.weights, stage.params.compute.device)
        stage.refuse_other_model(likelihood.model, model.checkpoint)
        process = strided_process(model.process, likelihood.steps) if likelihood.steps else model.process
        batches = KeptBatches(stage.work)
        vb, x_start_mse, mse, prior = evaluate_bound(stage, model, process, shards, batches)
        scores = _scores(vb.sum(1) + prior, prior)
        with stage.output_folder(output) as folder:
            protocol = {
                "images": len(prior),
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
        batches.clear()
        stage.scores = {name: value for name, value in scores.items() if value is not None}
        stage.artifacts = [(f"{output}/{name}", "") for name in ("bits_per_dim.json", "terms.csv", "terms.png")]


def _scores(total: Table, prior: Table) -> dict[str, float | None]:
    """Means over images [N]; one image has no standard error."""
    return {
        "bits_per_dim": float(total.mean()),
        "bits_per_dim_standard_error": float(total.std(ddof=1) / np.sqrt(len(total))) if len(total) > 1 else None,
        "prior_bits_per_dim": float(prior.mean()),
    }


@torch.inference_mode()
def evaluate_bound(
    stage: Stage, model: DiffusionModel, process: GaussianDiffusion, shards: ShardFolder, batches: KeptBatches
) -> tuple[Table, Table, Table, Table]:
    """vb, x_start and eps squared errors, each float64 [N, steps of `process`] from step 0 up, and the prior [N]."""
    likelihood: Likelihood = stage.entry
    images, labels = shards.read_split(likelihood.split, likelihood.images)
    random = PositionalRandom(likelihood.seed, "likelihood/noise")
    steps, size = process.timesteps, likelihood.batch_size
    finished = min(len(batches) * size, len(images))
    progress = Progress(stage.address, len(images) * steps, "terms", first=finished * steps)

    def evaluate(first: int) -> Arrays:
        rows = slice(first, first + size)
        x, denoiser = model.on_images(images[rows], labels[rows], shards.card.classes)
        positions = torch.arange(first, first + len(x), device=model.device)
        arrays = {name: np.zeros((len(x), steps)) for name in TABLES}
        # Drawn by original timestep: a strided chain meets the noise of the full one.
        noise = lambda step: random.normal(positions, x.shape[1:], draw=process.timestep_map[step])  # noqa: E731
        for done, term in enumerate(bound_terms(process, denoiser, x, noise, clip=likelihood.clip), 1):
            for name in TABLES:
                arrays[name][:, term.step] = getattr(term, name).cpu().numpy()
            progress.to(first * steps + done * len(x))
        return arrays | {"prior": process.prior_bits_per_dim(x).cpu().numpy().astype(np.float64)}

    parts = [batches.get(first, partial(evaluate, first)) for first in range(0, len(images), size)]
    progress.close()
    vb, x_start_mse, mse, prior = (np.concatenate([part[name] for part in parts]) for name in (*TABLES, "prior"))
    return vb, x_start_mse, mse, prior


def _write_terms(path: Path, timesteps: list[int], vb: Table, x_start_mse: Table, mse: Table) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["timestep", "vb_bits_per_dim", "x_start_mse", "eps_mse"])
        for timestep, *row in zip(timesteps, vb, x_start_mse, mse, strict=True):
            writer.writerow([timestep, *(f"{value:.8g}" for value in row)])
