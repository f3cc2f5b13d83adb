"""Sets of images to be scored: an .npz file of the field, a folder of images, shards, an array.

Read as a stream, so that memory does not grow with the set.
"""

import contextlib
import hashlib
import lzma
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from iddpm.data import ShardFolder, to_tensor
from iddpm.data.shards import Images, Labels
from iddpm.data.sources.decoding import Header, decode, read_header
from iddpm.data.sources.images import image_files
from iddpm.data.sources.labels import found_labels
from iddpm.errors import UserError

SAMPLES = "samples.npz"
"""In a folder of runs/samples."""

INDEX = "index.json"
"""In a folder of shards."""

HASHED_AT_ONCE = 256
"""Images."""

AVERAGED_AT_ONCE = 4096
"""Images, to bound the memory."""


class ImageSet(ABC):
    """`count` images of one `shape` (height, width, channels), with int64 labels [count] or None.

    `name` is for messages. Reading raises UserError with the name of a damaged file.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    note: str = ""
    """What whoever scores these images should know."""

    @property
    @abstractmethod
    def labels(self) -> Labels | None:
        """The class of each image."""

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


class NpzImages(ImageSet):
    """The npz of the field: arr_0 uint8 [N, H, W, C] or grey [N, H, W], and maybe integer labels arr_1 [N].

    Nothing is unpickled. UserError names the file and what is wrong with it.
    """

    labels: Labels | None = None

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        with _npz_errors(path), zipfile.ZipFile(path) as archive:
            arrays = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            if "arr_0" not in arrays:
                if {"mu", "sigma"} <= set(arrays):
                    raise UserError(
                        f"{path}: holds the statistics mu and sigma of features, and no images; scores need the images"
                    )
                raise UserError(f"{path}: has no array arr_0, where images are looked for ({', '.join(arrays)})")
            with archive.open("arr_0.npy") as stream:
                self.count, self.shape = self._read_header(stream, archive.getinfo("arr_0.npy").file_size)
        if {"mu", "sigma"} <= set(arrays):
            self.note = (
                f"{path} also holds statistics mu and sigma, perhaps of other images than its {self.count:,}; they are "
                "not used, so the distance is not one to them"
            )
        if "arr_1" in arrays:
            self.labels = self._read_labels()

    def _read_header(self, stream: IO[bytes], size: int) -> tuple[int, tuple[int, int, int]]:
        """Count and shape of the images; the stream, of `size` bytes in all, then stands at the first pixel."""
        version = np.lib.format.read_magic(stream)
        if version not in READ_HEADER:
            raise ValueError(f"version {version} of the npy format, which image arrays do not need")
        shape, by_columns, dtype = READ_HEADER[version](stream)
        height_width_channels = (*shape[1:], 1) if len(shape) == 3 else shape[1:]
        if dtype != np.uint8 or len(height_width_channels) != 3 or height_width_channels[2] not in (1, 3):
            raise UserError(
                f"{self.path}: arr_0 is {dtype} {list(shape)}; images are uint8 [N, height, width, 3], or 1 channel or "
                "none for grey"
            )
        if by_columns:
            raise UserError(f"{self.path}: arr_0 is stored column by column; save np.ascontiguousarray of it")
        if 0 in shape:
            raise UserError(f"{self.path}: arr_0 {list(shape)} holds no image")
        expected = stream.tell() + int(np.prod(shape, dtype=object))
        if size != expected:
            raise ValueError(f"arr_0 has {size} bytes, its header says {expected}")
        height, width, channels = height_width_channels
        return shape[0], (height, width, channels)

    def _read_labels(self) -> Labels:
        with _npz_errors(self.path), np.load(self.path, allow_pickle=False) as arrays:
            labels: npt.NDArray[Any] = arrays["arr_1"]
        if labels.shape != (self.count,) or labels.dtype.kind not in "iu":
            raise UserError(
                f"{self.path}: arr_1 is {labels.dtype} {list(labels.shape)}; the labels of {self.count} images are as "
                "many integers"
            )
        as_integers: Labels = labels.astype(np.int64)
        return as_integers

    def batches(self, size: int) -> Iterator[Images]:
        with _npz_errors(self.path), zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as stream:
            if self._read_header(stream, archive.getinfo("arr_0.npy").file_size) != (self.count, self.shape):
                raise ValueError("the file has changed")
            for first in range(0, self.count, size):
                shape = (min(size, self.count - first), *self.shape)
                pixels = bytearray(stream.read(int(np.prod(shape))))  # unlike bytes these may be written to
                yield np.frombuffer(pixels, np.uint8).reshape(shape)


READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@contextlib.contextmanager
def _npz_errors(path: Path) -> Iterator[None]:
    """Whatever a damaged zip file or npy header raises, as a UserError of one line."""
    try:
        yield
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"{path}: not a readable npz file ({reason or 'cut short'})") from None


class FolderImages(ImageSet):
    """The PNG, JPEG and WebP files below a folder in the order of their paths, all of one size.

    They are grey if all files are, else colour. Labels are those of its labels.csv, else of its subfolders.
    UserError names the first file of another size, or that cannot be read.
    """

    labels: Labels | None = None

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)
        self.files, _ = image_files(folder)
        if not self.files:
            raise UserError(f"{folder}: no PNG, JPEG or WebP file in this folder")
        self.count = len(self.files)
        headers = [self._header(file) for file in self.files]
        for file, header in zip(self.files, headers, strict=True):
            if header[:2] != headers[0][:2]:
                raise UserError(
                    f"{folder / file}: {header.height}x{header.width} pixels, but {self.files[0]} has "
                    f"{headers[0].height}x{headers[0].width}; images that are scored have one size"
                )
        self._channels = max(header.channels for header in headers)
        self.shape = (headers[0].height, headers[0].width, self._channels)
        labels = found_labels(folder, self.files)
        if labels is not None:
            self.labels = np.array([labels[file] for file in self.files], np.int64)

    def _header(self, file: str) -> Header:
        try:
            return read_header(self.folder / file)
        except ValueError as error:
            raise UserError(f"{self.folder / file}: cannot be used ({error})") from None

    def _read(self, file: str) -> Images:
        try:
            return np.asarray(decode((self.folder / file).read_bytes(), self._channels)).reshape(self.shape)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / file}: cannot be used ({error})") from None

    def batches(self, size: int) -> Iterator[Images]:
        with ThreadPoolExecutor() as decoders:
            for first in range(0, self.count, size):
                yield np.stack(list(decoders.map(self._read, self.files[first : first + size])))

    def take(self, indices: Sequence[int]) -> Images:
        images = [self._read(self.files[index]) for index in indices]
        return np.array(images, np.uint8).reshape(len(indices), *self.shape)


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

    def _parts(self) -> Iterator[tuple[Images, Labels]]:
        return (self.folder.read(shard) for shard in self.folder.splits[self.split])

    def batches(self, size: int) -> Iterator[Images]:
        return _rebatched((self._averaged(images) for images, _ in self._parts()), size)

    def _averaged(self, images: Images) -> Images:
        if self._size == self.folder.card.size:
            return images
        parts = []
        for first in range(0, len(images), AVERAGED_AT_ONCE):
            x = to_tensor(images[first : first + AVERAGED_AT_ONCE], torch.device("cpu"), self._size)
            parts.append(((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
        return np.concatenate(parts)


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


def open_images(text: str, root: Path, split: str = "train") -> ImageSet:
    """What a user names: an .npz file, a folder of images, a folder of shards, or a dataset of the project at `root`.

    NAME/test is a split of a dataset whatever `split` says. A folder with samples.npz (runs/samples/NAME) is that
    file. UserError lists the datasets when it is none of these.
    """
    if not text:
        raise UserError("no .npz file, folder of images, or dataset is named")
    path, datasets = Path(text), root / "data" / "shards"
    if (path / SAMPLES).is_file():
        return NpzImages(path / SAMPLES)
    if path.is_file() or path.suffix == ".npz":
        return NpzImages(path)
    for place in (path, datasets / text):
        if (place / INDEX).is_file():
            return ShardImages(ShardFolder(place), split)
        if place.is_dir():
            return FolderImages(place)
        if (place.parent / INDEX).is_file():
            return ShardImages(ShardFolder(place.parent), place.name)
    known = ", ".join(sorted(folder.parent.name for folder in datasets.glob(f"*/{INDEX}"))) or "none are written"
    raise UserError(f"{text}: no .npz file, folder of images, or dataset written to data/shards ({known})")
