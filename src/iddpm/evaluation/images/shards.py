"""Images of a written dataset."""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch

from iddpm.data import ShardFolder, to_tensor, to_uint8
from iddpm.data.shards import Images, Labels
from iddpm.errors import UserError
from iddpm.evaluation.images.base import ImageSet

AVERAGED_AT_ONCE = 4096
"""Images, to bound the memory."""


class ShardImages(ImageSet):
    """A split of a written dataset, averaged over areas to `size` pixels if given, on grey levels.

    UserError for a split that is not there, or a size that does not divide the dataset's.
    """

    def __init__(self, folder: ShardFolder, split: str, size: int | None = None) -> None:
        card = folder.card
        self.folder, self.split, self.name = folder, split, f"{folder.folder.name}/{split}"
        if split not in folder.splits:
            raise UserError(f"{folder.folder}: has no split {split} ({', '.join(folder.splits)})")
        self._size = size or card.size
        if card.size % self._size:
            raise UserError(f"{self.name}: {card.size} pixels cannot be averaged to {size}")
        self.count, self.shape = card.counts[split], (self._size, self._size, card.channels)

    @cached_property
    def labels(self) -> Labels | None:
        if not self.folder.card.classes:
            return None
        return np.concatenate([labels for _, labels in self._parts()])

    @property
    def averaged_to(self) -> int | None:
        """Pixels of a side; None for the dataset's own size."""
        return None if self._size == self.folder.card.size else self._size

    def _parts(self) -> Iterator[tuple[Images, Labels]]:
        return (self.folder.read(shard) for shard in self.folder.splits[self.split])

    def batches(self, size: int) -> Iterator[Images]:
        return _rebatched((self._averaged(images) for images, _ in self._parts()), size)

    def _averaged(self, images: Images) -> Images:
        if self.averaged_to is None:
            return images
        parts = [images[first : first + AVERAGED_AT_ONCE] for first in range(0, len(images), AVERAGED_AT_ONCE)]
        return np.concatenate([to_uint8(to_tensor(part, torch.device("cpu"), self._size)) for part in parts])


def _rebatched(parts: Iterable[Images], size: int) -> Iterator[Images]:
    """The images of all parts, `size` at a time."""
    rest: Images | None = None
    for part in parts:
        images = part if rest is None else np.concatenate([rest, part])
        whole = len(images) // size * size
        yield from (images[first : first + size] for first in range(0, whole, size))
        rest = images[whole:]
    if rest is not None and len(rest):
        yield rest
