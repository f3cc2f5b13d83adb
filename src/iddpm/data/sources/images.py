"""A folder of image files."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from iddpm.data.resizing import resize_and_crop
from iddpm.data.sources.base import Card, Image, SkippedImage
from iddpm.data.sources.decoding import FORMATS, decode
from iddpm.data.sources.labels import LABELS_FILE, read_labels
from iddpm.errors import UserError
from iddpm.params import ImagesDataset, Split, Unreadable


def card(dataset: ImagesDataset) -> Card:
    """Known without looking into the folder; `classes` is as declared."""
    every = dataset.test_every
    split = "subfolders train and test" if every is None else f"one in {every} for test"
    return Card(
        source=dataset.source,
        description=f"the JPEG, PNG and WebP files of {dataset.source}, box-halved, resized (bicubic) and "
        f"cropped to the centre; {split}",
        channels=dataset.channels,
        size=dataset.size,
        classes=dataset.classes,
        counts={},
    )


class ImageFolder:
    """The image files below `folder`, in the order of their paths. A file is opened only when it is read."""

    def __init__(self, dataset: ImagesDataset, folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; put the images there, or a link to their folder")
        images, self._others = image_files(folder)
        self._files = self._split(images)
        self._labels = read_labels(dataset, folder, self._files)
        self._digests: dict[str, str] = {}

    def _split(self, files: list[str]) -> dict[str, list[str]]:
        every = self._dataset.test_every
        if every is None:
            splits = {split.value: [file for file in files if file.startswith(f"{split}/")] for split in Split}
            mend = "test_every is null, so images must lie in the subfolders train and test"
        else:
            test = files[every - 1 :: every]
            splits = {"train": [file for i, file in enumerate(files) if i % every != every - 1], "test": test}
            mend = f"test_every is {every}, so at least {every} images are needed"
        for split, members in splits.items():
            if not members:
                raise UserError(f"{self._folder}: no image for the {split} split among {len(files)} files; {mend}")
        return splits

    @property
    def card(self) -> Card:
        counts = {split: len(files) for split, files in self._files.items()}
        complete = len(self._digests) == sum(counts.values())
        known = card(self._dataset)
        kinds = ", ".join(sorted({Path(name).suffix or name for name in self._others}))
        aside = f"; {len(self._others)} files of other kinds left aside ({kinds})" if self._others else ""
        return replace(
            known,
            description=known.description + aside,
            counts=counts,
            source_sha256=self._sha256() if complete else "",
        )

    def _sha256(self) -> str:
        """Of every file's path, content and label."""
        digest = hashlib.sha256()
        for files in self._files.values():
            for file in files:
                digest.update(os.fsencode(f"{file}\0{self._digests[file]}\0{self._labels.get(file, 0)}\n"))
        return digest.hexdigest()

    def read(self, split: str, index: int) -> tuple[Image, int]:
        file = self._files[split][index]
        path = self._folder / file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        self._digests[file] = hashlib.sha256(content).hexdigest()
        try:
            image = resize_and_crop(decode(content, self._dataset.channels), self._dataset.size)
        except ValueError as error:
            if self._dataset.unreadable is Unreadable.SKIP:
                raise SkippedImage(f"{file}: {error}") from None
            raise UserError(
                f"{path}: cannot be used ({error}); remove it, or set the dataset's unreadable: skip"
            ) from None
        return image, self._labels.get(file, 0)


def image_files(folder: Path) -> tuple[list[str], list[str]]:
    """Paths below `folder`, '/' between their parts, sorted: those with an image's suffix, and all others.

    The labels file is neither, nor is what is hidden by a name that begins with a dot, as macOS and tools leave it.
    UserError for a link to a folder: DVC would not notice what changes behind it, and
    such links can make a loop.
    """
    images: list[str] = []
    others: list[str] = []
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if link := next((path for name in subfolders if (path := Path(place, name)).is_symlink()), None):
            raise UserError(
                f"{link}: is a link to a folder, which is not followed; put the files themselves there, "
                f"or gather all images elsewhere and make {folder} the link"
            )
        relative = Path(place).relative_to(folder)
        for name in names:
            if not name.startswith("."):
                (images if Path(name).suffix.lower() in FORMATS else others).append((relative / name).as_posix())
    return sorted(images), sorted(set(others) - {LABELS_FILE})
