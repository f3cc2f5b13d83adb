"""cascade: the samples of a smaller model and an upsampler -> runs/samples/NAME, larger images of the same things."""

import json

import numpy as np

from iddpm.errors import UserError
from iddpm.evaluation.grid import enlarged
from iddpm.evaluation.images import SAMPLES, NpzImages
from iddpm.params import Cascade
from iddpm.stages.batches import KeptBatches
from iddpm.stages.context import Stage, running
from iddpm.stages.draw import LowResolution
from iddpm.stages.models import DiffusionModel, Images, Labels
from iddpm.stages.sample import about_drawing, draw_kept, open_progress, write_samples

PAIRS = 20
"""Images that pairs.png shows, low resolution beside upsampled."""
PAIRS_IN_A_ROW = 4


def run(stage: Stage) -> None:
    """Upsample every image; image i is that of sample i, with its label."""
    cascade: Cascade = stage.entry
    samples_path = stage.input(f"runs/samples/{cascade.samples}")
    model_path = stage.input(f"runs/models/{cascade.upsampler}")
    with running(stage):
        model = DiffusionModel(model_path, cascade.weights, stage.params.compute.device)
        stage.refuse_other_model(cascade.upsampler, model.checkpoint)
        samples = NpzImages(samples_path / SAMPLES)
        _refuse_other_labels(samples, model)
        base = json.loads((samples_path / "record.json").read_text())
        images = np.concatenate(list(samples.batches(cascade.batch_size)))
        batches = KeptBatches(stage.work)
        progress = open_progress(stage, batches, samples.count)
        low_res = LowResolution(images, cascade.augmentation)
        drawn = draw_kept(cascade, model, samples.count, samples.labels, batches, progress, low_res=low_res)
        progress.close()
        made = about_drawing(cascade, model, drawn, batches) | {"base": base}
        pictures = {"pairs.png": (_pairs(images[:PAIRS], drawn.images[:PAIRS]), 2 * PAIRS_IN_A_ROW)}
        write_samples(stage, drawn, samples.labels, made, pictures)
        batches.clear()


def _refuse_other_labels(samples: NpzImages, model: DiffusionModel) -> None:
    labels: Labels | None = samples.labels
    if model.classes and (labels is None or not 0 <= labels.min() <= labels.max() < model.classes):
        has = "no labels" if labels is None else f"labels {labels.min()} to {labels.max()}"
        raise UserError(f"{samples.name}: has {has}; {model.checkpoint.path} is told one of {model.classes} classes")


def _pairs(low_res: Images, upsampled: Images) -> Images:
    """Both sets in turn, at the size of the upsampled [2 N, size, size, C]."""
    both = np.stack([enlarged(low_res, upsampled.shape[1]), upsampled], axis=1)
    return both.reshape(-1, *both.shape[2:])
