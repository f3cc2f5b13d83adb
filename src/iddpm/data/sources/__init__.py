"""Where images come from. A source gives random access, so that shards are shuffled in bounded memory.

Each source has a module here. What it reads lies in data/raw/SOURCE of the project; digits and photos come
with scikit-learn.
"""

from pathlib import Path

from iddpm.data.sources import cifar10, digits, images, photos
from iddpm.data.sources.base import Card, ImageSource
from iddpm.data.sources.digits import Digits
from iddpm.params import Cifar10Dataset, Dataset, DigitsDataset, ImagesDataset, PhotosDataset

__all__ = ["Card", "Digits", "ImageSource", "known_card", "open_source"]


def known_card(dataset: Dataset) -> Card:
    """The dataset's card as far as it is known without reading any image: of a folder not the counts."""
    match dataset:
        case DigitsDataset():
            return digits.CARD
        case PhotosDataset():
            return photos.card(dataset)
        case Cifar10Dataset():
            return cifar10.card(dataset)
        case ImagesDataset():
            return images.card(dataset)


def open_source(dataset: Dataset, raw: Path) -> ImageSource:
    """The source behind a dataset's parameters; `raw` is the project's folder data/raw."""
    match dataset:
        case DigitsDataset():
            return Digits()
        case PhotosDataset():
            return photos.Photos(dataset)
        case Cifar10Dataset():
            return cifar10.Cifar10(dataset, raw / "cifar10")
        case ImagesDataset():
            return images.ImageFolder(dataset, raw / dataset.source)
