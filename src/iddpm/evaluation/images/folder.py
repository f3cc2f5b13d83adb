"""A folder of image files."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from iddpm.data.shards import Images, Labels
from iddpm.data.sources.decoding import Header, decode, read_header
from iddpm.data.sources.images import image_files
from iddpm.data.sources.labels import LABELS_FILE, found_labels
from iddpm.errors import UserError
from iddpm.evaluation.images.base import ImageSet

NOT_READ = {".avif", ".bmp", ".gif", ".heic", ".jp2", ".pgm", ".ppm", ".tga", ".tif", ".tiff"}
"""Suffixes of images in other formats: without them a score would be one of a part of the set."""


class FolderImages(ImageSet):
    """The PNG, JPEG and WebP files below a folder in the order of their paths, all of one size.

    They are grey if all files are, else colour. Labels are those of its labels.csv, else of its subfolders.
    UserError names the first file of another size or format, or that cannot be read.
    """

    labels: Labels | None = None

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)
        self.files, others = image_files(folder)
        if unread := next((file for file in others if Path(file).suffix.lower() in NOT_READ), None):
            raise UserError(f"{folder / unread}: is not read; convert it to PNG, or move it elsewhere")
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
        self._read_labels()

    def _read_labels(self) -> None:
        found = found_labels(self.folder, self.files)
        if found is None:
            return
        self.labels = np.array([found[file] for file in self.files], np.int64)
        if not (self.folder / LABELS_FILE).exists():
            first, last = (self.files[place].split("/")[0] for place in (0, -1))
            self.notes = (
                f"{self.folder}: its subfolders are classes, numbered in the order of their names: {first} is 0, "
                f"{last} is {self.labels.max()}",
            )

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
