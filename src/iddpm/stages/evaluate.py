"""evaluate: samples and a dataset -> runs/metrics/NAME.json, with NAME.protocol.json beside it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from iddpm.data import ShardFolder
from iddpm.errors import UserError
from iddpm.evaluation import CLASSIFIED_SOURCES, score_classes, score_images
from iddpm.params import Evaluation
from iddpm.stages.context import Stage, running, say


def run(stage: Stage) -> None:
    """Score one set of samples and write the scores with everything that defines them."""
    evaluation: Evaluation = stage.entry
    samples_path = stage.input(f"runs/samples/{evaluation.samples}")
    shards_path = stage.input(f"data/shards/{evaluation.dataset}")
    output = f"runs/metrics/{stage.name}.json"
    with running(stage):
        images, labels = _read_samples(samples_path)
        folder = ShardFolder(shards_path)
        reference, _ = folder.read_split(evaluation.split)
        if images.shape[1:] != reference.shape[1:]:
            raise UserError(
                f"evaluations.{stage.name}.samples: images of {images.shape[1:]} cannot be compared with "
                f"{reference.shape[1:]} of dataset {evaluation.dataset}"
            )
        say(f"{stage.address}: {len(images)} samples against {len(reference)} images, {evaluation.features}")
        scores = score_images(images, reference, evaluation)
        if folder.card.source in CLASSIFIED_SOURCES:
            scores |= score_classes(images, labels, *folder.read_split("train"), evaluation)
        protocol = _protocol(evaluation, samples_path, reference.shape, stage)
        for path, content in ((output, scores), (protocol_path(output), protocol)):
            with stage.output_file(path) as file:
                file.write_text(json.dumps(content, indent=2) + "\n")
            stage.artifacts.append((path, ""))
        stage.scores = scores
        say(f"{stage.address}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()))


def protocol_path(metrics_path: str) -> str:
    """Where the protocol of the scores at `metrics_path` stands."""
    return metrics_path.removesuffix(".json") + ".protocol.json"


def _read_samples(path: Path) -> tuple[Any, Any]:
    file = path / "samples.npz"
    try:
        with np.load(file, allow_pickle=False) as npz:
            return npz["arr_0"], npz["arr_1"] if "arr_1" in npz.files else None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: not a readable sample file ({error})") from None


def _protocol(evaluation: Evaluation, samples: Path, reference_shape: tuple[int, ...], stage: Stage) -> dict[str, Any]:
    """Every setting on which the scores depend (who compares two scores compares these)."""
    made = json.loads((samples / "record.json").read_text())
    return {
        "features": evaluation.features.value,
        "resize": "none",
        "reference": {
            "dataset": evaluation.dataset,
            "split": evaluation.split.value,
            "images": reference_shape[0],
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
