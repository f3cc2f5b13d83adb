"""A score must fail when it should."""

import numpy as np
import prdc
import pytest
import torch
from sklearn.datasets import load_digits

from iddpm.data.sources import Digits
from iddpm.evaluation import label_accuracy, score_classes, score_images
from iddpm.evaluation.manifold import precision_recall
from iddpm.evaluation.scores import frechet_distance
from iddpm.params import Evaluation

EVALUATION = Evaluation(samples="s", dataset="d", kid_subset_size=100, kid_subsets=10, inception_splits=2)


@pytest.fixture(scope="module")
def digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    source = Digits()
    parts = {}
    for split, count in source.card.counts.items():
        pairs = [source.read(split, i) for i in range(count)]
        parts[split] = (np.stack([image for image, _ in pairs]), np.array([label for _, label in pairs]))
    return parts


def test_digits_are_scikit_learns(digits: dict) -> None:
    images = load_digits().images
    assert np.array_equal(digits["test"][0][0, :, :, 0], np.round(images[5] * 255 / 16))


def scores(images: np.ndarray, digits: dict) -> dict[str, float]:
    return score_images(images, digits["train"][0], EVALUATION) | score_classes(
        images, None, *digits["train"], EVALUATION
    )


def test_scores_fail_when_they_should(digits: dict) -> None:
    generator = np.random.default_rng(0)
    test = digits["test"][0]
    good = scores(test, digits)
    noise = scores(generator.integers(0, 256, test.shape, dtype=np.uint8), digits)
    collapsed = scores(np.repeat(test[:3], 100, axis=0), digits)
    blurred = scores(((test.astype(int) + np.roll(test, 1, 1) + np.roll(test, 1, 2)) // 3).astype(np.uint8), digits)
    assert good["precision"] > 0.8 and good["recall"] > 0.8
    assert noise["precision"] == 0 and noise["frechet_distance"] > 20 * good["frechet_distance"]
    assert collapsed["precision"] == 1 and collapsed["recall"] < 0.1
    for worse in (noise, collapsed, blurred):
        assert worse["frechet_distance"] > 3 * good["frechet_distance"]
        assert worse["kid"] > good["kid"] + 3 * good["kid_std"]
    assert good["inception_score"] > 7 > 3.5 > collapsed["inception_score"]


def test_label_accuracy(digits: dict) -> None:
    images, labels = digits["test"]
    assert label_accuracy(images, labels, *digits["train"]) > 0.97
    assert label_accuracy(images, (labels + 1) % 10, *digits["train"]) < 0.03


def test_scores_repeat(digits: dict) -> None:
    torch.manual_seed(1)
    first = scores(digits["test"][0], digits)
    torch.manual_seed(2)
    assert scores(digits["test"][0], digits) == first


def test_precision_recall_equals_prdc() -> None:
    generator = np.random.default_rng(1)
    real, fake = generator.normal(size=(300, 8)), generator.normal(0.3, 0.9, size=(250, 8))
    expected = prdc.compute_prdc(real, fake, nearest_k=5)
    ours = precision_recall(torch.from_numpy(fake), torch.from_numpy(real), 5)
    assert ours == pytest.approx((expected["precision"], expected["recall"]), abs=1e-12)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="5 neighbours need more than 5 points"):
        precision_recall(torch.zeros(5, 2), torch.zeros(9, 2), 5)


def test_frechet_distance_of_known_gaussians() -> None:
    """Same covariance, means apart by a vector of length 5: the distance is 25."""
    points = torch.randn(400, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([3.0, 4.0, 0, 0, 0, 0], dtype=torch.float64)
    assert frechet_distance(points + shift, points) == pytest.approx(25, rel=1e-6)
