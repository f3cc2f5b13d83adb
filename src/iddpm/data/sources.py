"""Where images come from. A source gives random access, so that shards are shuffled in bounded memory."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from iddpm.params import Dataset, Source

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Card:
    """What a dataset knows of itself; models take channels, size and classes from here.

    `counts` maps a split to its number of images; `classes` is 0 without labels; `source_sha256` is the
    hash of the source's content, "" before it was read.
    """

    source: str
    description: str
    channels: int
    size: int
    classes: int
    counts: dict[str, int]
    source_sha256: str = ""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


class ImageSource(Protocol):
    """Random access to the images of both splits."""

    @property
    def card(self) -> Card: ...

    def read(self, split: str, index: int) -> tuple[Image, int]:
        """Image uint8 [size, size, channels] and its label (0 without classes)."""


DIGITS_CARD = Card(
    source="digits",
    description="scikit-learn's handwritten digits (UCI ML, 1,797 images); every sixth image is the test split",
    channels=1,
    size=8,
    classes=10,
    counts={"train": 1498, "test": 299},
)


class Digits:
    """scikit-learn's digits: grey levels 0..16 scaled to 0..255."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = digits.target.astype(np.int64)
        test = np.arange(len(images)) % 6 == 5
        self._images = {"train": images[~test], "test": images[test]}
        self._labels = {"train": labels[~test], "test": labels[test]}
        sha256 = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        self.card = Card(**(asdict(DIGITS_CARD) | {"source_sha256": sha256}))
        counted = {split: len(part) for split, part in self._images.items()}
        if counted != self.card.counts or images.shape[1:] != (8, 8, 1):
            raise ValueError(f"scikit-learn's digits have changed: {counted}, {images.shape[1:]}")

    def read(self, split: str, index: int) -> tuple[Image, int]:
        return self._images[split][index], int(self._labels[split][index])


def known_card(dataset: Dataset) -> Card:
    """The dataset's card as far as it is known without reading any image."""
    return {Source.DIGITS: DIGITS_CARD}[dataset.source]


def open_source(dataset: Dataset) -> ImageSource:
    """The source behind a dataset's parameters."""
    return {Source.DIGITS: Digits}[dataset.source]()
