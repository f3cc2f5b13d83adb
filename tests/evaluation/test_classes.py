"""The inception score and the vote of neighbours, on cases whose answer is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from iddpm.evaluation.classes import (
    inception_score,
    resampled_inception_score,
    small_image_probabilities,
    vote,
)
from iddpm.evaluation.images import ArrayImages


def probabilities(count: int, classes: int = 4) -> Tensor:
    return (3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(0))).softmax(1)


def test_sure_and_diverse_images_score_the_number_of_classes() -> None:
    sure = torch.eye(4).repeat(5, 1)
    assert inception_score(sure, 1, 0) == (pytest.approx(4, rel=1e-6), None)
    assert inception_score(torch.full((20, 4), 0.25), 2, 0) == pytest.approx((1, 0))


def test_equals_its_definition() -> None:
    p = probabilities(50).double()
    expected = (p * (p / p.mean(0)).log()).sum(1).mean().exp()
    assert inception_score(p, 1, 0)[0] == pytest.approx(float(expected))
    once, again = torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)
    again[:2] = torch.tensor([30.0, 20.0])
    resampled = resampled_inception_score(p, torch.stack([once, again])).tolist()
    assert resampled[0] == pytest.approx(float(expected))
    assert resampled[1] == pytest.approx(inception_score(p[[0] * 30 + [1] * 20], 1, 0)[0])


def test_the_deviation_over_splits_is_that_of_their_scores() -> None:
    """With ddof 0. A pair of images scores 2 if they are of two classes, else 1."""
    sure = torch.eye(2).repeat_interleave(5, 0)
    mean, deviation = inception_score(sure, 5, 0)
    twos = round(5 * mean) - 5
    assert mean == pytest.approx(1 + twos / 5, rel=1e-6) and 0 < twos < 5
    assert deviation == pytest.approx(np.std([2] * twos + [1] * (5 - twos)), rel=1e-6)


def test_splits_are_a_function_of_the_seed_and_leave_the_global_generator_alone() -> None:
    p = probabilities(60)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = inception_score(p, 3, 0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert inception_score(p, 3, 0) == first
    assert inception_score(p, 3, 1) != first


def test_too_few_images_for_the_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="inception_splits: 11 images are too few for 10 parts"):
        inception_score(probabilities(11), 10, 0)


def test_the_vote() -> None:
    neighbours = np.array([[7, 2, 2], [2, 7, 9], [9, 9, 2], [7, 7, 7]])
    assert vote(neighbours).tolist() == [2, 2, 9, 7]
    assert vote(np.array([[1, 5, 5, 1, 9], [5, 1, 1, 5, 9]])).tolist() == [1, 5]  # a tie: the nearest decides


def test_digits_are_told_apart(digits: dict[str, ArrayImages]) -> None:
    train, test = digits["train"], digits["test"]
    features = [torch.from_numpy(part.images.reshape(part.count, -1) / np.float32(255)) for part in (test, train)]
    assert train.labels is not None
    found = small_image_probabilities(features[0], features[1], train.labels)
    assert found is not None and found.shape == (299, 10)
    assert (found.argmax(1).numpy() == test.labels).mean() > 0.97
    assert small_image_probabilities(features[0], features[1][:20], train.labels[:20]) is None  # 2 of each
    larger = [torch.nn.functional.pad(part, (0, 1)) for part in features]
    assert small_image_probabilities(larger[0], larger[1], train.labels) is None
