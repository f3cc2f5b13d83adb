"""CIFAR-10 (Krizhevsky 2009) from its published python batches, none of which is opened before its md5 is checked."""

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iddpm.data.sources.base import ArraySource, Card, Image
from iddpm.errors import UserError
from iddpm.params import Cifar10Dataset

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    ARCHIVE: "c58f30108f718f92721af3b95e74349a",
}
TRAINING_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
IMAGES_PER_BATCH = 10_000
SIZE = 32


def card(dataset: Cifar10Dataset) -> Card:
    """Known before any file is opened."""
    return Card(
        source=dataset.source,
        description=f"CIFAR-10, the first {dataset.train_images} training images and all test images"
        + (f", averaged over boxes to {dataset.size} pixels" if dataset.size < SIZE else ""),
        channels=3,
        size=dataset.size,
        classes=10,
        counts={"train": dataset.train_images, "test": IMAGES_PER_BATCH},
    )


class Cifar10(ArraySource):
    """The images in their published order, in memory (180 MB at full size). Only the batches needed are read."""

    def __init__(self, dataset: Cifar10Dataset, folder: Path) -> None:
        known = card(dataset)
        needed = -(-dataset.train_images // IMAGES_PER_BATCH)
        splits = {"train": TRAINING_BATCHES[:needed], "test": ["test_batch"]}
        batches = {}
        for name, content in _contents(folder, [name for names in splits.values() for name in names]):
            images, labels = unpickle_batch(content)
            batches[name] = (average_boxes(images, dataset.size), labels)
        joined = {}
        for split, names in splits.items():
            parts, count = [batches.pop(name) for name in names], known.counts[split]
            images = np.concatenate([images for images, _ in parts])[:count]
            joined[split] = (images, np.concatenate([labels for _, labels in parts])[:count])
        super().__init__(known, joined)


def _contents(folder: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and verified content of each batch: from the published folder or files without it, else from the archive."""
    place, archive = folder / FOLDER if (folder / FOLDER).is_dir() else folder, folder / ARCHIVE
    if not archive.is_file() and not any((place / name).exists() for name in names):
        raise UserError(
            f"{folder}: no CIFAR-10 here; put {ARCHIVE} or its folder {FOLDER} there, or run `iddpm download cifar10`"
        )
    unusable = []
    for name in names:
        try:
            yield name, _read_verified(place / name)
        except UserError:
            if not archive.is_file():
                raise
            unusable.append(name)
    if unusable:
        yield from _archived(archive, unusable)


def _read_verified(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); `iddpm download cifar10` mends it") from None
    _refuse_other_content(path, io.BytesIO(content))
    return content


def _archived(archive: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    with open(archive, "rb") as stream:
        _refuse_other_content(archive, stream)
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = Path(member.name).name
            if name in names and (batch := tar.extractfile(member)):
                content = batch.read()
                _refuse_other_content(archive / name, io.BytesIO(content))
                yield name, content


def _refuse_other_content(path: Path, stream: io.BufferedReader | io.BytesIO) -> None:
    """UserError unless this is the published file of this name."""
    md5 = md5_of(stream)
    if md5 != MD5[path.name]:
        raise UserError(
            f"{path}: md5 {md5} is not the published {MD5[path.name]}: the file is damaged or another one; "
            "`iddpm download cifar10` mends it"
        )


def md5_of(stream: io.BufferedReader | io.BytesIO) -> str:
    """In hexadecimal, of the rest of a stream."""
    return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpickle_batch(content: bytes) -> tuple[Image, npt.NDArray[np.int64]]:
    """Images uint8 [N, 32, 32, 3] and labels int64 [N] of a batch. UnpicklingError for anything but arrays."""
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    images = batch[b"data"].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(batch[b"labels"], dtype=np.int64)


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain values and numpy arrays, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an image batch")
        return ADMITTED[module, name]


def average_boxes(images: Image, size: int) -> Image:
    """Images uint8 [N, S, S, C] averaged over boxes to [N, size, size, C], rounded to nearest, halves to even."""
    box = images.shape[1] // size
    if box == 1:
        return images
    total = np.zeros((len(images), size, size, images.shape[3]), np.uint16)
    for y in range(box):
        for x in range(box):
            total += images[:, y::box, x::box]
    means: npt.NDArray[np.float64] = np.round(total / box**2)
    return means.astype(np.uint8)
