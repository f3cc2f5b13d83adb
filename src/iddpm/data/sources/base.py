"""What every source of images offers."""

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Card:
    """What a dataset knows of itself; models take channels, size and classes from here.

    `counts` maps a split to its number of images, {} as long as only the parameters of a folder are known;
    `classes` is 0 without labels; `source_sha256` is the hash of the source's content, "" before all of it was
    read; `skipped` maps a split to its number of unreadable files, {} where there was none.
    """

    source: str
    description: str
    channels: int
    size: int
    classes: int
    counts: dict[str, int]
    source_sha256: str = ""
    skipped: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        return asdict(self)


class SkippedImage(Exception):
    """A file that cannot be decoded, where the parameters say to skip it; the message names file and reason."""


class ImageSource(Protocol):
    """Random access to the images of both splits."""

    @property
    def card(self) -> Card:
        """Its counts are those to read; complete once every image was read."""

    def read(self, split: str, index: int) -> tuple[Image, int]:
        """Image uint8 [size, size, channels] and its label (0 without classes), or SkippedImage."""


class ArraySource:
    """Images held in memory: per split uint8 [N, size, size, channels] and int64 labels [N]."""

    def __init__(self, card: Card, splits: dict[str, tuple[Image, npt.NDArray[np.int64]]]) -> None:
        digest = hashlib.sha256()
        for split, (images, labels) in splits.items():
            expected = (card.counts[split], card.size, card.size, card.channels)
            if images.shape != expected or labels.shape != expected[:1]:
                raise ValueError(f"{card.source}: {split} images {images.shape}, expected {expected}")
            digest.update(np.ascontiguousarray(images).data)
            digest.update(np.ascontiguousarray(labels).data)
        self._splits = splits
        self.card = replace(card, source_sha256=digest.hexdigest())

    def read(self, split: str, index: int) -> tuple[Image, int]:
        images, labels = self._splits[split]
        return images[index], int(labels[index])
