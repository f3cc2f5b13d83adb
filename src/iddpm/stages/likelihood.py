"""likelihood: a model and a dataset -> runs/likelihoods/NAME, bits per dimension and its terms."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from iddpm.data import ShardFolder
from iddpm.diffusion import GaussianDiffusion, bound_terms, strided_process
from iddpm.errors import UserError
from iddpm.evaluation.figures import bound_terms_figure, checkpoints_figure
from iddpm.params import Checkpoints, Likelihood, Splits
from iddpm.randomness import PositionalRandom
from iddpm.stages.batches import Arrays, KeptBatches
from iddpm.stages.context import Stage, running
from iddpm.stages.models import DiffusionModel, Images, Labels
from iddpm.stages.progress import Progress

Table = npt.NDArray[np.float64]
TERMS = ("vb", "x_start_mse", "mse")


class Bound(NamedTuple):
    """The bound (eq. 4) of a split's images under the weights of a training step.

    `bits_per_dim` and `prior` hold one value per image [N]; `terms` the TERMS as means over the images [steps].
    """

    step: int
    split: str
    bits_per_dim: Table
    prior: Table
    terms: dict[str, Table]

    @property
    def mean(self) -> float:
        return float(self.bits_per_dim.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean; nan for one image."""
        count = len(self.bits_per_dim)
        return float(self.bits_per_dim.std(ddof=1) / np.sqrt(count)) if count > 1 else math.nan


def run(stage: Stage) -> None:
    """Evaluate every term of the bound of a full or strided chain once per image, with one noise draw each."""
    likelihood: Likelihood = stage.entry
    paths = [stage.input(path) for path in _checkpoints(stage)]
    shards_path = stage.input(f"data/shards/{likelihood.dataset}")
    with running(stage):
        shards = ShardFolder(shards_path)
        splits = _read_splits(stage, shards)
        batches = KeptBatches(stage.work)
        total = len(paths) * sum(len(images) for images, _ in splits.values())
        done = min(len(batches) * likelihood.batch_size, total)
        progress = Progress(stage.address, total, "images", first=done)
        evaluation = _Evaluation(likelihood, shards.card.classes, batches, lambda count: progress.to(max(count, done)))
        bounds = []
        for path in paths:
            model = DiffusionModel(path, likelihood.weights, stage.params.compute.device)
            stage.refuse_other_model(likelihood.model, model.checkpoint)
            process = strided_process(model.process, likelihood.steps) if likelihood.steps else model.process
            bounds += [evaluation.bound(model, process, split, *images) for split, images in splits.items()]
        progress.close()
        _write(stage, process, {bound.split: bound for bound in bounds[: len(splits)]}, bounds)
        batches.clear()


def _checkpoints(stage: Stage) -> list[str]:
    """The finished model, then the snapshots before it that are asked for, in order."""
    likelihood: Likelihood = stage.entry
    folder = f"runs/models/{likelihood.model}"
    if likelihood.checkpoints is Checkpoints.FINAL:
        return [folder]
    training = stage.params.models[likelihood.model].training
    assert training.snapshot_every is not None  # iddpm.checks
    steps = range(training.snapshot_every, training.steps, training.snapshot_every)
    return [folder, *(f"{folder}/snapshots/step-{step:09d}" for step in steps)]


def _read_splits(stage: Stage, shards: ShardFolder) -> dict[str, tuple[Images, Labels]]:
    likelihood: Likelihood = stage.entry
    chosen = [split for split in ("train", "test") if likelihood.split in (split, Splits.BOTH)]
    for split in chosen:
        available = sum(shard.samples for shard in shards.splits[split])
        if likelihood.images is not None and likelihood.images > available:
            raise UserError(
                f"params.yaml: likelihoods.{stage.name}.images: {likelihood.images} is more than the {available} "
                f"{split} images of {likelihood.dataset}"
            )
    return {split: shards.read_split(split, likelihood.images) for split in chosen}


@dataclass
class _Evaluation:
    """Walks along one row of images: every split under every checkpoint. A batch is kept by its place in it."""

    likelihood: Likelihood
    classes: int
    batches: KeptBatches
    progress: Callable[[int], None]
    place: int = 0

    def bound(
        self, model: DiffusionModel, process: GaussianDiffusion, split: str, images: Images, labels: Labels
    ) -> Bound:
        """Of images uint8 [N, H, W, C]. They meet the same noise under every checkpoint."""
        size, parts = self.likelihood.batch_size, []
        for first in range(0, len(images), size):
            rows = slice(first, first + size)
            evaluate = partial(self._evaluate, model, process, first, images[rows], labels[rows])
            parts.append(self.batches.get(self.place, evaluate))
            self.place += len(images[rows])
            self.progress(self.place)
        bits, prior = (np.concatenate([part[name] for part in parts]) for name in ("bits_per_dim", "prior"))
        terms = {name: np.sum([part[name] for part in parts], axis=0) / len(images) for name in TERMS}
        # Of models that are no trainings no other step is evaluated.
        return Bound(model.checkpoint.about.get("step", 0), split, bits, prior, terms)

    @torch.inference_mode()
    def _evaluate(
        self, model: DiffusionModel, process: GaussianDiffusion, first: int, images: Images, labels: Labels
    ) -> Arrays:
        """Bits/dim and prior of each image of a batch [n], and each of the TERMS summed over them [steps]."""
        x, denoiser = model.on_images(images, labels, self.classes)
        random = PositionalRandom(self.likelihood.seed, "likelihood/noise")
        positions = torch.arange(first, first + len(x), device=model.device)
        # Drawn by original timestep: a strided chain meets the noise of the full one.
        noise = lambda step: random.normal(positions, x.shape[1:], draw=process.timestep_map[step])  # noqa: E731
        prior = process.prior_bits_per_dim(x).cpu().numpy().astype(np.float64)
        bits, sums = prior.copy(), {name: np.zeros(process.timesteps) for name in TERMS}
        for done, term in enumerate(bound_terms(process, denoiser, x, noise, clip=self.likelihood.clip), 1):
            bits += term.vb.cpu().numpy()
            for name in TERMS:
                sums[name][term.step] = float(getattr(term, name).double().sum())
            self.progress(self.place + done * len(x) // process.timesteps)
        return {"bits_per_dim": bits, "prior": prior, **sums}


def _write(stage: Stage, process: GaussianDiffusion, final: dict[str, Bound], bounds: Sequence[Bound]) -> None:
    """The output folder: `final` holds the finished model's bounds by split, `bounds` those of all checkpoints."""
    likelihood: Likelihood = stage.entry
    output = f"runs/likelihoods/{stage.name}"
    scores = _scores(final)
    protocol = {
        "images": len(_shown(final).bits_per_dim),
        "split": likelihood.split.value,
        "timesteps": process.original_timesteps,
        "steps": likelihood.steps,
        "evaluated_timesteps": process.timesteps,
        "clip": likelihood.clip,
        "noise_draws": 1,
        "weights": likelihood.weights.value,
    }
    if likelihood.split is Splits.BOTH:
        protocol["train_images"] = len(final["train"].bits_per_dim)
    with stage.output_folder(output) as folder:
        content = scores | {"protocol": protocol | {"record": stage.record()}}
        (folder / "bits_per_dim.json").write_text(json.dumps(content, indent=2) + "\n")
        _write_terms(folder / "terms.csv", process.timestep_map, final)
        bound_terms_figure(
            process.timestep_map, {split: bound.terms["vb"] for split, bound in final.items()}, folder / "terms"
        )
        if likelihood.checkpoints is Checkpoints.ALL:
            _write_checkpoints(folder, bounds)
        names = sorted(path.name for path in folder.iterdir() if path.suffix != ".svg")
    stage.scores = {name: value for name, value in scores.items() if value is not None}
    stage.artifacts = [(f"{output}/{name}", "") for name in names]


def _shown(final: Mapping[str, Bound]) -> Bound:
    """The one whose bits/dim stand for the model: of the test images if they were evaluated."""
    return final.get("test") or final["train"]


def _scores(final: Mapping[str, Bound]) -> dict[str, float | None]:
    shown = _shown(final)
    scores = {
        "bits_per_dim": shown.mean,
        "bits_per_dim_standard_error": shown.standard_error,
        "prior_bits_per_dim": float(shown.prior.mean()),
    }
    if len(final) == 2:
        for split, bound in final.items():
            scores[f"{split}_bits_per_dim"] = bound.mean
            scores[f"{split}_bits_per_dim_standard_error"] = bound.standard_error
        train, test = final["train"], final["test"]
        scores["gap_bits_per_dim"] = test.mean - train.mean
        scores["gap_bits_per_dim_standard_error"] = math.hypot(test.standard_error, train.standard_error)
    unknown = {name: None for name, value in scores.items() if name.endswith("error") and math.isnan(value)}
    return scores | unknown


def _write_terms(path: Path, timesteps: list[int], final: Mapping[str, Bound]) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["timestep", "vb_bits_per_dim", "x_start_mse", "eps_mse", "split"])
        for split, bound in final.items():
            for timestep, *row in zip(timesteps, *(bound.terms[name] for name in TERMS), strict=True):
                writer.writerow([timestep, *(f"{value:.8g}" for value in row), split])


def _write_checkpoints(folder: Path, bounds: Sequence[Bound]) -> None:
    """checkpoints.csv in the order of training, and its figure."""
    ordered = sorted(bounds, key=lambda bound: bound.step)
    series: dict[str, list[tuple[float, float, float]]] = {}
    with open(folder / "checkpoints.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "split", "bits_per_dim", "standard_error"])
        for bound in ordered:
            mean, error = bound.mean, bound.standard_error
            writer.writerow([bound.step, bound.split, f"{mean:.8g}", f"{error:.8g}"])
            series.setdefault(bound.split, []).append((bound.step, mean, error))
    checkpoints_figure(series, folder / "checkpoints")
