"""The memorisation check: copies by pixels, and the figure."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iddpm.evaluation import Nearest, nearest_figure
from iddpm.evaluation.images import ArrayImages
from iddpm.evaluation.nearest import distance_ratio, identical_images


def random_images(count: int, size: int, channels: int) -> ArrayImages:
    shape = (count, size, size, channels)
    return ArrayImages(np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8))


def test_a_copy_has_the_very_pixels() -> None:
    reference, samples = random_images(600, 4, 3), random_images(5, 4, 3)
    samples.images[[1, 4]] = reference.images[[599, 0]]
    samples.images[4, 0, 0, 0] ^= 1
    assert identical_images(samples, reference).tolist() == [False, True, False, False, False]


def test_the_ratio_of_a_copy_is_0_even_of_twins() -> None:
    ratio = distance_ratio(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 2.0, 0.0, 2.0]))
    assert ratio.tolist() == [0, 0, np.inf, 0.5]


def nearest(samples: int, shown: int) -> Nearest:
    generator = np.random.default_rng(0)
    return Nearest(
        indices=generator.integers(0, 30, (samples, shown)),
        distances=generator.random((samples, shown)),
        ratio=np.linspace(2, 0, samples),
        copies=np.arange(samples) == samples - 1,
    )


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (64, 3)])
def test_the_figure_shows_the_samples_of_smallest_ratio(size: int, channels: int, tmp_path: Path) -> None:
    """A white sample is seen if and only if it is among those."""
    reference, whites = random_images(30, size, channels), []
    for white in (0, 24):
        samples = ArrayImages(np.zeros((25, size, size, channels), np.uint8))
        samples.images[white] = 255
        nearest_figure(samples, reference, nearest(25, 5), tmp_path / "nearest.png")
        first = (tmp_path / "nearest.png").read_bytes()
        nearest_figure(samples, reference, nearest(25, 5), tmp_path / "nearest.png")
        assert (tmp_path / "nearest.png").read_bytes() == first
        pixels = np.asarray(Image.open(tmp_path / "nearest.png").convert("L"))
        whites.append((pixels == 255).mean())
        assert pixels.shape[0] > pixels.shape[1] > 600
    assert whites[1] > whites[0]


def test_the_figure_of_few_images(tmp_path: Path) -> None:
    nearest_figure(random_images(3, 8, 1), random_images(30, 8, 1), nearest(3, 4), tmp_path / "nearest.png")
    assert Image.open(tmp_path / "nearest.png").height < 700
