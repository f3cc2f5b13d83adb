"""Webdataset shards: written once, shuffled, byte-identical; read back only when they match their index.

A dataset is a folder with card.json, index.json and SPLIT-00000.tar, ... A tar member pair holds a block of
images: KEY.images.npy uint8 [n, size, size, channels] and KEY.labels.npy int64 [n].
"""

import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import webdataset
from webdataset.tariterators import tar_file_iterator

from iddpm.data.sources.base import Card, Image, ImageSource, SkippedImage
from iddpm.errors import UserError
from iddpm.params import Dataset
from iddpm.randomness import PositionalRandom

FORMAT = 1
SKIPPED = "skipped.txt"
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """One tar file of the index."""

    file: str
    bytes: int
    samples: int
    sha256: str


def write_shards(source: ImageSource, dataset: Dataset, folder: Path) -> Iterator[int]:
    """Write a dataset's folder, one block of images in memory; yields the number of images read so far.

    Images that the source skips leave no gap: card.json counts them, skipped.txt names them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, list[Shard]] = {}
    skipped: dict[str, list[str]] = {}
    written = 0
    for split, count in source.card.counts.items():
        order = PositionalRandom(dataset.seed, f"shards/{split}").permutation(count, 0).tolist()
        index[split], skipped[split] = [], []
        images = _readable(source, split, order, skipped[split])
        for first in images:
            path = folder / f"{split}-{len(index[split]):05d}.tar"
            members = itertools.chain([first], itertools.islice(images, dataset.images_per_shard - 1))
            before = written
            for block in _write_shard(path, members, dataset.images_per_block):
                written += block
                yield written + sum(map(len, skipped.values()))
            index[split].append(_describe(path, written - before))
        if not index[split]:
            raise UserError(f"{dataset.source}: none of the {count} {split} images can be used: {skipped[split][0]}")
    counts = {split: sum(shard.samples for shard in shards) for split, shards in index.items()}
    card = replace(source.card, counts=counts, skipped=_write_skipped(folder / SKIPPED, skipped))
    _write_json(folder / "card.json", card.as_json())
    entries = {split: [vars(shard) for shard in shards] for split, shards in index.items()}
    _write_json(folder / "index.json", {"format": FORMAT, "seed": dataset.seed, "splits": entries})


def _readable(source: ImageSource, split: str, order: list[int], skipped: list[str]) -> Iterator[tuple[Image, int]]:
    """The images of a split in this order; why the source skips one joins `skipped`."""
    for i in order:
        try:
            yield source.read(split, i)
        except SkippedImage as reason:
            skipped.append(str(reason))


def _write_shard(path: Path, members: Iterator[tuple[Image, int]], images_per_block: int) -> Iterator[int]:
    """Yields the number of images of each block that it wrote."""
    with open(path, "wb") as stream, webdataset.TarWriter(stream, mtime=0) as writer:
        for number in itertools.count():
            block = list(itertools.islice(members, images_per_block))
            if not block:
                break
            writer.write(
                {
                    "__key__": f"{number:06d}",
                    "images.npy": np.stack([image for image, _ in block]),
                    "labels.npy": np.array([label for _, label in block], dtype=np.int64),
                }
            )
            yield len(block)


def _describe(path: Path, samples: int) -> Shard:
    with open(path, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Shard(path.name, path.stat().st_size, samples, sha256)


def _write_skipped(path: Path, skipped: dict[str, list[str]]) -> dict[str, int]:
    """A line for each skipped image; no file without any. Returns their number by split."""
    lines = [f"{split}: {line}\n" for split, lines in skipped.items() for line in sorted(lines)]
    if lines:
        path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
    return {split: len(lines) for split, lines in skipped.items() if lines}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


class ShardFolder:
    """A written dataset, opened for reading. UserError names the file that is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = self._read_json("index.json")
        try:
            if index["format"] != FORMAT:
                raise UserError(f"{folder}/index.json: format {index['format']}, this version reads {FORMAT}")
            self.splits = {split: [Shard(**entry) for entry in entries] for split, entries in index["splits"].items()}
            self.card = Card(**self._read_json("card.json"))
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder}: index.json or card.json is damaged ({error}); rerun the shard stage") from None

    @property
    def index_sha256(self) -> str:
        """Of index.json, and so of every shard."""
        return hashlib.sha256((self.folder / "index.json").read_bytes()).hexdigest()

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            raise UserError(f"{self.folder / name}: missing; rerun the shard stage") from None
        except ValueError:
            raise UserError(f"{self.folder / name}: not valid JSON; rerun the shard stage") from None

    def read(self, shard: Shard) -> tuple[Images, Labels]:
        """All images uint8 [n, size, size, channels] and labels int64 [n] of one shard, verified."""
        path = self.folder / shard.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); rerun the shard stage") from None
        if len(content) != shard.bytes:
            raise UserError(f"{path}: {len(content)} bytes, the index says {shard.bytes}; rerun the shard stage")
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            raise UserError(f"{path}: sha256 differs from the index: the file is damaged; rerun the shard stage")
        arrays: dict[str, list[npt.NDArray[np.generic]]] = {"images": [], "labels": []}
        for member in tar_file_iterator(io.BytesIO(content)):
            kind = member["fname"].split(".")[1]
            arrays[kind].append(np.load(io.BytesIO(member["data"]), allow_pickle=False))
        images, labels = np.concatenate(arrays["images"]), np.concatenate(arrays["labels"])
        if not len(images) == len(labels) == shard.samples:
            raise UserError(f"{path}: {len(images)} images, the index says {shard.samples}; rerun the shard stage")
        return images.astype(np.uint8, copy=False), labels.astype(np.int64, copy=False)

    def read_split(self, split: str, limit: int | None = None) -> tuple[Images, Labels]:
        """The first `limit` images and labels of a split, all of them by default."""
        parts, count = [], 0
        for shard in self.splits[split]:
            if limit is not None and count >= limit:
                break
            parts.append(self.read(shard))
            count += shard.samples
        images = np.concatenate([images for images, _ in parts])[:limit]
        return images, np.concatenate([labels for _, labels in parts])[:limit]
