"""CIFAR-10 is read from every published form, and only when it is the published one."""

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from iddpm.data import known_card, open_source
from iddpm.data.sources import cifar10 as module
from iddpm.data.sources.cifar10 import average_boxes, unpickle_batch
from iddpm.errors import UserError
from iddpm.params import Cifar10Dataset, Source
from iddpm.stages.download import download_cifar10

FROG, AIRPLANE, CAT = 6, 0, 3


def dataset(train_images: int = 10_000, size: int = 32) -> Cifar10Dataset:
    return Cifar10Dataset(source=Source.CIFAR10, train_images=train_images, size=size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The empty folder cifar10 of a data/raw that is `tmp_path`."""
    made = tmp_path / "cifar10"
    made.mkdir()
    return made


def test_the_real_images(cifar10: Path, folder: Path) -> None:
    (folder / cifar10.name).symlink_to(cifar10)
    source = open_source(dataset(50_000), folder.parent)
    assert source.card.counts == {"train": 50_000, "test": 10_000}
    for split, count in source.card.counts.items():
        labels = [source.read(split, i)[1] for i in range(count)]
        assert np.bincount(labels).tolist() == [count // 10] * 10
    image, label = source.read("train", 0)
    assert label == FROG and image.shape == (32, 32, 3)
    assert image[0, :2].tolist() == [[59, 62, 63], [43, 46, 45]]
    assert source.read("test", 0)[1] == CAT


def test_files_without_their_folder_averaged_to_16_pixels(cifar10: Path, folder: Path) -> None:
    for name in ("data_batch_1", "test_batch"):  # the others are not needed for 100 images
        (folder / name).symlink_to(cifar10 / name)
    full, small = open_source(dataset(100), folder.parent), open_source(dataset(100, 16), folder.parent)
    assert small.card.counts == {"train": 100, "test": 10_000} and small.card.size == 16
    assert small.card.source_sha256 != full.card.source_sha256
    for index in (0, 99):
        boxes = full.read("train", index)[0].reshape(16, 2, 16, 2, 3)
        assert np.array_equal(small.read("train", index)[0], np.round(boxes.mean(axis=(1, 3))))


@pytest.fixture(scope="module")
def archive(cifar10: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the two batches that 10,000 images need."""
    path = tmp_path_factory.mktemp("published") / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name in ("test_batch", "data_batch_1"):  # in the published archive they are in no order either
            tar.add(cifar10 / name, f"cifar-10-batches-py/{name}")
    return path


@pytest.fixture
def published(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It passes for the published archive."""
    monkeypatch.setitem(module.MD5, archive.name, hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def test_the_archive(published: Path, folder: Path) -> None:
    (folder / published.name).symlink_to(published)
    source = open_source(dataset(), folder.parent)
    assert source.read("train", 0)[1] == FROG and source.read("test", 3)[1] == AIRPLANE


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nothing there", r"cifar10: no CIFAR-10 here; put .* or run `iddpm download cifar10`$"),
        ("flipped bit", r"data_batch_1: md5 .* damaged or another one; `iddpm download cifar10` mends it$"),
        ("missing", r"data_batch_1: cannot be read \(No such file.*\); `iddpm download cifar10` mends it$"),
        ("missing test", r"test_batch: cannot be read \(No such file.*\); `iddpm download cifar10` mends it$"),
        ("another archive", r"cifar-10-python.tar.gz: md5 .*; `iddpm download cifar10` mends it$"),
    ],
)
def test_following_the_message_ends_well(
    cifar10: Path, published: Path, folder: Path, fault: str, message: str, subfolder: str
) -> None:
    place = folder / subfolder
    place.mkdir(exist_ok=True)
    content = bytearray((cifar10 / "data_batch_1").read_bytes())
    if fault == "flipped bit":
        content[1_000_000] ^= 1
    if fault in ("flipped bit", "missing test"):
        (place / "data_batch_1").write_bytes(content)
    if fault in ("flipped bit", "missing"):
        (place / "test_batch").symlink_to(cifar10 / "test_batch")
    if fault == "another archive":
        (folder / published.name).write_bytes(b"cut short")
    with pytest.raises(UserError, match=message):
        open_source(dataset(), folder.parent)
    list(download_cifar10(folder, published.as_uri()))
    source = open_source(dataset(), folder.parent)
    assert source.read("train", 0)[1] == FROG and source.read("test", 3)[1] == AIRPLANE


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("should-not-exist"),))


def test_a_pickle_that_calls_something_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({b"data": Malicious(), b"labels": []}, protocol=2)
    with pytest.raises(pickle.UnpicklingError, match="is not part of an image batch"):
        unpickle_batch(content)
    assert not Path("should-not-exist").exists()
    pickle.loads(content)
    assert Path("should-not-exist").exists()  # it would have


def test_boxes_round_to_nearest() -> None:
    box = np.array([[0, 1], [1, 1]], np.uint8)  # 3 / 4
    half = np.array([[2, 3], [3, 2]], np.uint8)  # 2.5 goes to the even 2
    images = np.stack([np.block([[box, half], [half, box]])] * 2)[..., None]
    assert average_boxes(images, 2)[1, :, :, 0].tolist() == [[1, 2], [2, 1]]
    assert average_boxes(images, 1)[0].item() == 2  # (3 + 10 + 10 + 3) / 16 = 1.6


def test_card_before_reading() -> None:
    card = known_card(dataset(300, 8))
    assert (card.counts, card.size, card.channels, card.classes) == ({"train": 300, "test": 10_000}, 8, 3, 10)
    assert card.source_sha256 == ""
