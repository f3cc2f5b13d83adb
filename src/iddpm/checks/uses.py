"""Contradictions in what is done with models: samplings, evaluations, likelihoods."""

from collections.abc import Iterator

from iddpm.checks.references import MODEL_GROUPS, Named, named_model, reference
from iddpm.data import known_card
from iddpm.diffusion import Handover, truncated_process, upper_process
from iddpm.params import (
    Diffusion,
    DiffusionSurrogate,
    Evaluation,
    Likelihood,
    Params,
    Sampling,
    Surrogate,
    SurrogateSampling,
)


def check_sampling(path: str, sampling: Sampling, params: Params) -> Iterator[str]:
    """Of a sampling, with or without a surrogate."""
    yield from reference(f"{path}.model", sampling.model, params, *MODEL_GROUPS)
    model = named_model(sampling.model, params)
    if sampling.sampler == "ancestral" and sampling.eta:
        yield f"{path}.eta: only the ddim sampler has it"
    if model is not None and model.architecture.upsampling is not None:
        yield f"{path}.model: {sampling.model} is an upsampler; it cannot start from noise alone"
    if isinstance(sampling, SurrogateSampling):
        yield from _check_start(path, sampling, model, params)
    elif model is not None:
        try:
            model.process.respaced(str(sampling.steps))
        except ValueError as error:
            yield f"{path}.steps: {error}"


def _check_start(path: str, sampling: SurrogateSampling, model: Named | None, params: Params) -> Iterator[str]:
    yield from reference(f"{path}.surrogate", sampling.surrogate, params, "surrogates")
    surrogate = params.surrogates.get(sampling.surrogate)
    if model is None or surrogate is None:
        return
    yield from _check_pair(path, sampling, surrogate, model)
    timesteps = model.process.timesteps
    if sampling.t_mid > timesteps:
        yield f"{path}.t_mid: {sampling.t_mid} is more than the model's T = {timesteps}"
        return
    try:
        if sampling.t_mid > 0:
            truncated_process(model.process, str(sampling.steps), sampling.t_mid)
    except ValueError as error:
        yield f"{path}.steps: {error}"
    try:
        if sampling.surrogate_steps is not None and sampling.t_mid < timesteps:
            upper_process(model.process, str(sampling.surrogate_steps), sampling.t_mid)
    except ValueError as error:
        yield f"{path}.surrogate_steps: {error}"


def _check_pair(path: str, sampling: SurrogateSampling, surrogate: Surrogate, model: Named) -> Iterator[str]:
    low_resolution = isinstance(surrogate, DiffusionSurrogate)
    conditioning = surrogate.network.conditioning if low_resolution else surrogate.conditioning  # type: ignore[union-attr]
    if surrogate.dataset != model.dataset:
        yield f"{path}.surrogate: was trained on dataset {surrogate.dataset}, the model on {model.dataset}"
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


def _noising(diffusion: Diffusion) -> tuple[object, ...]:
    return diffusion.timesteps, diffusion.schedule, diffusion.beta_start, diffusion.beta_end


def check_evaluation(path: str, evaluation: Evaluation, params: Params) -> Iterator[str]:
    """Of an evaluation: enough images on both sides."""
    yield from reference(f"{path}.samples", evaluation.samples, params, "samplings", "surrogate_samplings")
    yield from reference(f"{path}.dataset", evaluation.dataset, params, "datasets")
    sets = {}
    if sampling := params.samplings.get(evaluation.samples) or params.surrogate_samplings.get(evaluation.samples):
        sets[f"samples of {evaluation.samples}"] = sampling.count
    if evaluation.dataset in params.datasets:
        counts = known_card(params.datasets[evaluation.dataset]).counts
        if evaluation.split in counts:
            sets[f"{evaluation.split} images of {evaluation.dataset}"] = counts[evaluation.split]
    for what, count in sets.items():
        if evaluation.neighbours >= count:
            yield f"{path}.neighbours: {evaluation.neighbours} neighbours need more than the {count} {what}"
        if evaluation.kid_subset_size > count:
            yield f"{path}.kid_subset_size: {evaluation.kid_subset_size} is more than the {count} {what}"


def check_likelihood(path: str, likelihood: Likelihood, params: Params) -> Iterator[str]:
    """Of a likelihood: a model, a dataset of its kind of images, and steps that its T has."""
    yield from reference(f"{path}.model", likelihood.model, params, *MODEL_GROUPS)
    yield from reference(f"{path}.dataset", likelihood.dataset, params, "datasets")
    model = named_model(likelihood.model, params)
    if model is not None and likelihood.steps is not None and likelihood.steps > model.process.timesteps:
        yield f"{path}.steps: {likelihood.steps} is more than the model's T = {model.process.timesteps}"
    dataset = params.datasets.get(likelihood.dataset)
    if dataset is None:
        return
    card = known_card(dataset)
    if model is not None and (model.card.size, model.card.channels) != (card.size, card.channels):
        yield (
            f"{path}.dataset: images of {card.size} pixels and {card.channels} channels, "
            f"the model's have {model.card.size} and {model.card.channels}"
        )
    available = card.counts.get(likelihood.split)
    if likelihood.images is not None and available is not None and likelihood.images > available:
        yield f"{path}.images: {likelihood.images} is more than the {available} images of {likelihood.split}"
