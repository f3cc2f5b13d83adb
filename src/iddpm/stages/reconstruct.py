"""reconstruct: real images averaged down and upsampled again -> runs/reconstructions/NAME, and how true they are.

PSNR and SSIM compare image by image; a feature network compares image by image and set by set, as scores do.
"""

import json
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iddpm.data import ShardFolder, area_average, to_tensor, to_uint8
from iddpm.errors import UserError
from iddpm.evaluation.features import FEATURE_NETWORKS, FeatureNetwork, find_files, open_network
from iddpm.evaluation.fidelity import Fidelity, fidelity
from iddpm.evaluation.grid import enlarged, image_grid
from iddpm.evaluation.images import ArrayImages
from iddpm.evaluation.kernel import Jackknifed, paired_kernel_distance
from iddpm.params import Reconstruction
from iddpm.stages.batches import KeptBatches
from iddpm.stages.context import Stage, running, say
from iddpm.stages.draw import LowResolution
from iddpm.stages.models import DiffusionModel, Images, Labels
from iddpm.stages.sample import about_drawing, draw_kept, open_progress, save_npz

INTERPOLATIONS = ("bilinear", "bicubic")
"""What the upsampler must surpass; they see what it sees, without noise."""
FEATURES_AT_ONCE = 50
COMPARED = 10
"""Images of comparison.png, a row for each: original, low resolution, bilinear, upsampled."""


def run(stage: Stage) -> None:
    """Upsample low-resolution versions of real images, and compare these with the originals."""
    reconstruction: Reconstruction = stage.entry
    shards_path = stage.input(f"data/shards/{reconstruction.dataset}")
    model_path = stage.input(f"runs/models/{reconstruction.upsampler}")
    find_files(reconstruction.features, stage.root / FEATURE_NETWORKS)
    stage.input(f"{FEATURE_NETWORKS}/{reconstruction.features}")
    with running(stage):
        model = DiffusionModel(model_path, reconstruction.weights, stage.params.compute.device)
        stage.refuse_other_model(reconstruction.upsampler, model.checkpoint)
        shards = ShardFolder(shards_path)
        images, labels = _read(stage, shards)
        originals, low_res = average_down(model, images, labels, shards.card.classes, reconstruction.batch_size)
        count, batches = len(images), KeptBatches(stage.work)
        progress = open_progress(stage, batches, count)
        shown = LowResolution(low_res, reconstruction.augmentation)
        drawn = draw_kept(reconstruction, model, count, labels, batches, progress, low_res=shown)
        progress.close()
        made = about_drawing(reconstruction, model, drawn, batches)
        network = open_network(reconstruction.features, stage.root / FEATURE_NETWORKS, model.device)
        _write(stage, made, network, originals, low_res, drawn.images, labels if shards.card.classes else None)
        batches.clear()


def _read(stage: Stage, shards: ShardFolder) -> tuple[Images, Labels]:
    reconstruction: Reconstruction = stage.entry
    images, labels = shards.read_split(reconstruction.split, reconstruction.images)
    if len(images) < reconstruction.images:
        raise UserError(
            f"params.yaml: reconstructions.{stage.name}.images: {reconstruction.images} is more than the {len(images)} "
            f"{reconstruction.split} images of {reconstruction.dataset}"
        )
    return images, labels


def average_down(
    model: DiffusionModel, images: Images, labels: Labels, classes: int, batch_size: int
) -> tuple[Images, Images]:
    """Images as the upsampler makes them and as it is shown them, both uint8 like the samples of a smaller model."""
    upsampling = model.architecture.upsampling
    if upsampling is None:
        raise UserError(f"{model.checkpoint.path}: no upsampler")
    originals, low_res = [], []
    for first in range(0, len(images), batch_size):
        rows = slice(first, first + batch_size)
        x, _ = model.on_images(images[rows], labels[rows], classes)
        originals.append(to_uint8(x))
        low_res.append(to_uint8(area_average(x, upsampling.low_size)))
    return np.concatenate(originals), np.concatenate(low_res)


def interpolated(images: Images, size: int, mode: str) -> Images:
    """Images uint8 [N, h, w, C] enlarged to uint8 [N, size, size, C]; mode is bilinear or bicubic."""
    cpu = torch.device("cpu")
    large = [
        to_uint8(F.interpolate(to_tensor(image[None], cpu), (size, size), mode=mode, align_corners=False))
        for image in images
    ]
    return np.concatenate(large)


def _write(
    stage: Stage,
    made: dict[str, Any],
    network: FeatureNetwork,
    originals: Images,
    low_res: Images,
    upsampled: Images,
    labels: Labels | None,
) -> None:
    reconstruction: Reconstruction = stage.entry
    size, low_size = originals.shape[1], low_res.shape[1]
    sets = {"": upsampled} | {f"{mode}_": interpolated(low_res, size, mode) for mode in INTERPOLATIONS}
    known = features_of(originals, network)
    features = {prefix: features_of(images, network) for prefix, images in sets.items()}
    kids = {prefix: paired_kernel_distance(of_set, known) for prefix, of_set in features.items()}
    scores: dict[str, float | None] = {}
    for prefix, images in sets.items():
        found = scores_of(fidelity(images, originals)) | _with_error("kid", kids[prefix])
        found |= feature_distance(features[prefix], known)
        if prefix:
            found |= _with_error("kid_above_upsampled", kids[prefix].minus(kids[""]))
        scores |= {f"{prefix}{name}": value for name, value in found.items()}
    protocol = {
        "dataset": reconstruction.dataset,
        "split": reconstruction.split.value,
        "size": size,
        "low_size": low_size,
        "low_resolution": "area averages, rounded to 8 bits",
        "augmentation": reconstruction.augmentation,
        "weights": reconstruction.weights.value,
        "psnr_over": "images that are no exact copies; peak 255",
        "ssim_window": "Gaussian, standard deviation 1.5 pixels",
        "features": network.identity,
        **made,
    }
    output = f"runs/reconstructions/{stage.name}"
    with stage.output_folder(output) as folder:
        save_npz(folder / "samples.npz", upsampled, labels)
        columns = [originals, enlarged(low_res[:COMPARED], size), sets["bilinear_"], upsampled]
        rows = np.stack([images[:COMPARED] for images in columns], axis=1)
        image_grid(rows.reshape(-1, *rows.shape[2:]), folder / "comparison.png", columns=len(columns))
        content = scores | {"protocol": protocol | {"record": stage.record()}}
        (folder / "fidelity.json").write_text(json.dumps(content, indent=2) + "\n")
    stage.scores = {name: value for name, value in scores.items() if value is not None}
    stage.artifacts = [(f"{output}/{name}", "") for name in ("fidelity.json", "comparison.png")]
    say(f"{stage.address}: " + ", ".join(f"{name} {value:.4g}" for name, value in stage.scores.items()))


def features_of(images: Images, network: FeatureNetwork) -> Tensor:
    """float64 [N, D] of images uint8 [N, H, W, C]."""
    batches = ArrayImages(images).batches(FEATURES_AT_ONCE)
    return torch.from_numpy(np.concatenate([network(batch).features for batch in batches])).double()


def feature_distance(features: Tensor, originals: Tensor) -> dict[str, float]:
    """Of each image from its own original: the mean squared distance of features [N, D] and [N, D].

    Of the sets there is KID; a Frechet distance would be misled: its bias with few images is smaller where each
    resembles its own original.
    """
    own = (features - originals).square().sum(1)
    error = float(own.std()) / math.sqrt(len(own))
    return {"feature_distance": float(own.mean()), "feature_distance_standard_error": error}


def _with_error(name: str, found: Jackknifed) -> dict[str, float]:
    return {name: found.value, f"{name}_standard_error": found.standard_error}


def scores_of(one: Fidelity) -> dict[str, float | None]:
    """Means over images with their standard errors; None where there are too few. PSNR leaves out exact copies."""
    scores: dict[str, float | None] = {}
    for name, values in (("psnr", one.psnr[np.isfinite(one.psnr)]), ("ssim", one.ssim)):
        count = len(values)
        scores[name] = float(values.mean()) if count else None
        scores[f"{name}_standard_error"] = float(values.std(ddof=1) / math.sqrt(count)) if count > 1 else None
    return scores | {"exact_copies": float(np.isinf(one.psnr).sum())}
