"""evaluate: samples and a dataset -> runs/metrics/NAME.json, with NAME.protocol.json beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from iddpm.data import Card, ShardFolder, to_tensor
from iddpm.errors import UserError
from iddpm.evaluation import CLASSIFIED_SOURCES, score_classes, score_images
from iddpm.params import Evaluation
from iddpm.stages.context import Stage, running, say

Images = npt.NDArray[np.uint8]
AVERAGED_AT_ONCE = 4096
"""Images, to bound the memory."""


def run(stage: Stage) -> None:
    """Score one set of samples and write the scores with everything that defines them."""
    evaluation: Evaluation = stage.entry
    samples_path = stage.input(f"runs/samples/{evaluation.samples}")
    shards_path = stage.input(f"data/shards/{evaluation.dataset}")
    output = f"runs/metrics/{stage.name}.json"
    with running(stage):
        images, labels = _read_samples(samples_path)
        folder = ShardFolder(shards_path)
        refuse_other_images(f"evaluations.{stage.name}.samples", images, folder.card)
        size = images.shape[1]
        reference = averaged(folder.read_split(evaluation.split)[0], size)
        say(f"{stage.address}: {len(images)} samples against {len(reference)} images, {evaluation.features}")
        scores = score_images(images, reference, evaluation)
        if folder.card.source in CLASSIFIED_SOURCES:
            real_images, real_labels = folder.read_split("train")
            scores |= score_classes(images, labels, averaged(real_images, size), real_labels, evaluation)
        resize = "none" if size == folder.card.size else f"area average {folder.card.size} -> {size}"
        protocol = _protocol(evaluation, samples_path, len(reference), resize, stage)
        for path, content in ((output, scores), (protocol_path(output), protocol)):
            with stage.output_file(path) as file:
                file.write_text(json.dumps(content, indent=2) + "\n")
            stage.artifacts.append((path, ""))
        stage.scores = scores
        say(f"{stage.address}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()))


def protocol_path(metrics_path: str) -> str:
    """Where the protocol of the scores at `metrics_path` stands."""
    return metrics_path.removesuffix(".json") + ".protocol.json"


def refuse_other_images(key: str, images: Images, card: Card) -> None:
    """The reference has the samples' size, or a multiple of it, which is averaged as for a smaller model's training."""
    height, width, channels = images.shape[1:]
    if (height, channels) != (width, card.channels) or card.size % width:
        raise UserError(
            f"params.yaml: {key}: images of {height}x{width} pixels and {channels} channels cannot be compared with "
            f"{card.size}x{card.size} and {card.channels} of the dataset"
        )


def averaged(images: Images, size: int) -> Images:
    """uint8 images [N, H, W, C] averaged over areas to [N, size, size, C], on grey levels."""
    if images.shape[1] == size:
        return images
    parts = []
    for some in np.array_split(images, -(-len(images) // AVERAGED_AT_ONCE)):
        grey = (to_tensor(some, torch.device("cpu"), size) + 1) * 127.5
        parts.append(grey.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def _read_samples(path: Path) -> tuple[Any, Any]:
    file = path / "samples.npz"
    try:
        with np.load(file, allow_pickle=False) as npz:
            return npz["arr_0"], npz["arr_1"] if "arr_1" in npz.files else None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: not a readable sample file ({error})") from None


def _protocol(
    evaluation: Evaluation, samples: Path, reference_images: int, resize: str, stage: Stage
) -> dict[str, Any]:
    """Every setting on which the scores depend (who compares two scores compares these)."""
    made = json.loads((samples / "record.json").read_text())
    return {
        "features": evaluation.features.value,
        "resize": resize,
        "reference": {
            "dataset": evaluation.dataset,
            "split": evaluation.split.value,
            "images": reference_images,
            "index_sha256": stage.inputs[f"data/shards/{evaluation.dataset}"],
        },
        "images": made["images"],
        "rounding": made["rounding"],
        "neighbours": evaluation.neighbours,
        "kid": {"subsets": evaluation.kid_subsets, "subset_size": evaluation.kid_subset_size},
        "inception_score": {
            "splits": evaluation.inception_splits,
            "classifier": "SVC on pixels (RBF), calibrated, trained on the training split",
        },
        "seed": evaluation.seed,
        "samples": made,
        "record": stage.record(),
    }
