"""What every set of images offers, and images in memory."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iddpm.data.shards import Images, Labels

HASHED_AT_ONCE = 256
"""Images."""


class Statistics(NamedTuple):
    """Mean float64 [D] and covariance float64 [D, D] of the features of a whole dataset, and the sha256 of both."""

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    sha256: str


class ImageSet(ABC):
    """`count` images of one `shape` (height, width, channels), with int64 labels [count] or None.

    `name` is for messages, `notes` are lines for whoever scores the images. Reading raises UserError with the name of a
    damaged file.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    has_statistics: bool = False
    """Whether these images are a part of a dataset, and come with the statistics of the whole of it."""

    @property
    @abstractmethod
    def labels(self) -> Labels | None:
        """The class of each image."""

    @property
    def statistics(self) -> Statistics | None:
        """Where it has them. UserError when they are none; that costs seconds."""
        return None

    @abstractmethod
    def batches(self, size: int) -> Iterator[Images]:
        """All images in order, uint8 [size, H, W, C] at a time, the rest at the end."""

    def take(self, indices: Sequence[int]) -> Images:
        """The images uint8 [len(indices), H, W, C] at these places; reads the stream up to the last of them."""
        taken = np.empty((len(indices), *self.shape), np.uint8)
        first, last = 0, max(indices, default=-1)
        if last >= self.count or min(indices, default=0) < 0:
            raise IndexError(f"{self.name}: {self.count} images have no place {last}")
        for batch in self.batches(HASHED_AT_ONCE):
            if first > last:
                break
            for place, index in enumerate(indices):
                if first <= index < first + len(batch):
                    taken[place] = batch[index - first]
            first += len(batch)
        return taken

    @cached_property
    def sha256(self) -> str:
        """Of count, shape and the pixels in order: the same images have the same wherever they are kept."""
        digest = hashlib.sha256(repr((self.count, *self.shape)).encode())
        for batch in self.batches(HASHED_AT_ONCE):
            digest.update(np.ascontiguousarray(batch).data)
        return digest.hexdigest()


class ArrayImages(ImageSet):
    """Images uint8 [N, H, W, C] held in memory."""

    labels: Labels | None = None

    def __init__(self, images: Images, labels: Labels | None = None, name: str = "images") -> None:
        self.images, self.labels, self.name = images, labels, name
        self.count, *shape = images.shape
        self.shape = (shape[0], shape[1], shape[2])

    def batches(self, size: int) -> Iterator[Images]:
        return (self.images[first : first + size] for first in range(0, self.count, size))

    def take(self, indices: Sequence[int]) -> Images:
        return self.images[np.asarray(indices, np.int64)]
