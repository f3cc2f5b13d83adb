"""Contradictions in what is done with models: samplings, evaluations, likelihoods, gradient noise."""

from collections.abc import Iterator

from iddpm.checks.chains import check_eta, check_known_images, check_skipping, check_steps, check_weights, images_of
from iddpm.checks.references import MODEL_GROUPS, SAMPLE_GROUPS, Named, named_model, reference, sample_set
from iddpm.data import Card, known_card
from iddpm.diffusion import Handover, Sampler, strided_process, truncated_process, upper_process
from iddpm.evaluation.classes import SMALL
from iddpm.evaluation.features import PIXELS
from iddpm.evaluation.refusals import Counted, pixel_problems, setting_problems, split_problems
from iddpm.params import (
    Checkpoints,
    Conditioning,
    Diffusion,
    DiffusionSurrogate,
    Evaluation,
    GradientNoise,
    Likelihood,
    Params,
    Sampling,
    Splits,
    Surrogate,
    SurrogateSampling,
)


def check_sampling(path: str, sampling: Sampling, params: Params) -> Iterator[str]:
    """Of a sampling, with or without a surrogate."""
    yield from reference(f"{path}.model", sampling.model, params, *MODEL_GROUPS)
    model = named_model(sampling.model, params)
    yield from check_eta(f"{path}.eta", sampling)
    if sampling.interpolations:
        yield from _check_interpolations(f"{path}.interpolations", sampling)
    if model is not None and model.architecture.upsampling is not None:
        yield f"{path}.model: {sampling.model} is an upsampler; it cannot start from noise alone"
    yield from check_weights(path, sampling.model, sampling.weights, params)
    if sampling.checkpoint is not None:
        yield from _check_checkpoint(f"{path}.checkpoint", sampling.model, sampling.checkpoint, params)
    if isinstance(sampling, SurrogateSampling):
        yield from _check_start(path, sampling, model, params)
    elif model is not None:
        yield from check_steps(f"{path}.steps", sampling, model)


def _check_checkpoint(path: str, name: str, step: int, params: Params) -> Iterator[str]:
    if name in params.models:
        training = params.models[name].training
        every = training.snapshot_every
        if every is None:
            yield f"{path}: {name} keeps no snapshots: set models.{name}.training.snapshot_every, or leave it out"
        elif step > training.steps:
            yield f"{path}: {step} is more than the {training.steps} steps of {name}"
        elif step % every:
            yield f"{path}: {name} keeps no snapshot of step {step}, only every {every} steps"
    elif name in params.imports or name in params.mixtures:
        yield f"{path}: only models have snapshots, {name} has none; leave it out"


def _check_interpolations(path: str, sampling: Sampling) -> Iterator[str]:
    if isinstance(sampling, SurrogateSampling):
        yield f"{path}: the path is one of starting noise, here a surrogate starts; use samplings, or 0"
    elif sampling.sampler is not Sampler.DDIM or sampling.eta:
        yield f"{path}: only the noise of sampler ddim with eta 0 decides the image; use these, or 0"
    if 2 * sampling.interpolations > sampling.count:
        yield f"{path}: {sampling.interpolations} pairs of images are more than the {sampling.count} of count"


def _check_start(path: str, sampling: SurrogateSampling, model: Named | None, params: Params) -> Iterator[str]:
    yield from reference(f"{path}.surrogate", sampling.surrogate, params, "surrogates")
    surrogate = params.surrogates.get(sampling.surrogate)
    if model is None or surrogate is None:
        return
    yield from _check_pair(path, sampling, surrogate, model, params)
    timesteps = model.process.timesteps
    if sampling.t_mid > timesteps:
        yield f"{path}.t_mid: {sampling.t_mid} is more than the model's T = {timesteps}"
        return
    if sampling.t_mid > 0:
        try:
            taken = truncated_process(model.process, str(sampling.steps), sampling.t_mid).timesteps
        except ValueError as error:
            yield f"{path}.steps: {error}"
        else:
            variance = model.process.variance
            yield from check_skipping(f"{path}.steps", variance, taken, sampling.t_mid, sampling.sampler)
    if isinstance(surrogate, DiffusionSurrogate) and sampling.surrogate_steps is not None:
        yield from _check_upper(f"{path}.surrogate_steps", sampling, surrogate, model)


def _check_upper(path: str, sampling: SurrogateSampling, surrogate: DiffusionSurrogate, model: Named) -> Iterator[str]:
    above = model.process.timesteps - sampling.t_mid
    if above == 0:
        return
    try:
        chain = upper_process(model.process, str(sampling.surrogate_steps), sampling.t_mid)
    except ValueError as error:
        yield f"{path}: {error}"
    else:
        taken = chain.timesteps - (sampling.t_mid > 0)  # its step 0 stands for t_mid and is never taken
        yield from check_skipping(path, surrogate.diffusion.variance, taken, above, sampling.sampler)


def _check_pair(
    path: str, sampling: SurrogateSampling, surrogate: Surrogate, model: Named, params: Params
) -> Iterator[str]:
    told = surrogate.network if isinstance(surrogate, DiffusionSurrogate) else surrogate
    conditioning = told.conditioning
    yield from _check_same_images(f"{path}.surrogate", surrogate, conditioning, model, params)
    if conditioning is not model.architecture.network.conditioning:
        yield (
            f"{path}.surrogate: conditioning is {conditioning}, the model's is "
            f"{model.architecture.network.conditioning}: labels would not match"
        )
    if isinstance(surrogate, DiffusionSurrogate):
        if _noising(surrogate.diffusion) != _noising(model.architecture.diffusion):
            yield f"{path}.surrogate: its noise schedule is not the model's: t_mid would be another noise level"
        if surrogate.size >= model.size:
            yield f"{path}.surrogate: works at {surrogate.size} pixels, not below the model's {model.size}"
    else:
        if sampling.surrogate_steps is not None:
            yield f"{path}.surrogate_steps: an sngan takes no steps; only a diffusion surrogate does"
        if sampling.handover is not Handover.X_START:
            yield f"{path}.handover: an sngan has no x_t; only a diffusion surrogate does"
        if model.size != model.card.size:
            yield f"{path}.surrogate: draws {model.card.size} pixels, the model {model.size}"


def _check_same_images(
    path: str, surrogate: Surrogate, conditioning: Conditioning, model: Named, params: Params
) -> Iterator[str]:
    if model.dataset is not None:
        if surrogate.dataset != model.dataset:
            yield f"{path}: was trained on dataset {surrogate.dataset}, the model on {model.dataset}"
    elif surrogate.dataset in params.datasets:  # an import names no dataset: what its images are must do
        card = known_card(params.datasets[surrogate.dataset])
        theirs, ours = images_of(card), images_of(model.card)
        if theirs != ours:
            yield f"{path}: was trained on images of {theirs}, the model on {ours}"
        elif conditioning is Conditioning.CLASS and model.classes not in (0, card.classes):
            yield f"{path}: has {card.classes} classes, the model {model.classes}"


def _noising(diffusion: Diffusion) -> tuple[object, ...]:
    return diffusion.timesteps, diffusion.schedule, diffusion.beta_start, diffusion.beta_end


def check_evaluation(path: str, evaluation: Evaluation, params: Params) -> Iterator[str]:
    """Of an evaluation: images of one kind, and enough of them on both sides."""
    yield from reference(f"{path}.samples", evaluation.samples, params, *SAMPLE_GROUPS)
    yield from reference(f"{path}.dataset", evaluation.dataset, params, "datasets")
    drawn = sample_set(evaluation.samples, params)
    samples = None if drawn is None else Counted(drawn.images, f"samples of {evaluation.samples}")
    real = None
    if evaluation.dataset in params.datasets:
        card = known_card(params.datasets[evaluation.dataset])
        if evaluation.split in card.counts:
            real = Counted(card.counts[evaluation.split], f"{evaluation.split} images of {evaluation.dataset}")
        if drawn is not None and samples is not None and drawn.model is not None:
            yield from _check_comparable(path, evaluation, samples, drawn.model, card)
    yield from (f"{path}.{problem}" for problem in setting_problems(evaluation, samples, real))


def _check_comparable(path: str, evaluation: Evaluation, samples: Counted, model: Named, card: Card) -> Iterator[str]:
    """The reference has the samples' size, or is averaged to it as it was for the training of a smaller model."""
    values = model.size**2 * card.channels
    problems = [*pixel_problems(evaluation.features, values)]
    # whether a module has classes is not known before it runs
    if evaluation.features in ("lite0", "inception") or (
        evaluation.features == PIXELS and card.classes and values <= SMALL
    ):
        problems += split_problems(evaluation, samples)
    yield from (f"{path}.{problem}" for problem in problems)
    own_images = model.architecture.size is not None and model.dataset == evaluation.dataset
    if model.card.channels != card.channels or (model.size != card.size and not own_images):
        yield (
            f"{path}.dataset: images of {images_of(card)}, "
            f"the samples of {evaluation.samples} have {images_of(model.card, model.size)}"
        )
    elif card.size % model.size:
        yield f"{path}.dataset: its {card.size} pixels are no multiple of the {model.size} of the samples"
    elif 0 < card.classes < min(model.classes, samples.number):
        yield f"{path}.dataset: has {card.classes} classes, the samples of {evaluation.samples} are of {model.classes}"


def check_likelihood(path: str, likelihood: Likelihood, params: Params) -> Iterator[str]:
    """Of a likelihood: a model, a dataset of its kind of images, and steps that its T has."""
    yield from reference(f"{path}.model", likelihood.model, params, *MODEL_GROUPS)
    yield from reference(f"{path}.dataset", likelihood.dataset, params, "datasets")
    yield from check_weights(path, likelihood.model, likelihood.weights, params)
    if likelihood.checkpoints is Checkpoints.ALL:
        yield from _check_snapshots(f"{path}.checkpoints", likelihood.model, params)
    model = named_model(likelihood.model, params)
    if model is not None and likelihood.steps is not None:
        yield from _check_stride(f"{path}.steps", likelihood.steps, model)
    dataset = params.datasets.get(likelihood.dataset)
    if dataset is None:
        return
    card = known_card(dataset)
    if model is not None:
        yield from check_known_images(f"{path}.dataset", model, card)
    for split, available in card.counts.items():
        asked = likelihood.split in (split, Splits.BOTH)
        if asked and likelihood.images is not None and likelihood.images > available:
            yield f"{path}.images: {likelihood.images} is more than the {available} images of {split}"


def _check_snapshots(path: str, name: str, params: Params) -> Iterator[str]:
    if name in params.models:
        training = params.models[name].training
        if training.snapshot_every is None or training.snapshot_every >= training.steps:
            yield (
                f"{path}: all, but {name} keeps no snapshots: set models.{name}.training.snapshot_every below its "
                f"{training.steps} steps, or use final"
            )
    elif name in params.imports or name in params.mixtures:
        yield f"{path}: all, but only models have snapshots, {name} has none; use final"


def _check_stride(path: str, steps: int, model: Named) -> Iterator[str]:
    timesteps, variance = model.process.timesteps, model.process.variance
    if steps > timesteps:
        yield f"{path}: {steps} is more than the model's T = {timesteps}"
    else:
        taken = strided_process(model.process, steps).timesteps
        yield from check_skipping(path, variance, taken, timesteps, sampler=None)


def check_gradient_noise(path: str, entry: GradientNoise, params: Params) -> Iterator[str]:
    """Of a measurement of gradient noise: a training that keeps snapshots, and its own images."""
    yield from reference(f"{path}.model", entry.model, params, "models")
    yield from reference(f"{path}.dataset", entry.dataset, params, "datasets")
    model = params.models.get(entry.model)
    if model is None:
        return
    if model.training.snapshot_every is None:
        yield f"{path}.model: {entry.model} keeps no snapshots: set models.{entry.model}.training.snapshot_every"
    if entry.dataset in params.datasets and entry.dataset != model.dataset:
        yield f"{path}.dataset: {entry.dataset}, but {entry.model} is trained on {model.dataset}"
