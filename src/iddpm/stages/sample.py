"""sample and surrogate-sample: a model, maybe a surrogate -> runs/samples/NAME."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from iddpm.evaluation.grid import image_grid
from iddpm.params import DiffusionSurrogate, Sampling, SurrogateSampling
from iddpm.stages.batches import Arrays, KeptBatches
from iddpm.stages.context import Stage, fingerprint, running
from iddpm.stages.draw import INTERPOLATED, Drawn, Start, draw, interpolate, plan_chains
from iddpm.stages.models import DiffusionModel, GanModel, Images, Labels
from iddpm.stages.progress import Progress
from iddpm.training.device import device_name

GRID_IMAGES = 100


def run(stage: Stage) -> None:
    """Draw the samples, save them in the format of the field: samples.npz with arr_0 images, arr_1 labels."""
    sampling: Sampling = stage.entry
    model_path = stage.input(f"runs/models/{sampling.model}")
    if isinstance(sampling, SurrogateSampling):
        stage.input(f"runs/surrogates/{sampling.surrogate}")
    with running(stage):
        model = DiffusionModel(model_path, sampling.weights, stage.params.compute.device)
        stage.refuse_other_model(sampling.model, model.checkpoint)
        start = open_start(stage, sampling) if isinstance(sampling, SurrogateSampling) else None
        chains = plan_chains(model, str(sampling.steps), start)
        labels = model.labels(sampling.count)
        batches = KeptBatches(stage.work)
        done = min(len(batches) * sampling.batch_size, sampling.count)
        total = sampling.count + sampling.interpolations * INTERPOLATED
        progress = Progress(stage.address, total, "images", first=done)
        drawn = draw(
            model,
            sampling.count,
            steps=str(sampling.steps),
            labels=labels,
            sampler=sampling.sampler,
            eta=sampling.eta,
            clip=sampling.clip,
            batch_size=sampling.batch_size,
            seed=sampling.seed,
            start=start,
            progress=lambda count: progress.to(max(count, done)),
            kept=batches.get,
        )
        seconds = batches.seconds  # of the samples alone
        interpolations = _interpolations(sampling, model, labels, batches, progress)
        progress.close()
        output = f"runs/samples/{stage.name}"
        with stage.output_folder(output) as folder:
            arrays = {"arr_0": drawn.images} if labels is None else {"arr_0": drawn.images, "arr_1": labels}
            np.savez(folder / "samples.npz", **arrays)
            _save_pictures(folder, drawn, interpolations)
            pictures = sorted(path.name for path in folder.glob("*.png"))
            record = stage.record() | {
                "images": sampling.count,
                "rounding": "nearest",
                "sampling_seconds": round(seconds, 3),
                "images_per_second": round(sampling.count / seconds, 3),
                "network_evaluations": chains.network_evaluations,
                "surrogate_evaluations": chains.surrogate_evaluations,
                "device": device_name(model.device),
                "samples_sha256": fingerprint(folder / "samples.npz"),
            }
            (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n")
        batches.clear()
        stage.scores = {name: record[name] for name in ("images_per_second", "sampling_seconds")}
        stage.artifacts = [(f"{output}/{name}", "") for name in (*pictures, "record.json")]


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


def _save_pictures(folder: Path, drawn: Drawn, interpolations: list[Images]) -> None:
    """denoising.png has a row for each image: x_t from noise to image, a gap, the x_start predicted from each."""
    image_grid(drawn.images[:GRID_IMAGES], folder / "grid.png")
    if drawn.denoising is not None:
        x_t, x_start = drawn.denoising[:, :, 0], drawn.denoising[:, :, 1]
        rows = np.concatenate([x_t, np.full_like(x_t[:, :1], 255), x_start], axis=1)
        image_grid(rows.reshape(-1, *rows.shape[2:]), folder / "denoising.png", columns=rows.shape[1])
    if interpolations:
        image_grid(np.concatenate(interpolations), folder / "interpolations.png", columns=INTERPOLATED)


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
