"""The exact training stream: which images stand at which position is a pure function of (seed, position)."""

from collections import OrderedDict

import numpy as np

from iddpm.data.shards import Images, Labels, Shard, ShardFolder
from iddpm.randomness import PositionalRandom


class TrainingStream:
    """Random access to the endless, shuffled order of a split.

    Every epoch visits each image once. Its order: the shards are permuted, `window_shards` of them at a time are
    held in memory, and the images within such a window are permuted. Any worker can ask for any positions, so
    the global batch is the same for every number of workers, and a resumed run needs only its position.
    """

    def __init__(self, folder: ShardFolder, split: str, seed: int, window_shards: int = 8) -> None:
        self.folder, self.shards, self.window_shards = folder, folder.splits[split], window_shards
        self.epoch_size = sum(shard.samples for shard in self.shards)
        self._shard_order = PositionalRandom(seed, "stream/shards")
        self._image_order = PositionalRandom(seed, "stream/images")
        self._loaded: OrderedDict[str, tuple[Images, Labels]] = OrderedDict()
        self._window: tuple[tuple[int, int], Images, Labels] | None = None

    def batch(self, first: int, count: int) -> tuple[Images, Labels]:
        """Images uint8 [count, size, size, channels] and labels int64 [count] at positions first, first + 1, ..."""
        images, labels = [], []
        while count > 0:
            epoch, offset = divmod(first, self.epoch_size)
            window_images, window_labels, offset = self._at(epoch, offset)
            taken = min(count, len(window_images) - offset)
            images.append(window_images[offset : offset + taken])
            labels.append(window_labels[offset : offset + taken])
            first, count = first + taken, count - taken
        return np.concatenate(images), np.concatenate(labels)

    def _at(self, epoch: int, offset: int) -> tuple[Images, Labels, int]:
        """The shuffled window that holds place `offset` of an epoch, and the place within it."""
        order = self._shard_order.permutation(len(self.shards), epoch).tolist()
        for number, first in enumerate(range(0, len(order), self.window_shards)):
            members = [self.shards[i] for i in order[first : first + self.window_shards]]
            size = sum(shard.samples for shard in members)
            if offset < size:
                return *self._load_window((epoch, number), members), offset
            offset -= size
        raise AssertionError("offset lies beyond the epoch")

    def _load_window(self, key: tuple[int, int], members: list[Shard]) -> tuple[Images, Labels]:
        if self._window is None or self._window[0] != key:
            parts = [self._load(shard) for shard in members]
            images = np.concatenate([part[0] for part in parts])
            labels = np.concatenate([part[1] for part in parts])
            epoch, number = key
            windows = -(-len(self.shards) // self.window_shards)
            order = self._image_order.permutation(len(images), epoch * windows + number).numpy()
            self._window = (key, images[order], labels[order])
        return self._window[1], self._window[2]

    def _load(self, shard: Shard) -> tuple[Images, Labels]:
        if shard.file not in self._loaded:
            while len(self._loaded) >= self.window_shards:
                self._loaded.popitem(last=False)
            self._loaded[shard.file] = self.folder.read(shard)
        return self._loaded[shard.file]
