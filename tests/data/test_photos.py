"""The photographs' crops."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from iddpm.data import ShardFolder, known_card, open_source, write_shards
from iddpm.params import PhotosDataset, Source


def dataset(**fields: int) -> PhotosDataset:
    return PhotosDataset(source=Source.PHOTOS, **({"size": 24, "train_crops": 300, "test_crops": 100} | fields))


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return load_sample_images().images


def place(crop: np.ndarray, photo: np.ndarray) -> tuple[int, int]:
    """Top and left of the one place where the crop was cut out."""
    size = len(crop)
    windows = np.lib.stride_tricks.sliding_window_view(photo, (size, size, 3))[:, :, 0]
    found = np.argwhere((windows[:, :, 0, 0] == crop[0, 0]).all(axis=-1))
    exact = [(int(y), int(x)) for y, x in found if np.array_equal(photo[y : y + size, x : x + size], crop)]
    assert len(exact) == 1
    return exact[0]


@pytest.mark.parametrize("size", [24, 128])
def test_crops_lie_in_their_own_part_of_alternating_photographs(photos: list[np.ndarray], size: int) -> None:
    source = open_source(dataset(size=size), Path("unused"))
    for split, parts in (("train", [(0, 256), (384, 640)]), ("test", [(256, 384)])):
        lefts = []
        for index in range(40):
            crop, label = source.read(split, index)
            assert crop.shape == (size, size, 3) and label == index % 2
            left = place(crop, photos[label])[1]
            assert any(first <= left and left + size <= end for first, end in parts)
            lefts.append(left)
        assert {part for part in parts for left in lefts if part[0] <= left < part[1]} == set(parts)
        assert len(set(lefts)) > 1 or size == 128


def test_a_crop_depends_on_seed_split_and_index_alone() -> None:
    few, many = open_source(dataset(train_crops=10), Path("unused")), open_source(dataset(), Path("unused"))
    other = open_source(dataset(seed=1), Path("unused"))
    for index in range(10):
        assert np.array_equal(few.read("train", index)[0], many.read("train", index)[0])
    assert any((other.read("train", index)[0] != many.read("train", index)[0]).any() for index in range(4))


def test_written_twice_is_byte_identical(tmp_path: Path) -> None:
    for name in ("one", "two"):
        list(write_shards(open_source(dataset(), tmp_path), dataset(), tmp_path / name))
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["card.json", "index.json", "test-00000.tar", "train-00000.tar"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    card = ShardFolder(tmp_path / "one").card
    assert card.counts == known_card(dataset()).counts == {"train": 300, "test": 100}
    assert (card.size, card.channels, card.classes, len(card.source_sha256)) == (24, 3, 2, 64)
