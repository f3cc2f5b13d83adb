"""Do the scores move as they should? CIFAR-10 against itself, and against damaged copies; docs/scores.md has the table.

    iddpm set 'datasets.cifar10={source: cifar10}' && dvc repro shard@cifar10
    python benchmarks/cifar10_sanity.py

Every set is scored against the first 10,000 training images as they lie in the shards. Takes about 20 minutes on
one core, most of it features, which are cached.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from iddpm.data import ShardFolder
from iddpm.evaluation.features import FEATURE_NETWORKS, open_network
from iddpm.evaluation.images import ArrayImages
from iddpm.params import Device, ScoreSettings
from iddpm.stages.evaluate import CACHE, score_sets
from iddpm.training.device import resolve_device

Images = npt.NDArray[np.uint8]
SCORES = ("frechet_distance", "frechet_distance_infinity", "kid", "inception_score", "precision", "recall", "density",
          "coverage", "authenticity", "copies", "label_accuracy")  # fmt: skip


def noisy(images: Images) -> Images:
    """Gaussian noise of 10 grey levels."""
    noise = np.random.default_rng(0).normal(0, 10, images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


def each(change: Callable[[Image.Image], Image.Image]) -> Callable[[Images], Images]:
    return lambda images: np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


DAMAGES: dict[str, Callable[[Images], Images]] = {
    "test, noise of 10 grey levels": noisy,
    "test, Gaussian blur of radius 1": each(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    "test, 8 grey levels per channel": lambda images: (images // 32 * 32 + 16).astype(np.uint8),
    "test, JPEG quality 30": each(jpeg),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="a side")
    parser.add_argument("--features", default="lite0")
    parser.add_argument("--shards", type=Path, default=Path("data/shards/cifar10"))
    arguments = parser.parse_args()
    folder, count = ShardFolder(arguments.shards), arguments.images
    train, train_labels = folder.read_split("train", 2 * count)
    test, test_labels = folder.read_split("test", count)
    copied = np.concatenate([train[: count // 2], test[: count // 2]])
    copied_labels = np.concatenate([train_labels[: count // 2], test_labels[: count // 2]])
    sets = {
        "train, other images": (train[count:], train_labels[count:]),
        "test": (test, test_labels),
        **{name: (damage(test), test_labels) for name, damage in DAMAGES.items()},
        "half copies of the reference, half test": (copied, copied_labels),
        "test, one class only": (test[test_labels == 3], test_labels[test_labels == 3]),
    }
    device = resolve_device(Device.AUTO)
    network = open_network(arguments.features, Path(FEATURE_NETWORKS), device)
    settings = ScoreSettings(features=arguments.features, kid_subset_size=1000, bootstrap=0)
    reference = ArrayImages(train[:count], train_labels[:count], "train")
    shown: list[str] = []
    for name, (images, labels) in sets.items():
        samples = ArrayImages(images, labels, name)
        scores = score_sets(samples, reference, settings, network, Path(CACHE), device)
        if not shown:
            shown = [score for score in SCORES if score in scores.values]
            print("| set | images | " + " | ".join(shown).replace("frechet_distance", network.distance) + " |")
            print("| --- " * (len(shown) + 2) + "|")
        values = " | ".join(f"{scores.values[score]:.4g}" if score in scores.values else "-" for score in shown)
        print(f"| {name} | {len(images)} | {values} |", flush=True)


if __name__ == "__main__":
    main()
