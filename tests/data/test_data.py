"""Shards are reproducible and checked; the stream is exact."""

import json
from pathlib import Path

import numpy as np
import pytest

from iddpm.data import ShardFolder, TrainingStream, open_source, write_shards
from iddpm.errors import UserError
from iddpm.params import DigitsDataset, Source

read = ShardFolder.read
DIGITS = DigitsDataset(source=Source.DIGITS, images_per_block=64, images_per_shard=200)
RAW = Path("data/raw")  # which the digits ignore


def write(folder: Path, dataset: DigitsDataset = DIGITS) -> ShardFolder:
    list(write_shards(open_source(dataset, RAW), dataset, folder))
    return ShardFolder(folder)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    return write(tmp_path_factory.mktemp("data") / "digits")


def test_written_twice_is_byte_identical(shards: ShardFolder, tmp_path: Path) -> None:
    write(tmp_path / "again")
    names = sorted(path.name for path in shards.folder.iterdir())
    assert len(names) == 8 + 2 + 2  # 1498 and 299 images in shards of 200, card and index
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (shards.folder / name).read_bytes()


def test_another_seed_is_another_order(shards: ShardFolder, tmp_path: Path) -> None:
    other = write(tmp_path / "other", DIGITS.model_copy(update={"seed": 1}))
    ours, theirs = shards.read_split("train")[1], other.read_split("train")[1]
    assert (ours != theirs).any()
    assert (np.bincount(ours) == np.bincount(theirs)).all()


def test_every_image_arrives_once_with_its_label(shards: ShardFolder) -> None:
    source = open_source(DIGITS, RAW)
    for split, count in source.card.counts.items():
        expected = sorted((image.tobytes(), label) for image, label in (source.read(split, i) for i in range(count)))
        images, labels = shards.read_split(split)
        assert sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)) == expected
    assert shards.card == source.card


def test_limit(shards: ShardFolder) -> None:
    images, labels = shards.read_split("train", limit=205)
    assert len(images) == len(labels) == 205


@pytest.mark.parametrize("fault", ["flip", "truncate", "zero_tail", "missing", "count"])
def test_damage_is_named(tmp_path: Path, fault: str) -> None:
    folder = write(tmp_path / "digits").folder
    shard = folder / "train-00003.tar"
    content = bytearray(shard.read_bytes())
    if fault == "flip":
        content[5000] ^= 4
    elif fault == "truncate":
        content = content[:-512]
    elif fault == "zero_tail":
        content[-4096:] = bytes(4096)
        content[2000:2100] = bytes(100)
    if fault == "count":
        index = json.loads((folder / "index.json").read_text())
        index["splits"]["train"][3]["samples"] += 1
        (folder / "index.json").write_text(json.dumps(index))
    elif fault == "missing":
        shard.unlink()
    else:
        shard.write_bytes(bytes(content))
    damaged = ShardFolder(folder)
    damaged.read(damaged.splits["train"][2])
    with pytest.raises(UserError, match=r"train-00003\.tar: .*; rerun the shard stage"):
        damaged.read(damaged.splits["train"][3])


@pytest.mark.parametrize("name", ["index.json", "card.json"])
def test_damaged_index_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "digits").folder
    (folder / name).write_text('{"format": 1, "splits": {"train": [{}]}}')
    with pytest.raises(UserError, match="damaged"):
        ShardFolder(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing"):
        ShardFolder(folder)


@pytest.mark.parametrize("window_shards", [1, 3, 100])
def test_stream_is_a_function_of_position(shards: ShardFolder, window_shards: int) -> None:
    stream = TrainingStream(shards, "train", seed=5, window_shards=window_shards)
    images, labels = stream.batch(1000, 900)  # crosses an epoch
    again = TrainingStream(shards, "train", seed=5, window_shards=window_shards)
    for first, count in ((1898, 2), (1000, 1), (1450, 100)):  # backwards, alone, across the border
        part, part_labels = again.batch(first, count)
        assert np.array_equal(part, images[first - 1000 : first - 1000 + count])
        assert np.array_equal(part_labels, labels[first - 1000 : first - 1000 + count])


@pytest.mark.parametrize("window_shards", [1, 3, 100])
def test_kept_batches_are_the_same_and_read_once(
    shards: ShardFolder, window_shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts, count = [40, 1490, 1700, 10_000], 60  # one within a window, one across epochs
    stream = TrainingStream(shards, "train", seed=5, window_shards=window_shards)
    expected = [stream.batch(first + skip, count - skip) for first in firsts for skip in (0, 45)]

    files: list[str] = []
    monkeypatch.setattr(ShardFolder, "read", lambda folder, shard: files.append(shard.file) or read(folder, shard))
    stream = TrainingStream(shards, "train", seed=5, window_shards=window_shards)
    assert list(stream.keep(stream.locate(firsts, count)))
    for first in firsts:
        for skip in (0, 45):
            images, labels = stream.batch(first + skip, count - skip)
            expected_images, expected_labels = expected.pop(0)
            assert np.array_equal(images, expected_images) and np.array_equal(labels, expected_labels)
            assert (images.dtype, labels.dtype) == (expected_images.dtype, expected_labels.dtype)
    assert len(files) == len(set(files))
    files.clear()
    assert list(stream.keep(stream.locate([500], 2))) == [*range(1, len(files) + 1)]
    assert len(files) <= 2  # only the shards that hold them
    files.clear()
    stream.batch(41, 60)  # one more than was kept
    assert files


@pytest.mark.parametrize("window_shards", [1, 3, 100])
def test_every_epoch_visits_each_image_once_in_a_new_order(shards: ShardFolder, window_shards: int) -> None:
    stream = TrainingStream(shards, "train", seed=0, window_shards=window_shards)
    everything = sorted(image.tobytes() for image in shards.read_split("train")[0])
    epochs = [stream.batch(epoch * 1498, 1498)[0] for epoch in range(2)]
    for images in epochs:
        assert sorted(image.tobytes() for image in images) == everything
    assert (epochs[0] != epochs[1]).any()
