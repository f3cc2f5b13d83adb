"""Webdataset shards: written once, shuffled, byte-identical; read back only when they match their index.

A dataset is a folder with card.json, index.json and SPLIT-00000.tar, ... A tar member pair holds a block of
images: KEY.images.npy uint8 [n, size, size, channels] and KEY.labels.npy int64 [n].
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import webdataset
from webdataset.tariterators import tar_file_iterator

from iddpm.data.sources import Card, ImageSource
from iddpm.errors import UserError
from iddpm.params import Dataset
from iddpm.randomness import PositionalRandom

FORMAT = 1
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
    """Write a dataset's folder; yields the number of images written so far, for progress."""
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, list[dict[str, object]]] = {}
    written = 0
    for split, count in source.card.counts.items():
        order = PositionalRandom(dataset.seed, f"shards/{split}").permutation(count, 0).numpy()
        index[split] = []
        for number, first in enumerate(range(0, count, dataset.images_per_shard)):
            path = folder / f"{split}-{number:05d}.tar"
            members = order[first : first + dataset.images_per_shard]
            for done in _write_shard(path, source, split, members, dataset.images_per_block):
                yield written + done
            written += len(members)
            content = path.read_bytes()
            shard = Shard(path.name, len(content), len(members), hashlib.sha256(content).hexdigest())
            index[split].append(vars(shard))
    _write_json(folder / "card.json", source.card.as_json())
    _write_json(folder / "index.json", {"format": FORMAT, "seed": dataset.seed, "splits": index})


def _write_shard(path: Path, source: ImageSource, split: str, members: Labels, block: int) -> Iterator[int]:
    with open(path, "wb") as stream, webdataset.TarWriter(stream, mtime=0) as writer:
        for number, first in enumerate(range(0, len(members), block)):
            pairs = [source.read(split, int(i)) for i in members[first : first + block]]
            writer.write(
                {
                    "__key__": f"{number:06d}",
                    "images.npy": np.stack([image for image, _ in pairs]),
                    "labels.npy": np.array([label for _, label in pairs], dtype=np.int64),
                }
            )
            yield first + len(pairs)


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
