"""sample and surrogate-sample: a model, maybe a surrogate -> runs/samples/NAME."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from iddpm.evaluation.grid import image_grid
from iddpm.params import Cascade, DiffusionSurrogate, Reconstruction, Sampling, SurrogateSampling
from iddpm.stages.batches import Arrays, KeptBatches
from iddpm.stages.context import Stage, fingerprint, running
from iddpm.stages.draw import INTERPOLATED, Drawn, LowResolution, Start, draw_entry, interpolate, plan_chains
from iddpm.stages.models import DiffusionModel, GanModel, Images, Labels
from iddpm.stages.progress import Progress
from iddpm.training.device import device_name

GRID_IMAGES = 100

Pictures = Mapping[str, tuple[Images, int]]
"""Name of a PNG file -> its images, row by row, and the number of columns."""


def run(stage: Stage) -> None:
    """Draw the samples, save them in the format of the field: samples.npz with arr_0 images, arr_1 labels."""
    sampling: Sampling = stage.entry
    model_path = stage.input(model_folder(sampling))
    if isinstance(sampling, SurrogateSampling):
        stage.input(f"runs/surrogates/{sampling.surrogate}")
    with running(stage):
        model = DiffusionModel(model_path, sampling.weights, stage.params.compute.device)
        stage.refuse_other_model(sampling.model, model.checkpoint)
        start = open_start(stage, sampling) if isinstance(sampling, SurrogateSampling) else None
        labels = model.labels(sampling.count)
        batches = KeptBatches(stage.work)
        progress = open_progress(stage, batches, sampling.count, sampling.interpolations * INTERPOLATED)
        drawn = draw_kept(sampling, model, sampling.count, labels, batches, progress, start=start)
        made = about_drawing(sampling, model, drawn, batches, start)  # before interpolations add to the seconds
        interpolations = _interpolations(sampling, model, labels, batches, progress)
        progress.close()
        pictures = {"interpolations.png": (np.concatenate(interpolations), INTERPOLATED)} if interpolations else {}
        write_samples(stage, drawn, labels, made, pictures)
        batches.clear()


def model_folder(sampling: Sampling) -> str:
    """The finished model that a sampling draws from, or its snapshot."""
    snapshot = "" if sampling.checkpoint is None else f"/snapshots/step-{sampling.checkpoint:09d}"
    return f"runs/models/{sampling.model}{snapshot}"


def open_progress(stage: Stage, batches: KeptBatches, count: int, more: int = 0) -> Progress:
    """Of drawing `count` images and `more` after them, beginning behind the batches that are kept."""
    return Progress(stage.address, count + more, "images", first=min(len(batches) * stage.entry.batch_size, count))


def draw_kept(
    entry: Sampling | Cascade | Reconstruction,
    model: DiffusionModel,
    count: int,
    labels: Labels | None,
    batches: KeptBatches,
    progress: Progress,
    *,
    start: Start | None = None,
    low_res: LowResolution | None = None,
) -> Drawn:
    """`draw_entry`, going on after the batches that are kept."""
    done = min(len(batches) * entry.batch_size, count)  # progress never goes back
    told, kept = (lambda drawn: progress.to(max(drawn, done))), batches.get
    return draw_entry(entry, model, count, labels, start=start, low_res=low_res, progress=told, kept=kept)


def about_drawing(
    entry: Sampling | Cascade | Reconstruction,
    model: DiffusionModel,
    drawn: Drawn,
    batches: KeptBatches,
    start: Start | None = None,
) -> dict[str, Any]:
    """How the images were drawn, for their record; `batches` has their seconds."""
    count, seconds = len(drawn.images), batches.seconds
    chains = plan_chains(model, str(entry.steps), start)
    return {
        "images": count,
        "rounding": "nearest",
        "sampling_seconds": round(seconds, 3),
        "images_per_second": round(count / seconds, 3),
        "network_evaluations": chains.network_evaluations,
        "surrogate_evaluations": chains.surrogate_evaluations,
        "training_step": model.checkpoint.about.get("step"),
        "device": device_name(model.device),
    }


def write_samples(stage: Stage, drawn: Drawn, labels: Labels | None, made: dict[str, Any], pictures: Pictures) -> None:
    """The output runs/samples/NAME: images and labels, their record and pictures, `pictures` besides the usual."""
    output = f"runs/samples/{stage.name}"
    with stage.output_folder(output) as folder:
        save_npz(folder / "samples.npz", drawn.images, labels)
        _save_pictures(folder, drawn)
        for name, (images, columns) in pictures.items():
            image_grid(images, folder / name, columns=columns)
        saved = sorted(path.name for path in folder.glob("*.png"))
        record = stage.record() | made | {"samples_sha256": fingerprint(folder / "samples.npz")}
        (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n")
    stage.scores = {name: record[name] for name in ("images_per_second", "sampling_seconds")}
    stage.artifacts = [(f"{output}/{name}", "") for name in (*saved, "record.json")]


def save_npz(path: Path, images: Images, labels: Labels | None) -> None:
    """In the format of the field."""
    np.savez(path, **({"arr_0": images} if labels is None else {"arr_0": images, "arr_1": labels}))


def _interpolations(
    sampling: Sampling, model: DiffusionModel, labels: Labels | None, batches: KeptBatches, progress: Progress
) -> list[Images]:
    """Rows of images between pairs of samples, kept behind the samples' batches."""
    steps, clip, seed = str(sampling.steps), sampling.clip, sampling.seed

    def row(pair: int) -> Arrays:
        return {"images": interpolate(model, pair, steps=steps, labels=labels, clip=clip, seed=seed)}

    rows = []
    for pair in range(sampling.interpolations):
        rows.append(batches.get(sampling.count + pair, partial(row, pair))["images"])
        progress.to(sampling.count + len(rows) * INTERPOLATED)
    return rows


def _save_pictures(folder: Path, drawn: Drawn) -> None:
    """denoising.png has a row for each image: x_t from noise to image, a gap, the x_start predicted from each."""
    image_grid(drawn.images[:GRID_IMAGES], folder / "grid.png")
    if drawn.denoising is not None:
        x_t, x_start = drawn.denoising[:, :, 0], drawn.denoising[:, :, 1]
        rows = np.concatenate([x_t, np.full_like(x_t[:, :1], 255), x_start], axis=1)
        image_grid(rows.reshape(-1, *rows.shape[2:]), folder / "denoising.png", columns=rows.shape[1])


def open_start(stage: Stage, sampling: SurrogateSampling) -> Start:
    """The surrogate of a sampling, of either kind. Of an SNGAN there are only EMA weights to use."""
    path, device = stage.root / "runs" / "surrogates" / sampling.surrogate, stage.params.compute.device
    surrogate: DiffusionModel | GanModel
    if isinstance(stage.params.surrogates[sampling.surrogate], DiffusionSurrogate):
        surrogate = DiffusionModel(path, sampling.weights, device)
    else:
        surrogate = GanModel(path, device)
    stage.refuse_other_parameters("surrogates", sampling.surrogate, surrogate.checkpoint)
    steps = None if sampling.surrogate_steps is None else str(sampling.surrogate_steps)
    return Start(surrogate, sampling.t_mid, steps, sampling.handover)
