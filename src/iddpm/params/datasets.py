"""Datasets: images and labels, written once as shuffled webdataset shards.

What a source reads besides its parameters lies under data/raw/SOURCE (see `iddpm.data.sources`).
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from iddpm.params.base import Section


class Source(StrEnum):
    """Where a dataset's images come from, besides image folders."""

    DIGITS = "digits"
    PHOTOS = "photos"
    CIFAR10 = "cifar10"


class Labels(StrEnum):
    """Where the labels of an image folder stand."""

    NONE = "none"
    FOLDERS = "folders"
    FILE = "file"


class Unreadable(StrEnum):
    """What happens to an image file that cannot be decoded."""

    REFUSE = "refuse"
    SKIP = "skip"


class _Dataset(Section):
    images_per_block: int = Field(256, ge=1, description="Images in one tar member; 1 suits 256-pixel images.")
    images_per_shard: int = Field(8192, ge=1, description="Images in one tar file.")
    seed: int = Field(0, ge=0, description="Of the shuffle at writing, and of the places of random crops.")


class DigitsDataset(_Dataset):
    """scikit-learn's 1,797 handwritten digits: 8x8 pixels, 1 channel, 10 classes; embedded."""

    source: Literal[Source.DIGITS]


class PhotosDataset(_Dataset):
    """Random crops of scikit-learn's two colour photographs (427x640): 3 channels, 2 classes (which one); embedded."""

    source: Literal[Source.PHOTOS]
    size: int = Field(ge=4, le=128, description="Pixels of a side.")
    train_crops: int = Field(4000, ge=1, description="Crops from the left and the right two fifths of the photographs.")
    test_crops: int = Field(500, ge=1, description="Crops from the middle fifth, which no training crop touches.")


class Cifar10Dataset(_Dataset):
    """CIFAR-10 from its python batches or archive in data/raw/cifar10: 3 channels, 10 classes."""

    source: Literal[Source.CIFAR10]
    size: Literal[4, 8, 16, 32] = Field(32, description="Pixels of a side; less than 32 by averaging boxes.")
    train_images: int = Field(50_000, ge=1, le=50_000, description="How many training images, from the first.")


class ImagesDataset(_Dataset):
    """A folder of JPEG, PNG or WebP files in data/raw/images."""

    source: str = Field(
        pattern=r"^images/[^./\\][^/\\]*$",
        description="images/FOLDER; data/raw/images/FOLDER may be a link to another place.",
    )
    size: int = Field(
        ge=4, description="Pixels of a side: halved by box averages, bicubic to size, cropped to the centre."
    )
    channels: Literal[1, 3] = Field(3, description="1 grey, 3 colour; other modes are converted.")
    labels: Labels = Field(
        Labels.NONE, description="none; folders: one subfolder per class; file: rows 'file,label' of FOLDER/labels.csv."
    )
    classes: int = Field(0, ge=0, description="Number of classes, checked against the folder; 0 for labels: none.")
    test_every: int | None = Field(
        10, ge=2, description="Every n-th image is the test split; null: the folder has subfolders train and test."
    )
    unreadable: Unreadable = Field(
        Unreadable.REFUSE, description="A file that cannot be decoded: refuse, or skip (and count in card.json)."
    )


IMAGE_FOLDER = "images/FOLDER"


def source(dataset: Any) -> Any:
    """The tag by which a dataset's type is chosen; pydantic's messages hold this function's name."""
    named = dataset.get("source") if isinstance(dataset, dict) else getattr(dataset, "source", None)
    return IMAGE_FOLDER if isinstance(named, str) and named.startswith("images/") else named


Dataset = Annotated[
    Annotated[DigitsDataset, Tag(Source.DIGITS)]
    | Annotated[PhotosDataset, Tag(Source.PHOTOS)]
    | Annotated[Cifar10Dataset, Tag(Source.CIFAR10)]
    | Annotated[ImagesDataset, Tag(IMAGE_FOLDER)],
    Discriminator(source),
]
