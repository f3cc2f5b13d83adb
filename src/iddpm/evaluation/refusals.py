"""What two sets and the settings do not allow, known from counts, sizes and labels before any feature is computed."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from iddpm.evaluation.classes import can_learn_classes
from iddpm.evaluation.features import MOST_PIXEL_FEATURES, PIXELS
from iddpm.evaluation.images import ImageSet
from iddpm.params import ScoreSettings


class Counted(NamedTuple):
    """A set of images: how many, and what they are called."""

    number: int
    what: str


def setting_problems(settings: ScoreSettings, samples: Counted | None, reference: Counted | None) -> Iterator[str]:
    """A line for each setting that asks for more images than there are, beginning with it; None: not known yet."""
    neighbours, chosen, size = settings.neighbours, settings.manifold_reference, settings.kid_subset_size
    if chosen is not None and chosen <= neighbours:
        yield f"manifold_reference: {chosen} is not more than the neighbours, {neighbours}"
    if chosen is not None and reference is not None and chosen > reference.number:
        yield f"manifold_reference: {chosen} is more than the {reference.number} {reference.what}"
    for count, what in filter(None, (samples, reference)):
        if count <= neighbours:
            yield f"neighbours: {neighbours} neighbours need more than the {count} {what}"
        if count < size:
            yield f"kid_subset_size: {size} is more than the {count} {what}"


def pixel_problems(features: str, values: int) -> Iterator[str]:
    """Of images of so many grey levels."""
    if features == PIXELS and values > MOST_PIXEL_FEATURES:
        yield f"features: pixels of these images are {values} features; take lite0 or inception"


def split_problems(settings: ScoreSettings, samples: Counted) -> Iterator[str]:
    """Of an inception score, where there is one."""
    (count, what), splits = samples, settings.inception_splits
    if (splits - 1) * math.ceil(count / splits) >= count:
        yield f"inception_splits: the {count} {what} are too few for {splits} parts"


def refuse_sets(samples: ImageSet, reference: ImageSet, settings: ScoreSettings) -> None:
    """ValueError, beginning with the setting or the set that is at fault, when these sets cannot be compared so."""
    ours, theirs = samples.shape, reference.shape
    if ours != theirs:
        raise ValueError(
            f"{samples.name}: images {_shown(ours)} cannot be compared with {_shown(theirs)} of {reference.name}"
        )
    _refuse(pixel_problems(settings.features, math.prod(ours)))
    _refuse(setting_problems(settings, counted(samples), counted(reference)))
    if samples.labels is not None and reference.labels is not None:
        known = set(reference.labels.tolist())
        if unknown := sorted(set(samples.labels.tolist()) - known):
            raise ValueError(
                f"{samples.name}: label {unknown[0]} is none of the {len(known)} classes of {reference.name}; number "
                "them alike, or leave the labels out"
            )


def refuse_splits(
    samples: ImageSet, reference: ImageSet, settings: ScoreSettings, dimensions: int, probabilities: bool
) -> None:
    """Likewise, once it is known how many features the network has, and whether it gives class probabilities."""
    learned = settings.features == PIXELS and can_learn_classes(dimensions, reference.labels)
    if probabilities or learned:
        _refuse(split_problems(settings, counted(samples)))


def counted(images: ImageSet) -> Counted:
    """Under its name."""
    return Counted(images.count, f"images of {images.name}")


def _refuse(problems: Iterator[str]) -> None:
    for problem in problems:
        raise ValueError(problem)


def _shown(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))
