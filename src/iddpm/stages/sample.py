"""sample and surrogate-sample: a model, maybe a surrogate -> runs/samples/NAME."""

import json
import time

import numpy as np

from iddpm.evaluation.grid import image_grid
from iddpm.params import Sampling, SurrogateSampling
from iddpm.stages.context import Stage, fingerprint, running
from iddpm.stages.draw import DiffusionModel, GanModel, draw
from iddpm.stages.progress import Progress

GRID_IMAGES = 100


def run(stage: Stage) -> None:
    """Draw the samples, save them in the format of the field: samples.npz with arr_0 images, arr_1 labels."""
    sampling: Sampling = stage.entry
    model_path = stage.input(f"runs/models/{sampling.model}")
    start: SurrogateSampling | None = sampling if isinstance(sampling, SurrogateSampling) else None
    surrogate_path = stage.input(f"runs/surrogates/{start.surrogate}") if start else None
    device = stage.params.compute.device
    with running(stage):
        model = DiffusionModel(model_path, sampling.weights, device)
        stage.refuse_other_parameters("models", sampling.model, model.checkpoint)
        surrogate = GanModel(surrogate_path, device) if surrogate_path else None
        if start and surrogate:
            stage.refuse_other_parameters("surrogates", start.surrogate, surrogate.checkpoint)
        labels = model.labels(sampling.count)
        progress = Progress(stage.address, sampling.count, "images")
        began = time.perf_counter()
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
            surrogate=surrogate,
            t_mid=start.t_mid if start else None,
            progress=progress.to,
        )
        seconds = time.perf_counter() - began
        progress.close()
        output = f"runs/samples/{stage.name}"
        with stage.output_folder(output) as folder:
            arrays = {"arr_0": images} if labels is None else {"arr_0": images, "arr_1": labels}
            np.savez(folder / "samples.npz", **arrays)
            image_grid(images[:GRID_IMAGES], folder / "grid.png")
            evaluated = 0 if start and start.t_mid == 0 else network_evaluations(model, sampling)
            record = stage.record() | {
                "images": sampling.count,
                "rounding": "nearest",
                "sampling_seconds": round(seconds, 3),
                "images_per_second": round(sampling.count / seconds, 3),
                "network_evaluations": evaluated,
                "device": model.device.type,
                "samples_sha256": fingerprint(folder / "samples.npz"),
            }
            (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n")
        stage.scores = {
            "images_per_second": record["images_per_second"],
            "sampling_seconds": record["sampling_seconds"],
        }
        stage.artifacts = [(f"{output}/grid.png", ""), (f"{output}/record.json", "")]


def network_evaluations(model: DiffusionModel, sampling: Sampling) -> int:
    """Forward passes of the diffusion network per image."""
    below = sampling.t_mid if isinstance(sampling, SurrogateSampling) else None
    return model.process.respaced(str(sampling.steps), below).timesteps
