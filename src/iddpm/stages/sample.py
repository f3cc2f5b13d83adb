"""sample and surrogate-sample: a model, maybe a surrogate -> runs/samples/NAME."""

import json

import numpy as np

from iddpm.evaluation.grid import image_grid
from iddpm.params import DiffusionSurrogate, Sampling, SurrogateSampling
from iddpm.stages.batches import KeptBatches
from iddpm.stages.context import Stage, fingerprint, running
from iddpm.stages.draw import Start, draw, plan_chains
from iddpm.stages.models import DiffusionModel, GanModel
from iddpm.stages.progress import Progress

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
        progress = Progress(stage.address, sampling.count, "images", first=done)
        images = draw(
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
            kept=lambda first, make: batches.get(first, lambda: {"images": make()})["images"],
        )
        progress.close()
        output = f"runs/samples/{stage.name}"
        with stage.output_folder(output) as folder:
            arrays = {"arr_0": images} if labels is None else {"arr_0": images, "arr_1": labels}
            np.savez(folder / "samples.npz", **arrays)
            image_grid(images[:GRID_IMAGES], folder / "grid.png")
            record = stage.record() | {
                "images": sampling.count,
                "rounding": "nearest",
                "sampling_seconds": round(batches.seconds, 3),
                "images_per_second": round(sampling.count / batches.seconds, 3),
                "network_evaluations": chains.network_evaluations,
                "surrogate_evaluations": chains.surrogate_evaluations,
                "device": model.device.type,
                "samples_sha256": fingerprint(folder / "samples.npz"),
            }
            (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n")
        batches.clear()
        stage.scores = {
            "images_per_second": record["images_per_second"],
            "sampling_seconds": record["sampling_seconds"],
        }
        stage.artifacts = [(f"{output}/grid.png", ""), (f"{output}/record.json", "")]


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
