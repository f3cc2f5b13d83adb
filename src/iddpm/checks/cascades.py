"""Contradictions in what upsamplers are used for: cascades, reconstructions."""

from collections.abc import Iterator

from iddpm.checks.chains import check_augmentation, check_eta, check_known_images, check_steps, check_weights, images_of
from iddpm.checks.references import SAMPLE_GROUPS, Named, named_model, reference, sample_set
from iddpm.data import known_card
from iddpm.evaluation.fidelity import SMALLEST_SIZE
from iddpm.evaluation.refusals import pixel_problems
from iddpm.params import Cascade, Params, Reconstruction

UPSAMPLER_GROUPS = ("models", "imports")


def check_cascade(name: str, cascade: Cascade, params: Params) -> Iterator[str]:
    """Of the cascade of that name: an upsampler that takes the images and labels of its samples."""
    path = f"cascades.{name}"
    yield from reference(f"{path}.samples", cascade.samples, params, *SAMPLE_GROUPS)
    yield from _check_upsampler(path, cascade, params)
    if _rests_on_itself(name, params):
        yield f"{path}.samples: {cascade.samples} rests on {name} itself"
        return
    upsampler, samples = _upsampler(cascade, params), sample_set(cascade.samples, params)
    if upsampler is None or samples is None or samples.model is None or samples.labelled_by is None:
        return
    upsampling, model = upsampler.architecture.upsampling, samples.model
    assert upsampling is not None
    drawn, taken = images_of(model.card, model.size), images_of(upsampler.card, upsampling.low_size)
    if drawn != taken:
        yield f"{path}.samples: images of {drawn}, {cascade.upsampler} takes {taken}"
    elif upsampler.classes and samples.labelled_by.classes != upsampler.classes:
        has = samples.labelled_by.classes or "no"
        yield f"{path}.samples: has labels of {has} classes, {cascade.upsampler} is told one of {upsampler.classes}"


def check_reconstruction(path: str, reconstruction: Reconstruction, params: Params) -> Iterator[str]:
    """Of a reconstruction: an upsampler, and enough images of its kind."""
    yield from reference(f"{path}.dataset", reconstruction.dataset, params, "datasets")
    yield from _check_upsampler(path, reconstruction, params)
    upsampler = _upsampler(reconstruction, params)
    if upsampler is not None and upsampler.size < SMALLEST_SIZE:
        yield f"{path}.upsampler: makes {upsampler.size} pixels; the window of SSIM needs {SMALLEST_SIZE}"
    dataset = params.datasets.get(reconstruction.dataset)
    if dataset is None:
        return
    card = known_card(dataset)
    if upsampler is not None:
        yield from check_known_images(f"{path}.dataset", upsampler, card)
        values = upsampler.size**2 * card.channels
        yield from (f"{path}.{problem}" for problem in pixel_problems(reconstruction.features, values))
    available = card.counts.get(reconstruction.split, reconstruction.images)
    if reconstruction.images > available:
        split = f"{reconstruction.split} images of {reconstruction.dataset}"
        yield f"{path}.images: {reconstruction.images} is more than the {available} {split}"


def _check_upsampler(path: str, use: Cascade | Reconstruction, params: Params) -> Iterator[str]:
    yield from reference(f"{path}.upsampler", use.upsampler, params, *UPSAMPLER_GROUPS)
    yield from check_weights(path, use.upsampler, use.weights, params)
    yield from check_eta(f"{path}.eta", use)
    model = named_model(use.upsampler, params)
    if model is None or use.upsampler in params.mixtures:
        return
    yield from check_steps(f"{path}.steps", use, model)
    upsampling = model.architecture.upsampling
    if upsampling is None:
        yield f"{path}.upsampler: {use.upsampler} has no upsampling: it sees no low-resolution image"
    else:
        yield from check_augmentation(f"{path}.augmentation", use, upsampling)


def _upsampler(use: Cascade | Reconstruction, params: Params) -> Named | None:
    """The upsampler of that name; None where `_check_upsampler` complains."""
    model = named_model(use.upsampler, params)
    unfit = model is None or use.upsampler in params.mixtures or model.architecture.upsampling is None
    return None if unfit else model


def _rests_on_itself(name: str, params: Params) -> bool:
    below, passed = name, set[str]()
    while below in params.cascades and below not in passed:
        passed.add(below)
        below = params.cascades[below].samples
    return below == name
