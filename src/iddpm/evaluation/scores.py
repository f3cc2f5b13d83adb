"""Every score of one set of images against another, with 95 % intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iddpm.evaluation.classes import (
    inception_score,
    resampled_inception_score,
    small_image_probabilities,
    vote,
)
from iddpm.evaluation.confidence import CONFIDENCE, NORMAL_REACH, TAIL, student_reach
from iddpm.evaluation.frechet import (
    BLOCK,
    SAMPLES_PER_DIMENSION,
    Moments,
    frechet_distance,
    frechet_distance_infinity,
    frechet_standard_error,
    moments,
)
from iddpm.evaluation.images import ImageSet
from iddpm.evaluation.jackknife import coverage_error, recall_error
from iddpm.evaluation.kernel import kernel_distance, standard_error
from iddpm.evaluation.manifold import NEAREST, Comparison, compare
from iddpm.evaluation.nearest import Nearest, distance_ratio, identical_images
from iddpm.evaluation.refusals import refuse_sets
from iddpm.params import ScoreSettings
from iddpm.randomness import PositionalRandom

LITTLE_BIAS_FROM = 10_000
"""Images of a side; with fewer, the Frechet distance comes with a warning."""
BEYOND_ROUNDING = 1e-9
"""Relative: more than what rounding makes of equal distances."""
RESAMPLES_AT_ONCE = 50
MOST_RECALL_ERROR = 1 / 3
"""Of recall. With more it rests on a few samples far from the others, and its error is not to be had from one set."""
ORDER = (
    "frechet_distance",
    "frechet_distance_infinity",
    "kid",
    "kid_standard_error",
    "precision",
    "recall",
    "density",
    "coverage",
    "authenticity",
    "copies",
    "inception_score",
    "inception_score_std",
    "label_accuracy",
    "label_accuracy_reference",
)
"""Of the values."""


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """Images with their features float32 [N, D], class probabilities [N, classes] and labels [N], where they have them.

    A sample's label is the class that was asked for, a reference image's the class that it shows.
    """

    features: Tensor
    probabilities: Tensor | None
    labels: npt.NDArray[np.int64] | None
    images: ImageSet
    moments: Moments | None = None
    """Of the features of a whole dataset, of which `features` are a part."""


@dataclass(eq=False)
class Scores:
    """What `score` finds.

    values: frechet_distance; frechet_distance_infinity, with enough samples; kid, kid_standard_error (of two subsets
    or more); precision, recall, density, coverage, authenticity (fraction of samples farther from their nearest
    reference image than that one is from its nearest other), copies (fraction of samples with the very pixels of
    a reference image); inception_score, inception_score_std (of two splits or more), with class probabilities;
    label_accuracy and label_accuracy_reference (of the reference images themselves, each left out of its own vote: how
    far the vote can be trusted), with labels on both sides.
    about: what the values depend on besides the two sets, their features and the settings.
    """

    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    nearest: Nearest = field(init=False)
    about: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def score(samples: ScoredSet, reference: ScoredSet, settings: ScoreSettings) -> Scores:
    """All scores of samples against a reference; the same for the same `settings`, whatever the global generators.

    Intervals tell at 95 % the chance in the samples. The reference counts as fixed, except for kid, whose subsets of it
    differ; the bias of a finite number of samples is not in them. precision, authenticity and label_accuracy: Wilson's,
    of a fraction of the samples. density: percentiles of bootstrap resamples. frechet_distance and
    frechet_distance_infinity: normal, from the jackknife; inception_score: normal, from the spread of its resamples,
    since the resampled values themselves have more bias than the value. recall and coverage: normal, by leaving samples
    out. kid: Student's t over the subsets. There is none where the samples show no spread, nor of recall with an error
    above a third of it.

    ValueError, beginning with the setting or set that is at fault, when the sets cannot be compared.
    """
    refuse_sets(samples.images, reference.images, settings)
    _refuse_features(samples, reference)
    scores = Scores()
    _kernel(scores, samples, reference, settings)
    comparison = compare(
        samples.features, reference.features, settings.neighbours, settings.manifold_reference, settings.seed
    )
    scores.nearest = _nearest(comparison, samples.images, reference.images)
    scores.values["copies"] = float(scores.nearest.copies.mean())
    of_samples = {
        "precision": comparison.precision,
        "density": comparison.density,
        "authenticity": torch.from_numpy(authentic(scores.nearest.ratio)).to(comparison.density),
    }
    of_samples |= _label_accuracy(scores, comparison, samples, reference, settings)
    _means(scores, of_samples, settings)
    _coverage(scores, comparison, settings)
    _inception_score(scores, samples, reference, settings)
    _frechet(scores, samples, reference, settings)
    scores.values = {name: scores.values[name] for name in ORDER if name in scores.values}
    scores.intervals = {name: ends for name, ends in scores.intervals.items() if not math.isclose(*ends)}
    return scores


def _refuse_features(samples: ScoredSet, reference: ScoredSet) -> None:
    dimensions = [part.features.shape[1] for part in (samples, reference)]
    if dimensions[0] != dimensions[1]:
        raise ValueError(f"{dimensions[0]} features per image cannot be compared with {dimensions[1]}")
    for part in (samples, reference):
        if not all(block.isfinite().all() for block in torch.split(part.features, BLOCK)):
            raise ValueError(f"features of {part.images.name} are not all finite")


def _nearest(comparison: Comparison, samples: ImageSet, reference: ImageSet) -> Nearest:
    distances = comparison.nearest.distances[:, :NEAREST].cpu().numpy()
    return Nearest(
        indices=comparison.nearest.indices[:, :NEAREST].cpu().numpy(),
        distances=distances,
        ratio=distance_ratio(distances[:, 0], comparison.own_distance.cpu().numpy()),
        copies=identical_images(samples, reference),
    )


def authentic(ratio: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether samples are farther from their nearest reference image than that one from its nearest other, [N]."""
    authentic: npt.NDArray[np.bool_] = ratio > 1 + BEYOND_ROUNDING
    return authentic


def _label_accuracy(
    scores: Scores, comparison: Comparison, samples: ScoredSet, reference: ScoredSet, settings: ScoreSettings
) -> dict[str, Tensor]:
    """Float64 [N], 1 where a sample's nearest reference images vote for its label; empty without labels."""
    real = reference.labels
    if real is None:
        return {}
    scores.about["classifier"] = f"vote of the {settings.neighbours} nearest reference images in feature space"
    if samples.labels is None:
        return {}
    voted = vote(real[comparison.nearest.indices[:, : settings.neighbours].cpu().numpy()])
    own = vote(real[comparison.left_out.indices.cpu().numpy()])
    scores.values["label_accuracy_reference"] = float((own == real[comparison.chosen.cpu().numpy()]).mean())
    return {"label_accuracy": torch.from_numpy(voted == samples.labels).to(comparison.density)}


def _means(scores: Scores, of_samples: dict[str, Tensor], settings: ScoreSettings) -> None:
    """Each score as the mean over samples of its float64 tensor [N]: a fraction of them, or density."""
    for name, column in of_samples.items():
        scores.values[name] = float(column.mean())
        if settings.bootstrap:
            scores.intervals[name] = _percentiles(column, settings) if name == "density" else _wilson(column)


def _wilson(which: Tensor) -> tuple[float, float]:
    """Of the fraction of ones; honest where that is 0 or 1, too."""
    from scipy.stats import binomtest  # a second of every command's start, were it above

    low, high = binomtest(int(which.sum()), len(which)).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def _percentiles(column: Tensor, settings: ScoreSettings) -> tuple[float, float]:
    """Of the means of bootstrap resamples."""
    resampled = _resampled(lambda counts: counts @ column / len(column), column, settings)
    low, high = np.quantile(resampled.cpu().numpy(), (TAIL, 1 - TAIL)).tolist()
    return low, high


def _resampled(statistic: Callable[[Tensor], Tensor], data: Tensor, settings: ScoreSettings) -> Tensor:
    """The statistic of bootstrap resamples of the rows of data [N, ...], given as counts [B, N] that add up to N."""
    random, count, parts = PositionalRandom(settings.seed, "evaluation/bootstrap/samples"), len(data), []
    for positions in torch.split(torch.arange(settings.bootstrap), RESAMPLES_AT_ONCE):
        drawn = random.bits(positions, count) % count
        counts = torch.zeros(len(positions), count, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(counts))
        parts.append(statistic(counts.to(data.device)))
    return torch.cat(parts)


def _inception_score(scores: Scores, samples: ScoredSet, reference: ScoredSet, settings: ScoreSettings) -> None:
    probabilities, source = samples.probabilities, f"classes of {settings.features}"
    if settings.features == "pixels" and reference.labels is not None:
        probabilities = small_image_probabilities(samples.features, reference.features, reference.labels)
        source = "SVC on pixels (RBF), calibrated, trained on the reference images"
    if probabilities is None:
        return
    scores.about["class_probabilities"] = source
    value, deviation = inception_score(probabilities, settings.inception_splits, settings.seed)
    scores.values["inception_score"] = value
    if deviation is not None:
        scores.values["inception_score_std"] = deviation
    if settings.bootstrap:
        resampled = _resampled(lambda counts: resampled_inception_score(probabilities, counts), probabilities, settings)
        scores.intervals["inception_score"] = _normal(value, float(resampled.std()), least=1.0)


def _kernel(scores: Scores, samples: ScoredSet, reference: ScoredSet, settings: ScoreSettings) -> None:
    parts = kernel_distance(samples.features, reference.features, settings.kid_subset_size, settings.seed)
    scores.values["kid"] = value = float(np.mean(parts))
    error = standard_error(parts)
    if error is None:
        scores.warnings.append("kid has no standard error: the images make a single subset of kid_subset_size")
        return
    scores.values["kid_standard_error"] = error
    if settings.bootstrap:
        scores.intervals["kid"] = _student(value, error, len(parts))


def _coverage(scores: Scores, comparison: Comparison, settings: ScoreSettings) -> None:
    """How much of the reference is held; a manifold is made by all samples, so that no mean over them tells it."""
    errors = {
        "recall": recall_error(comparison.recall_without),
        "coverage": coverage_error(comparison.holders, len(comparison.precision)),
    }
    for name, error in errors.items():
        scores.values[name] = value = float(getattr(comparison, name).mean())
        if settings.bootstrap:
            low, high = _normal(value, error, least=0.0)
            scores.intervals[name] = (low, min(high, 1.0))
    if errors["recall"] > MOST_RECALL_ERROR * scores.values["recall"]:
        scores.intervals.pop("recall", None)


def _frechet(scores: Scores, samples: ScoredSet, reference: ScoredSet, settings: ScoreSettings) -> None:
    drawn, real = moments(samples.features), reference.moments or moments(reference.features)
    scores.values["frechet_distance"] = value = frechet_distance(drawn, real)
    limit = frechet_distance_infinity(samples.features, drawn, real, settings.seed)
    if limit is not None:
        scores.values["frechet_distance_infinity"] = limit.value
    if settings.bootstrap:
        error = frechet_standard_error(samples.features, drawn, real)
        scores.intervals["frechet_distance"] = _normal(value, error, least=0.0)
        if limit is not None:
            scores.intervals["frechet_distance_infinity"] = _normal(limit.value, math.hypot(error, limit.fit_error))
    real_count = None if reference.moments else len(reference.features)
    scores.warnings += bias_warnings(samples.features.shape, real_count, limit is not None)


def bias_warnings(shape: torch.Size, reference: int | None, extrapolated: bool) -> list[str]:
    """Of samples' features of this shape and so many reference images; None: moments of a whole dataset."""
    (count, dimensions), found = shape, []
    counts = {"samples": count} | ({} if reference is None else {"reference images": reference})
    if min(counts.values()) < LITTLE_BIAS_FROM:
        of = ", ".join(f"{number:,} {name}" for name, number in counts.items())
        instead = "; frechet_distance_infinity is without the samples' part" if extrapolated else ""
        found.append(f"frechet_distance is biased upwards with fewer than {LITTLE_BIAS_FROM:,} images ({of}){instead}")
    if not extrapolated:
        found.append(
            f"frechet_distance_infinity needs {SAMPLES_PER_DIMENSION * dimensions:,} samples "
            f"({SAMPLES_PER_DIMENSION} for each of {dimensions:,} features), here are {count:,}"
        )
    return found


def _normal(value: float, error: float, least: float = -math.inf) -> tuple[float, float]:
    reach = NORMAL_REACH * error
    return max(value - reach, least), value + reach


def _student(value: float, error: float, parts: int) -> tuple[float, float]:
    reach = student_reach(parts - 1) * error
    return value - reach, value + reach
