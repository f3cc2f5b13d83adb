"""Features are computed once for the same images and network, and an interrupted extraction goes on."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iddpm.evaluation.features import Features
from iddpm.evaluation.images import ArrayImages, NpzImages
from iddpm.stages import features as stage
from iddpm.stages.features import features_of

IMAGES = np.random.default_rng(0).integers(0, 256, (45, 4, 4, 3), dtype=np.uint8)
EXPECTED = IMAGES.reshape(45, -1)[:, :5].astype(np.float32)


class Network:
    """The first five values of an image; fails after so many images."""

    distance = "fd-counting"

    def __init__(self, name: str = "counting", fails_after: int = 10**9, classes: bool = False) -> None:
        self.identity: dict[str, Any] = {"name": name}
        self.seen, self.fails_after, self.classes = [0], fails_after, classes

    def __call__(self, images: np.ndarray) -> Features:
        if sum(self.seen) + len(images) > self.fails_after:
            raise KeyboardInterrupt
        self.seen.append(len(images))
        features = images.reshape(len(images), -1)[:, :5].astype(np.float32)
        return Features(features, features[:, :2] if self.classes else None)


@pytest.fixture(autouse=True)
def ten_images_per_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "IMAGES_PER_FILE", 10)


def test_computed_once_for_the_same_images_wherever_they_are_kept(tmp_path: Path) -> None:
    network = Network(classes=True)
    first = features_of(ArrayImages(IMAGES), network, tmp_path / "cache", "cpu", batch_size=4)
    assert max(network.seen) == 4 and sum(network.seen) == 45
    np.savez(tmp_path / "x.npz", IMAGES)
    again = features_of(NpzImages(tmp_path / "x.npz"), network, tmp_path / "cache", "cpu", batch_size=7)
    assert sum(network.seen) == 45
    for features, probabilities in (first, again):
        assert probabilities is not None and features.dtype == probabilities.dtype == np.float32
        np.testing.assert_array_equal(features, EXPECTED)
        np.testing.assert_array_equal(probabilities, EXPECTED[:, :2])


def test_other_images_or_another_network_are_computed(tmp_path: Path) -> None:
    for images in (IMAGES, IMAGES[::-1]):
        for name in ("one", "other"):
            network = Network(name)
            features, probabilities = features_of(ArrayImages(images), network, tmp_path, "cpu")
            assert sum(network.seen) == 45 and probabilities is None
            np.testing.assert_array_equal(features, images.reshape(45, -1)[:, :5])


def test_what_another_device_computed_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    """The record says on what they were computed."""
    network = Network()
    for device in ("cpu", "cuda (one)", "cuda (other)"):
        features_of(ArrayImages(IMAGES), network, tmp_path, device)
    assert sum(network.seen) == 3 * 45


class CountedImages(ArrayImages):
    """Knows how many images were read."""

    read = 0

    def batches(self, size: int) -> Iterator[np.ndarray]:
        for batch in super().batches(size):
            self.read += len(batch)
            yield batch


def test_an_interrupted_extraction_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        features_of(ArrayImages(IMAGES), Network(fails_after=25), tmp_path, "cpu", batch_size=5)
    network, images = Network(), CountedImages(IMAGES, name="mine")
    assert images.sha256 and images.read == 45
    features = features_of(images, network, tmp_path, "cpu").features
    np.testing.assert_array_equal(features, EXPECTED)
    assert sum(network.seen) == 25 and images.read == 90  # two of five files were finished
    assert "features of mine: 45/45 images" in capsys.readouterr().err
    features_of(images, network, tmp_path, "cpu")
    assert sum(network.seen) == 25 and images.read == 90 and capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_damaged_file_is_made_again(tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    features_of(ArrayImages(IMAGES), Network(), tmp_path, "cpu")
    file = sorted(tmp_path.glob("*/batches/*.npz"))[number]
    file.write_bytes(file.read_bytes()[:-30])
    network = Network()
    np.testing.assert_array_equal(features_of(ArrayImages(IMAGES), network, tmp_path, "cpu").features, EXPECTED)
    assert sum(network.seen) == (5 if number == 4 else 10) and "damaged" in capsys.readouterr().err


def test_two_at_once_compute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, goes_on, said = threading.Event(), threading.Event(), queue.SimpleQueue[str]()
    monkeypatch.setattr("iddpm.stages.features.say", said.put)  # of two threads, pytest may lose a captured line

    class Slow(Network):
        def __call__(self, images: np.ndarray) -> Features:
            waits.set()
            assert goes_on.wait(30)
            return super().__call__(images)

    slow, quick = Slow(), Network()
    results: list[Features] = []
    threads = []
    for network in (slow, quick):
        threads.append(
            threading.Thread(
                target=lambda n=network: results.append(features_of(ArrayImages(IMAGES), n, tmp_path, "cpu"))
            )
        )
        threads[-1].start()
        assert waits.wait(30)
    assert "another process is computing them" in said.get(timeout=30)
    goes_on.set()
    for thread in threads:
        thread.join(30)
    assert sum(quick.seen) == 0 and sum(slow.seen) == 45
    for features, _ in results:
        np.testing.assert_array_equal(features, EXPECTED)
