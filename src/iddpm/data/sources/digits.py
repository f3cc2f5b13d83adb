"""scikit-learn's handwritten digits."""

import numpy as np

from iddpm.data.sources.base import ArraySource, Card
from iddpm.params import Source

CARD = Card(
    source=Source.DIGITS,
    description="scikit-learn's handwritten digits (UCI ML, 1,797 images); every sixth image is the test split",
    channels=1,
    size=8,
    classes=10,
    counts={"train": 1498, "test": 299},
)


class Digits(ArraySource):
    """Grey levels 0..16 scaled to 0..255."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = digits.target.astype(np.int64)
        test = np.arange(len(images)) % 6 == 5
        super().__init__(CARD, {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])})
