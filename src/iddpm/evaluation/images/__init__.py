"""Sets of images to be scored: an .npz file of the field, a folder of images, shards, an array.

Read as a stream, so that memory does not grow with the set.
"""

from pathlib import Path

from iddpm.data import ShardFolder
from iddpm.errors import UserError
from iddpm.evaluation.images.base import ArrayImages, ImageSet, Statistics
from iddpm.evaluation.images.folder import FolderImages
from iddpm.evaluation.images.npz import NpzImages
from iddpm.evaluation.images.shards import ShardImages

__all__ = ["ArrayImages", "FolderImages", "ImageSet", "NpzImages", "ShardImages", "Statistics", "open_images"]

SAMPLES = "samples.npz"
"""In a folder of runs/samples."""

INDEX = "index.json"
"""In a folder of shards."""


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
