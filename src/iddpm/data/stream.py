"""The exact training stream: which images stand at which position is a pure function of (seed, position)."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iddpm.data.shards import Images, Labels, ShardFolder
from iddpm.randomness import PositionalRandom

Located = dict[int, list[tuple[int, int]]]
"""By the number of a shard: positions of the stream, and the rows of the shard that stand there."""


class Window(NamedTuple):
    """The `number`-th shards of an epoch whose images are permuted together."""

    epoch: int
    number: int
    shards: tuple[int, ...]


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
        self._loaded: OrderedDict[int, tuple[Images, Labels]] = OrderedDict()
        self._window: tuple[Window, Images, Labels] | None = None
        self._kept: dict[int, tuple[Images, int]] = {}

    def batch(self, first: int, count: int) -> tuple[Images, Labels]:
        """Images uint8 [count, size, size, channels] and labels int64 [count] at positions first, first + 1, ..."""
        positions = range(first, first + count)
        if self._kept.keys() >= set(positions):
            kept = [self._kept[position] for position in positions]
            return np.stack([image for image, _ in kept]), np.array([label for _, label in kept], dtype=np.int64)
        images, labels = [], []
        for window, places in self._pieces(first, count):
            window_images, window_labels = self._load_window(window)
            images.append(window_images[places])
            labels.append(window_labels[places])
        return np.concatenate(images), np.concatenate(labels)

    def locate(self, firsts: Sequence[int], count: int) -> Located:
        """Where the images at `count` positions from each of `firsts` on lie."""
        found: Located = defaultdict(list)
        for first in firsts:
            position = first
            for window, places in self._pieces(first, count):
                rows = [(shard, row) for shard in window.shards for row in range(self.shards[shard].samples)]
                for place in self._order(window)[places].tolist():
                    shard, row = rows[place]
                    found[shard].append((position, row))
                    position += 1
        return found

    def keep(self, located: Located) -> Iterator[int]:
        """Hold these images, so that `batch` need not read for them; yields the number of shards read.

        Reads each shard once; batches of different epochs load a window each otherwise.
        """
        for done, (shard, found) in enumerate(located.items(), 1):
            images, labels = self.folder.read(self.shards[shard])
            self._kept |= {position: (images[row].copy(), int(labels[row])) for position, row in found}
            yield done

    def _pieces(self, first: int, count: int) -> Iterator[tuple[Window, slice]]:
        """The windows that hold `count` positions from `first` on, and which places of each."""
        while count > 0:
            epoch, offset = divmod(first, self.epoch_size)
            window, offset = self._at(epoch, offset)
            taken = min(count, self._size(window) - offset)
            yield window, slice(offset, offset + taken)
            first, count = first + taken, count - taken

    def _at(self, epoch: int, offset: int) -> tuple[Window, int]:
        """The window that holds place `offset` of an epoch, and the place within it."""
        order = self._shard_order.permutation(len(self.shards), epoch).tolist()
        for number, first in enumerate(range(0, len(order), self.window_shards)):
            window = Window(epoch, number, tuple(order[first : first + self.window_shards]))
            if offset < self._size(window):
                return window, offset
            offset -= self._size(window)
        raise AssertionError("offset lies beyond the epoch")

    def _size(self, window: Window) -> int:
        return sum(self.shards[shard].samples for shard in window.shards)

    def _order(self, window: Window) -> npt.NDArray[np.int64]:
        """Which image of the window's shards, counted one shard after another, stands at each place."""
        windows = -(-len(self.shards) // self.window_shards)
        position = window.epoch * windows + window.number
        order: npt.NDArray[np.int64] = self._image_order.permutation(self._size(window), position).numpy()
        return order

    def _load_window(self, window: Window) -> tuple[Images, Labels]:
        if self._window is None or self._window[0] != window:
            parts = [self._load(shard) for shard in window.shards]
            images = np.concatenate([part[0] for part in parts])
            labels = np.concatenate([part[1] for part in parts])
            order = self._order(window)
            self._window = (window, images[order], labels[order])
        return self._window[1], self._window[2]

    def _load(self, shard: int) -> tuple[Images, Labels]:
        if shard not in self._loaded:
            while len(self._loaded) >= self.window_shards:
                self._loaded.popitem(last=False)
            self._loaded[shard] = self.folder.read(self.shards[shard])
        return self._loaded[shard]
