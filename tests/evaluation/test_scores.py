"""A score must fail when it should: each moves the right way when images are spoilt in a known way."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import uniform_filter
from sklearn.datasets import load_digits
from torch import Tensor

from iddpm.evaluation import ScoredSet, Scores, score
from iddpm.evaluation.classes import inception_score
from iddpm.evaluation.features import PixelFeatures
from iddpm.evaluation.frechet import moments
from iddpm.evaluation.images import ArrayImages
from iddpm.evaluation.scores import ORDER, authentic, bias_warnings
from iddpm.params import ScoreSettings

Images = npt.NDArray[np.uint8]
SETTINGS = ScoreSettings(features="pixels", kid_subset_size=50, bootstrap=200)
PROJECTION = np.random.default_rng(7).normal(size=(64, 48)).astype(np.float32)


def scored(images: ArrayImages, projected: bool = False) -> ScoredSet:
    """With grey levels as features, or their random projections behind a rectifier."""
    features = PixelFeatures()(images.images).features
    if projected:
        features = np.maximum(features @ PROJECTION, 0)
    return ScoredSet(torch.from_numpy(features), None, images.labels, images)


@pytest.fixture(scope="module", params=["pixels", "module/projection"])
def against_train(request: pytest.FixtureRequest, digits: dict[str, ArrayImages]) -> Callable[[ArrayImages], Scores]:
    """Scores against the training digits, in two feature spaces."""
    projected = request.param != "pixels"
    reference = scored(digits["train"], projected)
    settings = SETTINGS.model_copy(update={"features": request.param})
    return lambda samples: score(scored(samples, projected), reference, settings)


@pytest.fixture(scope="module")
def good(against_train: Callable[[ArrayImages], Scores], digits: dict[str, ArrayImages]) -> Scores:
    return against_train(digits["test"])


def noisy(images: Images) -> Images:
    noise = np.random.default_rng(0).normal(0, 40, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def blurred(images: Images) -> Images:
    return uniform_filter(images.astype(float), size=(1, 2, 2, 1)).round().astype(np.uint8)


def test_digits_are_scikit_learns(digits: dict[str, ArrayImages]) -> None:
    images = load_digits().images
    assert np.array_equal(digits["test"].images[0, :, :, 0], np.round(images[5] * 255 / 16))


def test_real_images_score_well(good: Scores) -> None:
    values = good.values
    assert values["precision"] > 0.8 and values["recall"] > 0.8 and values["density"] > 0.8
    assert values["copies"] == 0 and 0.4 < values["authenticity"] < 0.75
    assert values["label_accuracy"] > 0.95 and values["label_accuracy_reference"] > 0.95
    low, high = good.intervals["kid"]
    assert low < 0 < high
    assert list(values) == [name for name in ORDER if name in values]
    bare = {"copies", "kid_standard_error", "inception_score_std", "label_accuracy_reference"}
    assert set(good.intervals) == set(values) - bare
    for name, (low, high) in good.intervals.items():
        assert low < values[name] < high, name


@pytest.mark.parametrize("spoil", [noisy, blurred])
def test_noise_and_blur(
    spoil: Callable[[Images], Images],
    against_train: Callable[[ArrayImages], Scores],
    good: Scores,
    digits: dict[str, ArrayImages],
) -> None:
    test = digits["test"]
    worse = against_train(ArrayImages(spoil(test.images), test.labels))
    assert worse.intervals["frechet_distance"][0] > good.intervals["frechet_distance"][1]
    assert worse.intervals["frechet_distance_infinity"][0] > good.intervals["frechet_distance_infinity"][1]
    assert worse.values["frechet_distance"] > 2 * good.values["frechet_distance"]
    assert worse.values["kid"] > good.intervals["kid"][1]
    for name in ("precision", "density", "coverage"):
        assert worse.intervals[name][1] < good.intervals[name][0], name
    assert worse.values["authenticity"] > good.values["authenticity"]


def test_pure_noise(against_train: Callable[[ArrayImages], Scores], good: Scores) -> None:
    images = np.random.default_rng(0).integers(0, 256, (299, 8, 8, 1), dtype=np.uint8)
    noise = against_train(ArrayImages(images, np.arange(299) % 10))
    assert noise.values["precision"] == noise.values["density"] == noise.values["coverage"] == 0
    assert noise.values["frechet_distance"] > 20 * good.values["frechet_distance"]
    assert noise.values["label_accuracy"] < 0.25


def test_mode_collapse(
    against_train: Callable[[ArrayImages], Scores], good: Scores, digits: dict[str, ArrayImages]
) -> None:
    """To one class: every image is right, and nine tenths are missing."""
    test = digits["test"]
    assert test.labels is not None
    chosen = np.resize(np.flatnonzero(test.labels == 3), 299)
    collapsed = against_train(ArrayImages(test.images[chosen], test.labels[chosen]))
    assert collapsed.values["precision"] > 0.8
    assert collapsed.values["recall"] < 0.15 and collapsed.values["coverage"] < 0.15
    assert collapsed.intervals["coverage"][1] < good.intervals["coverage"][0]
    assert collapsed.values["label_accuracy"] > 0.9
    assert collapsed.values["frechet_distance"] > 10 * good.values["frechet_distance"]
    if "inception_score" in good.values:
        assert good.values["inception_score"] > 6 > 1.5 > collapsed.values["inception_score"]


def test_memorised_copies(
    against_train: Callable[[ArrayImages], Scores], good: Scores, digits: dict[str, ArrayImages]
) -> None:
    """A third of the samples are training images: nothing but authenticity and copies says so."""
    train, test = digits["train"], digits["test"]
    places = np.arange(0, 1400, 14)
    images = test.images.copy()
    images[:100] = train.images[places]
    memorised = against_train(ArrayImages(images))
    assert memorised.values["copies"] == pytest.approx(100 / 299)
    assert memorised.values["authenticity"] < good.values["authenticity"] - 0.1
    assert memorised.nearest.copies.tolist() == [True] * 100 + [False] * 199
    assert memorised.nearest.indices[:100, 0].tolist() == places.tolist()
    assert (memorised.nearest.ratio[:100] == 0).all() and (memorised.nearest.ratio[100:] > 0).all()
    assert memorised.values["precision"] >= good.values["precision"]
    assert memorised.values["frechet_distance"] < 2 * good.values["frechet_distance"]

    everything = against_train(ArrayImages(train.images[places]))
    assert everything.values["copies"] == 1 and everything.values["authenticity"] == 0
    low, high = everything.intervals["authenticity"]
    assert low == 0 and high == pytest.approx(1.96**2 / (len(places) + 1.96**2), rel=1e-3)  # Wilson's


def test_wrong_labels(against_train: Callable[[ArrayImages], Scores], digits: dict[str, ArrayImages]) -> None:
    test = digits["test"]
    assert test.labels is not None
    at_random = np.random.default_rng(0).permutation(test.labels)
    assert 0.05 < against_train(ArrayImages(test.images, at_random)).values["label_accuracy"] < 0.15
    assert against_train(ArrayImages(test.images, (test.labels + 1) % 10)).values["label_accuracy"] < 0.03


def test_what_is_not_there_is_left_out(digits: dict[str, ArrayImages]) -> None:
    """No labels, no class probabilities, too few samples for the extrapolation, one KID subset, no resamples."""
    test, train = (ArrayImages(part.images[:200]) for part in digits.values())
    found = score(scored(test), scored(train), SETTINGS.model_copy(update={"kid_subset_size": 200, "bootstrap": 0}))
    left_out = {"frechet_distance_infinity", "kid_standard_error", "label_accuracy", "label_accuracy_reference"}
    left_out |= {"inception_score", "inception_score_std"}
    assert set(found.values) == set(ORDER) - left_out
    assert found.intervals == {} and found.about == {}
    assert "no standard error" in found.warnings[0]
    assert "200 samples, 200 reference images" in found.warnings[1]
    assert "needs 256 samples" in found.warnings[2]


def test_the_bias_warning_names_the_extrapolation(good: Scores) -> None:
    assert len(good.warnings) == 1
    assert "frechet_distance_infinity is without the samples' part" in good.warnings[0]


def test_fewer_than_10000_images_on_a_side_are_few() -> None:
    def warned(samples: int, reference: int | None) -> list[str]:
        return bias_warnings(torch.Size((samples, 4)), reference, extrapolated=True)

    assert warned(10_000, 10_000) == [] == warned(10_000, None)
    assert ["9,999 samples, 10,000 reference images" in text for text in warned(9_999, 10_000)] == [True]
    assert ["10,000 samples, 9,999 reference images" in text for text in warned(10_000, 9_999)] == [True]
    assert ["(9,999 samples)" in text for text in warned(9_999, None)] == [True]


def test_a_sample_as_far_as_real_images_are_apart_is_not_authentic() -> None:
    """Equal but for rounding, that is."""
    assert authentic(np.array([0, 1 - 1e-6, 1, 1 + 1e-12, 1 + 1e-6, np.inf])).tolist() == [False] * 4 + [True] * 2


@pytest.mark.parametrize("features", ["lite0", "module/mine"])
def test_class_probabilities_of_a_network_name_it(features: str) -> None:
    """So that scores by other classes are not compared; the interval is as wide as that of resamples."""
    probabilities = (3 * torch.randn(300, 4, generator=torch.Generator().manual_seed(0))).softmax(1)
    samples, reference = (drawn_images(np.random.default_rng(seed), 300, 0.0) for seed in (0, 1))
    settings = ScoreSettings(features=features, kid_subset_size=50, bootstrap=400, inception_splits=5)
    found = score(replace(samples, probabilities=probabilities), reference, settings)
    assert found.about == {"class_probabilities": f"classes of {features}"}
    generator = torch.Generator().manual_seed(2)
    resampled = [
        inception_score(probabilities[torch.randint(300, (300,), generator=generator)], 1, 0)[0] for _ in range(400)
    ]
    low, high = found.intervals["inception_score"]
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(resampled), rel=0.15)
    assert (low + high) / 2 == pytest.approx(found.values["inception_score"])


def test_moments_of_a_whole_dataset_stand_for_the_features_in_the_distance_alone() -> None:
    generator = np.random.default_rng(0)
    samples, whole = drawn_images(generator, 100, 0.3), drawn_images(generator, 2000, 0.0)
    part = ScoredSet(whole.features[:80], None, None, ArrayImages(np.zeros((80, 1, 1, 1), np.uint8)))
    settings = ScoreSettings(features="module/given", kid_subset_size=40, bootstrap=100)
    of_whole = score(samples, whole, settings)
    alone = score(samples, part, settings)
    given = score(samples, replace(part, moments=moments(whole.features)), settings)
    for name, value in given.values.items():
        expected = of_whole if name.startswith("frechet") else alone
        assert value == expected.values[name], name
        assert given.intervals.get(name) == expected.intervals.get(name), name
    assert alone.values["frechet_distance"] != of_whole.values["frechet_distance"]
    assert "(100 samples)" in given.warnings[0] and len(given.warnings) == 1


def test_about_depends_on_the_reference_and_its_features_alone(digits: dict[str, ArrayImages]) -> None:
    """So that samples with and without labels can be compared in all other scores."""
    test = digits["test"]
    settings = SETTINGS.model_copy(update={"bootstrap": 0})
    with_labels, without = (
        score(scored(samples), scored(digits["train"]), settings) for samples in (test, ArrayImages(test.images))
    )
    assert (
        with_labels.about
        == without.about
        == {
            "classifier": "vote of the 3 nearest reference images in feature space",
            "class_probabilities": "SVC on pixels (RBF), calibrated, trained on the reference images",
        }
    )
    assert set(with_labels.values) - set(without.values) == {"label_accuracy", "label_accuracy_reference"}


def test_scores_are_a_function_of_the_seed(digits: dict[str, ArrayImages]) -> None:
    sets = scored(digits["test"]), scored(digits["train"])
    settings = SETTINGS.model_copy(update={"manifold_reference": 500})
    torch.manual_seed(1)
    first = score(*sets, settings)
    torch.manual_seed(2)
    again = score(*sets, settings)
    assert (again.values, again.intervals) == (first.values, first.intervals)
    other = score(*sets, settings.model_copy(update={"seed": 1}))
    for name in ("kid", "recall", "frechet_distance_infinity", "inception_score"):
        assert other.values[name] != first.values[name], name
    for name in ("density", "recall"):
        assert other.intervals[name] != first.intervals[name], name
    assert other.values["frechet_distance"] == first.values["frechet_distance"]


def tight(generator: np.random.Generator, real: Tensor) -> npt.NDArray[np.float64]:
    return generator.normal(0.3, 0.02, (300, 8))


def tight_and_a_rare_mode(generator: np.random.Generator, real: Tensor) -> npt.NDArray[np.float64]:
    return generator.normal(0, 0.02, (300, 8)) + 2 * (generator.random((300, 1)) < 0.01)


def two_images_again_and_again(generator: np.random.Generator, real: Tensor) -> npt.NDArray[np.float64]:
    return real.numpy()[np.where(generator.random(300) < 0.02, 0, 1)] + generator.normal(0, 0.01, (300, 8))


def far(generator: np.random.Generator, real: Tensor) -> npt.NDArray[np.float64]:
    return generator.normal(2, 1, (300, 8))


@pytest.mark.parametrize("generate", [tight, tight_and_a_rare_mode, two_images_again_and_again, far])
def test_two_draws_of_a_collapsed_generator_are_not_told_apart(
    generate: Callable[[np.random.Generator, Tensor], npt.NDArray[np.float64]],
) -> None:
    """Where precision, authenticity, recall or coverage are at 0 or 1, or rest on a few samples."""
    generator = np.random.default_rng(1)
    reference = with_features(generator.normal(size=(600, 8)))
    settings = ScoreSettings(features="module/given", kid_subset_size=300, bootstrap=200)
    draws = [score(with_features(generate(generator, reference.features)), reference, settings) for _ in range(16)]
    for name in ("precision", "recall", "density", "coverage", "authenticity"):
        intervals = [draw.intervals[name] for draw in draws if name in draw.intervals]
        if name == "recall":
            assert len(intervals) < len(draws) / 2
        elif name != "density":
            assert len(intervals) == len(draws)
        assert all(low < high for low, high in intervals)
        pairs = [one[1] < other[0] or other[1] < one[0] for one, other in combinations(intervals, 2)]
        assert sum(pairs) <= 0.05 * 120, name


def test_intervals_cover_the_truth() -> None:
    """The values of a very large set of samples stand for the truth."""
    generator = np.random.default_rng(0)
    reference = drawn_images(generator, 300, 0.0)
    settings = ScoreSettings(features="module/given", kid_subset_size=20, bootstrap=100)
    truth = score(drawn_images(generator, 4000, 0.3), reference, settings.model_copy(update={"bootstrap": 0})).values
    covered = dict.fromkeys(("precision", "density", "authenticity"), 0)
    for _ in range(40):
        found = score(drawn_images(generator, 150, 0.3), reference, settings)
        for name in covered:
            low, high = found.intervals[name]
            covered[name] += low <= truth[name] <= high
    assert all(count >= 34 for count in covered.values()), covered


def drawn_images(generator: np.random.Generator, count: int, mean: float) -> ScoredSet:
    return with_features(generator.normal(mean, 1, (count, 4)))


def with_features(features: npt.NDArray[np.float64]) -> ScoredSet:
    images = ArrayImages(np.zeros((len(features), 1, 1, 1), np.uint8))
    return ScoredSet(torch.from_numpy(features.astype(np.float32)), None, None, images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kid_subset_size": 300}, "kid_subset_size: 300 is more than the 299 images of test"),
        ({"neighbours": 299}, "neighbours: 299 neighbours need more than the 299 images of test"),
        ({"neighbours": 20, "manifold_reference": 20}, "manifold_reference: 20 is not more than the neighbours, 20"),
        ({"manifold_reference": 1499}, "manifold_reference: 1499 is more than the 1498 images of train"),
        ({"inception_splits": 200, "bootstrap": 0}, "inception_splits: 299 images are too few for 200 parts"),
    ],
)
def test_settings_that_the_sets_do_not_allow_are_refused(
    settings: dict[str, int], message: str, digits: dict[str, ArrayImages]
) -> None:
    changed = SETTINGS.model_copy(update=settings)
    with pytest.raises(ValueError, match=f"^{message}"):
        score(scored(digits["test"]), scored(digits["train"]), changed)


def test_sets_that_cannot_be_compared_are_refused(digits: dict[str, ArrayImages]) -> None:
    test, train = digits["test"], scored(digits["train"])
    large = ArrayImages(test.images.repeat(2, axis=1).repeat(2, axis=2), name="test")
    with pytest.raises(ValueError, match=r"^test: images 16x16x1 cannot be compared with 8x8x1 of train$"):
        score(scored(large), train, SETTINGS)
    with pytest.raises(ValueError, match="48 features per image cannot be compared with 64"):
        score(scored(test, projected=True), train, SETTINGS)
    spoilt = scored(test)
    spoilt.features[7, 3] = torch.nan
    with pytest.raises(ValueError, match="features of test are not all finite"):
        score(spoilt, train, SETTINGS)
