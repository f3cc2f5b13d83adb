"""The embedded digits as sets of images."""

import numpy as np
import pytest

from iddpm.data.sources import Digits
from iddpm.evaluation.images import ArrayImages


@pytest.fixture(scope="session")
def digits() -> dict[str, ArrayImages]:
    """Splits by name."""
    source = Digits()
    sets = {}
    for split, count in source.card.counts.items():
        pairs = [source.read(split, i) for i in range(count)]
        images = np.stack([image for image, _ in pairs])
        sets[split] = ArrayImages(images, np.array([label for _, label in pairs]), split)
    return sets
