"""The .npz files of the field, and what else they may hold: labels, statistics of a whole dataset."""

import contextlib
import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from iddpm.data.shards import Images, Labels
from iddpm.errors import UserError
from iddpm.evaluation.images.base import ImageSet, Statistics

STATISTICS = {"mu", "sigma"}
ROUNDING = 1e-5
"""By which a covariance may miss its symmetry or have a negative eigenvalue, as a fraction of its largest one."""

READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzImages(ImageSet):
    """Images arr_0 uint8 [N, H, W, C] or grey [N, H, W], and maybe labels arr_1 [N], whole numbers of any type.

    Nothing is unpickled. UserError names the file and what is wrong with it.
    """

    labels: Labels | None = None

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        with _npz_errors(path), zipfile.ZipFile(path) as archive:
            self._arrays = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            if "arr_0" not in self._arrays:
                if set(self._arrays) >= STATISTICS:
                    raise UserError(
                        f"{path}: holds the statistics mu and sigma of features, and no images; scores need the images"
                    )
                raise UserError(f"{path}: has no array arr_0, where images are looked for ({', '.join(self._arrays)})")
            with archive.open("arr_0.npy") as stream:
                self.count, self.shape = self._read_header(stream, archive.getinfo("arr_0.npy").file_size)
        self.has_statistics = set(self._arrays) >= STATISTICS
        if "arr_1" in self._arrays:
            self.labels = self._read_labels()

    def _read_header(self, stream: IO[bytes], size: int) -> tuple[int, tuple[int, int, int]]:
        """Count and shape of the images; the stream, of `size` bytes in all, then stands at the first pixel."""
        shape, by_columns, dtype = _array_header(stream)
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

    def _read_labels(self) -> Labels | None:
        """None, and a note, where arr_1 holds something else than a whole number for each image."""
        with _npz_errors(self.path), zipfile.ZipFile(self.path) as archive, archive.open("arr_1.npy") as stream:
            shape, _, dtype = _array_header(stream)
        if len(shape) == 1 and dtype.kind in "iuf":
            if shape[0] != self.count:
                raise UserError(f"{self.path}: arr_1 holds {shape[0]} labels for the {self.count} images of arr_0")
            numbers = self._load("arr_1")
            with np.errstate(invalid="ignore"):
                labels: Labels = numbers.astype(np.int64)
            if (labels == numbers).all():
                return labels
        self.notes += (
            f"{self.path}: arr_1, {dtype} {list(shape)}, is ignored: labels are whole numbers [{self.count}]",
        )
        return None

    @cached_property
    def statistics(self) -> Statistics | None:
        """mu and sigma, of which OpenAI's reference files say: of the Inception features of the whole dataset."""
        if not self.has_statistics:
            return None
        mean, covariance = self._load("mu"), self._load("sigma")
        kinds = mean.dtype.kind + covariance.dtype.kind
        if kinds != "ff" or mean.ndim != 1 or not mean.size or covariance.shape != 2 * mean.shape:
            raise UserError(
                f"{self.path}: mu is {mean.dtype} {list(mean.shape)} and sigma {covariance.dtype} "
                f"{list(covariance.shape)}; statistics of D features are floats [D] and [D, D]"
            )
        mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise UserError(f"{self.path}: mu and sigma are not all finite")
        if np.abs(covariance - covariance.T).max() > ROUNDING * np.abs(covariance).max():
            raise UserError(f"{self.path}: sigma is not symmetric, so it is no covariance")
        variances = np.linalg.eigvalsh(covariance)
        if variances[0] < -ROUNDING * variances[-1]:
            raise UserError(
                f"{self.path}: sigma has the negative eigenvalue {variances[0]:.3g}, so it is no covariance"
            )
        return Statistics(mean, covariance, hashlib.sha256(mean.tobytes() + covariance.tobytes()).hexdigest())

    def _load(self, name: str) -> npt.NDArray[Any]:
        with _npz_errors(self.path), np.load(self.path, allow_pickle=False) as arrays:
            array: npt.NDArray[Any] = arrays[name]
        return array

    def batches(self, size: int) -> Iterator[Images]:
        with _npz_errors(self.path), zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as stream:
            if self._read_header(stream, archive.getinfo("arr_0.npy").file_size) != (self.count, self.shape):
                raise ValueError("the file has changed")
            for first in range(0, self.count, size):
                shape = (min(size, self.count - first), *self.shape)
                pixels = bytearray(stream.read(int(np.prod(shape))))  # unlike bytes these may be written to
                yield np.frombuffer(pixels, np.uint8).reshape(shape)


def _array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns lie together, and type of an .npy array."""
    version = np.lib.format.read_magic(stream)
    if version not in READ_HEADER:
        raise ValueError(f"version {version} of the npy format, which plain arrays do not need")
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = READ_HEADER[version](stream)
    return header


@contextlib.contextmanager
def _npz_errors(path: Path) -> Iterator[None]:
    """Whatever a damaged zip file or npy header raises, as a UserError of one line."""
    try:
        yield
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"{path}: not a readable npz file ({reason or 'cut short'})") from None
