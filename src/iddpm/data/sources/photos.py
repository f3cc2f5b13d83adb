"""Random crops of scikit-learn's two colour photographs."""

import hashlib
from dataclasses import replace

import torch

from iddpm.data.sources.base import Card, Image
from iddpm.params import PhotosDataset
from iddpm.randomness import PositionalRandom

HEIGHT, WIDTH = 427, 640
COLUMNS = {"train": ((0, 256), (384, WIDTH)), "test": ((256, 384),)}
"""First and one past the last column of the parts that a split's crops lie in; the middle is the most textured."""


def card(dataset: PhotosDataset) -> Card:
    """Known before the photographs are opened."""
    return Card(
        source=dataset.source,
        description="random crops at full resolution of scikit-learn's two photographs (china.jpg, flower.jpg; "
        "427 x 640): of the left and right two fifths for training, of the middle fifth for test; label: the "
        "photograph",
        channels=3,
        size=dataset.size,
        classes=2,
        counts={"train": dataset.train_crops, "test": dataset.test_crops},
    )


class Photos:
    """The photographs take turns; a crop's place, in `corners` by split, depends on (seed, split, index) alone."""

    def __init__(self, dataset: PhotosDataset) -> None:
        from sklearn.datasets import load_sample_images

        self._photos: list[Image] = load_sample_images().images
        known = card(dataset)
        if [photo.shape for photo in self._photos] != [(HEIGHT, WIDTH, 3)] * known.classes:
            raise ValueError("scikit-learn's photographs have changed")
        sha256 = hashlib.sha256(b"".join(photo.tobytes() for photo in self._photos)).hexdigest()
        self.card = replace(known, source_sha256=sha256)
        self.corners = {split: self._draw(split, count, dataset.seed) for split, count in known.counts.items()}

    def _draw(self, split: str, count: int, seed: int) -> torch.Tensor:
        """Top left corners int64 [count, 2], uniform over all that fit."""
        lefts = torch.cat([torch.arange(first, end - self.card.size + 1) for first, end in COLUMNS[split]])
        places = torch.tensor([HEIGHT - self.card.size + 1, len(lefts)])
        bits = PositionalRandom(seed, f"photos/{split}").bits(torch.arange(count), 2)
        top, place = ((bits * places) >> 32).unbind(1)
        return torch.stack([top, lefts[place]], dim=1)

    def read(self, split: str, index: int) -> tuple[Image, int]:
        label, size = index % self.card.classes, self.card.size
        top, left = self.corners[split][index].tolist()
        return self._photos[label][top : top + size, left : left + size], label
