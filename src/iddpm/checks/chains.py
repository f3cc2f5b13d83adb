"""Contradictions that everything which runs a reverse chain, or is shown images, has in common."""

from collections.abc import Iterator

from iddpm.checks.references import Named
from iddpm.data import Card
from iddpm.diffusion import Sampler, Variance
from iddpm.params import Cascade, Params, Reconstruction, Sampling, Upsampling, Weights

Chain = Sampling | Cascade | Reconstruction


def check_eta(path: str, chain: Chain) -> Iterator[str]:
    """Noise of a step that a sampler does not have."""
    if chain.sampler is Sampler.ANCESTRAL and chain.eta:
        yield f"{path}: only the ddim sampler has it"


def check_steps(path: str, chain: Chain, model: Named) -> Iterator[str]:
    """Steps that the model's T does not have, or that its variances cannot take."""
    process = model.process
    try:
        taken = process.respaced(str(chain.steps)).timesteps
    except ValueError as error:
        yield f"{path}: {error}"
    else:
        yield from check_skipping(path, process.variance, taken, process.timesteps, chain.sampler)


def check_skipping(path: str, variance: Variance, taken: int, steps: int, sampler: Sampler | None) -> Iterator[str]:
    """A chain that takes fewer than the `steps` noising steps it spans needs variances of longer ones.

    `sampler` is None where there is no choice of one.
    """
    if taken < steps and variance is Variance.LEARNED and sampler is not Sampler.DDIM:  # which makes no use of them
        key = path.rpartition(".")[-1]
        mend = f"take {key}: {steps}" if sampler is None else f"take {key}: {steps} or the ddim sampler"
        yield (
            f"{path}: {taken} of {steps} with variance learned, whose log variances are those of single steps: "
            f"{mend}; variance: learned_range can skip steps"
        )


def check_augmentation(path: str, use: Cascade | Reconstruction, upsampling: Upsampling) -> Iterator[str]:
    """More noise on the low-resolution images than the upsampler knows."""
    most = upsampling.noise_augmentation
    if use.augmentation > most:
        yield f"{path}: {use.augmentation} is more than the {most} that {use.upsampler} was trained with"


def check_weights(path: str, model: str, weights: Weights, params: Params) -> Iterator[str]:
    """Weights that the model, or a part of the mixture, of that name does not have."""
    mixture = params.mixtures.get(model)
    parts = (model,) if mixture is None else (mixture.middle, mixture.ends)
    imported = [name for name in parts if name in params.imports]
    if weights is Weights.RAW and imported:
        yield f"{path}.weights: {imported[0]} is an import, which has no raw weights; use ema"


def check_known_images(path: str, model: Named, card: Card) -> Iterator[str]:
    """Images that are not of the model's kind."""
    if images_of(model.card) != images_of(card):
        yield f"{path}: images of {images_of(card)}, the model's have {images_of(model.card)}"
    elif model.classes and card.classes != model.classes:
        yield f"{path}: has {card.classes or 'no'} classes, the model is told one of {model.classes}"


def images_of(card: Card, size: int | None = None) -> str:
    """What a dataset's images are, or a model's at its own size."""
    size = size or card.size
    return f"{size}x{size} pixels and {card.channels} channels"
