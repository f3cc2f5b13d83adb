"""Features of a set of images, kept by the content of the images and of the network."""

import hashlib
import importlib.metadata
import json
from functools import cache, partial
from pathlib import Path

import filelock
import numpy as np

from iddpm.evaluation import features
from iddpm.evaluation.features import FeatureNetwork, Features
from iddpm.evaluation.images import ImageSet
from iddpm.stages.batches import Arrays, KeptBatches
from iddpm.stages.context import fingerprint, say
from iddpm.stages.progress import Progress

IMAGES_PER_FILE = 1000
"""An interruption loses at most so many."""


def features_of(images: ImageSet, network: FeatureNetwork, folder: Path, device: str, batch_size: int = 50) -> Features:
    """The features of all images in order, `batch_size` images through the network at once.

    What was finished earlier is read from `folder`, which has a folder for each set of images, network and `device`, as
    a record names it. Memory: the features, and IMAGES_PER_FILE images.
    """
    key = json.dumps([images.sha256, network.identity, device, IMAGES_PER_FILE, _code()], sort_keys=True)
    kept = folder / hashlib.sha256(key.encode()).hexdigest()
    kept.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(kept / "lock")
    try:
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"features of {images.name}: another process is computing them; waiting for it")
        held = lock.acquire()
    with held:
        return _kept_features(images, network, KeptBatches(kept), batch_size)


@cache
def _code() -> list[str]:
    """What computes features besides their network's identity: our sources, torch, and the packages of lite0."""
    packages = ("torch", "efficientnet-lite-pytorch")
    return [fingerprint(Path(features.__file__).parent), *(importlib.metadata.version(name) for name in packages)]


def _kept_features(images: ImageSet, network: FeatureNetwork, batches: KeptBatches, batch_size: int) -> Features:
    finished = min(len(batches) * IMAGES_PER_FILE, images.count)
    progress = Progress(f"features of {images.name}", images.count, "images", first=finished)
    stream = enumerate(images.batches(IMAGES_PER_FILE))

    def extract(number: int) -> Arrays:
        pixels = next(pixels for place, pixels in stream if place == number)
        parts = []
        for first in range(0, len(pixels), batch_size):
            parts.append(network(pixels[first : first + batch_size])._asdict())
            progress.to(max(finished, number * IMAGES_PER_FILE + first + len(parts[-1]["features"])))
        return _joined(parts)

    arrays: Arrays = {}
    for first in range(0, images.count, IMAGES_PER_FILE):
        part = batches.get(first, partial(extract, first // IMAGES_PER_FILE))
        for name, values in part.items():
            whole = arrays.setdefault(name, np.empty((images.count, *values.shape[1:]), values.dtype))
            whole[first : first + len(values)] = values
    progress.close()
    return Features(arrays["features"], arrays.get("probabilities"))


def _joined(parts: list[Arrays]) -> Arrays:
    """One after the other; without what is None."""
    return {
        name: np.concatenate([part[name] for part in parts]) for name, array in parts[0].items() if array is not None
    }
