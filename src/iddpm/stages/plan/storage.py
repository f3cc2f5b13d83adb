"""Bytes on disk of what stages write."""

import math

from iddpm.data import Card
from iddpm.params import Dataset, Training
from iddpm.stages.plan.memory import NUMBER

TAR_HEADER, TAR_RECORD, NPY_HEADER = 512, 10_240, 128
LABEL = 8
"""Bytes of an int64 label."""


def image_bytes(count: int, size: int, channels: int) -> int:
    """Of uint8 images with their labels."""
    return count * (size * size * channels + LABEL)


def shard_bytes(dataset: Dataset, card: Card, counts: dict[str, int]) -> int:
    """Of a dataset's tar files."""
    return sum(_split_bytes(dataset, card, count) for count in counts.values())


def _split_bytes(dataset: Dataset, card: Card, count: int) -> int:
    whole, rest = divmod(count, dataset.images_per_shard)
    return whole * _tar_bytes(dataset, card, dataset.images_per_shard) + (
        _tar_bytes(dataset, card, rest) if rest else 0
    )


def _tar_bytes(dataset: Dataset, card: Card, images: int) -> int:
    whole, rest = divmod(images, dataset.images_per_block)
    size = whole * _block_bytes(card, dataset.images_per_block) + (_block_bytes(card, rest) if rest else 0)
    return _rounded_up(size + 2 * TAR_HEADER, TAR_RECORD)  # two empty headers end a tar


def _block_bytes(card: Card, images: int) -> int:
    members = images * card.size**2 * card.channels, images * LABEL
    return sum(TAR_HEADER + _rounded_up(NPY_HEADER + member, TAR_HEADER) for member in members)


def _rounded_up(size: int, unit: int) -> int:
    return math.ceil(size / unit) * unit


def training_bytes(parameters: int, training: Training) -> int:
    """A finished model, its weights and their average, and every kept snapshot, which has Adam's moments besides."""
    kept = 0 if training.snapshot_every is None else training.steps // training.snapshot_every
    return NUMBER * parameters * (2 + 4 * kept)


def gan_bytes(generator: int, discriminator: int) -> int:
    """A finished SNGAN: generator, its average, discriminator."""
    return NUMBER * (2 * generator + discriminator)


def resume_bytes(parameters: int) -> int:
    """The two checkpoints that an unfinished training keeps in work/."""
    return 2 * 4 * NUMBER * parameters
