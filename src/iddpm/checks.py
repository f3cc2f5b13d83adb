"""What the types cannot see: contradictions between parameters, found before the first stage runs."""

from collections.abc import Iterator
from pathlib import Path

from iddpm.data.sources import known_card
from iddpm.diffusion import GaussianDiffusion, Objective, truncated_process
from iddpm.errors import UserError
from iddpm.nets.sngan import bottom_size
from iddpm.params import (
    Conditioning,
    Evaluation,
    Likelihood,
    Model,
    Params,
    Sampling,
    Surrogate,
    SurrogateSampling,
    read_params,
)
from iddpm.training.build import build_process


def load_params(path: Path) -> Params:
    """Read, type-check and cross-check a parameter file; UserError lists every problem with its key."""
    params = read_params(path)
    if problems := list(contradictions(params)):
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return params


def contradictions(params: Params) -> Iterator[str]:
    """One line per contradiction, beginning with the path of the wrong key."""
    for name, surrogate in params.surrogates.items():
        yield from _check_surrogate(f"surrogates.{name}", surrogate, params)
    for name, model in params.models.items():
        yield from _check_model(f"models.{name}", model, params)
    for group in ("samplings", "surrogate_samplings"):
        for name, sampling in getattr(params, group).items():
            yield from _check_sampling(f"{group}.{name}", sampling, params)
    for name in params.samplings.keys() & params.surrogate_samplings.keys():
        yield f"surrogate_samplings.{name}: the name is taken by samplings.{name}; both write runs/samples/{name}"
    for name, evaluation in params.evaluations.items():
        path = f"evaluations.{name}"
        yield from _reference(f"{path}.samples", evaluation.samples, params, "samplings", "surrogate_samplings")
        yield from _reference(f"{path}.dataset", evaluation.dataset, params, "datasets")
        yield from _check_evaluation(path, evaluation, params)
    for name, likelihood in params.likelihoods.items():
        yield from _check_likelihood(f"likelihoods.{name}", likelihood, params)


def _reference(path: str, name: str, params: Params, *groups: str) -> Iterator[str]:
    known = [key for group in groups for key in getattr(params, group)]
    if name not in known:
        yield f"{path}: {name!r} is not in {' or '.join(groups)} ({', '.join(sorted(known)) or 'which is empty'})"


def _check_model(path: str, model: Model, params: Params) -> Iterator[str]:
    network, training, diffusion = model.network, model.training, model.diffusion
    yield from _reference(f"{path}.dataset", model.dataset, params, "datasets")
    try:
        build_process(diffusion)
    except ValueError as error:
        yield f"{path}.diffusion: {error}"
    if (diffusion.beta_start is None) != (diffusion.beta_end is None):
        yield f"{path}.diffusion.beta_start: needs beta_end beside it, and the reverse"
    if diffusion.beta_start is not None and diffusion.schedule != "linear":
        yield f"{path}.diffusion.beta_start: a {diffusion.schedule} schedule has no endpoints"
    if training.objective is Objective.HYBRID and not diffusion.variance.learned:
        yield f"{path}.training.objective: hybrid trains a learned variance, diffusion.variance is {diffusion.variance}"
    if training.objective is Objective.SIMPLE and diffusion.variance.learned:
        yield f"{path}.training.objective: simple leaves variance {diffusion.variance} untrained; use hybrid or vlb"
    share = max(1, params.compute.workers) * training.microbatches
    if training.batch_size % share:
        yield (
            f"{path}.training.batch_size: {training.batch_size} does not divide into {params.compute.workers} workers "
            f"x {training.microbatches} microbatches"
        )
    for level, multiplier in enumerate(network.channel_mult):
        if (network.width * multiplier) % network.heads:
            channels = network.width * multiplier
            yield f"{path}.network.heads: {network.heads} do not divide the {channels} channels of level {level}"
    if model.dataset in params.datasets:
        yield from _check_model_on_data(path, model, params)


def _check_model_on_data(path: str, model: Model, params: Params) -> Iterator[str]:
    card = known_card(params.datasets[model.dataset])
    network = model.network
    sizes = [card.size >> level for level in range(len(network.channel_mult))]
    if card.size % 2 ** (len(sizes) - 1):
        yield f"{path}.network.channel_mult: {len(sizes)} levels cannot halve {card.size} pixels evenly"
    for size in network.attention_sizes:
        if size not in sizes:
            yield f"{path}.network.attention_sizes: the network never reaches {size} pixels, only {sizes}"
    if network.conditioning is Conditioning.CLASS and not card.classes:
        yield f"{path}.network.conditioning: dataset {model.dataset} has no classes"
    if model.training.batch_size > card.counts["train"]:
        yield (
            f"{path}.training.batch_size: {model.training.batch_size} is more than the {card.counts['train']} "
            f"training images of dataset {model.dataset}"
        )


def _check_surrogate(path: str, surrogate: Surrogate, params: Params) -> Iterator[str]:
    yield from _reference(f"{path}.dataset", surrogate.dataset, params, "datasets")
    if surrogate.dataset not in params.datasets:
        return
    card = known_card(params.datasets[surrogate.dataset])
    try:
        bottom_size(card.size)
    except ValueError as error:
        yield f"{path}.dataset: {error}"
    if surrogate.conditioning is Conditioning.CLASS and not card.classes:
        yield f"{path}.conditioning: dataset {surrogate.dataset} has no classes"
    if surrogate.batch_size > card.counts["train"]:
        yield f"{path}.batch_size: {surrogate.batch_size} is more than the {card.counts['train']} training images"


def _check_sampling(path: str, sampling: Sampling, params: Params) -> Iterator[str]:
    yield from _reference(f"{path}.model", sampling.model, params, "models")
    model = params.models.get(sampling.model)
    process: GaussianDiffusion | None = None
    if model is not None:
        try:
            process = build_process(model.diffusion)
        except ValueError:
            return  # reported with the model
        if sampling.sampler == "ancestral" and sampling.eta:
            yield f"{path}.eta: only the ddim sampler has it"
    if isinstance(sampling, SurrogateSampling):
        yield from _check_start(path, sampling, process, params)
    elif process is not None:
        try:
            process.respaced(str(sampling.steps))
        except ValueError as error:
            yield f"{path}.steps: {error}"


def _check_start(
    path: str, sampling: SurrogateSampling, process: GaussianDiffusion | None, params: Params
) -> Iterator[str]:
    yield from _reference(f"{path}.surrogate", sampling.surrogate, params, "surrogates")
    surrogate, model = params.surrogates.get(sampling.surrogate), params.models.get(sampling.model)
    if surrogate is not None and model is not None:
        if surrogate.dataset != model.dataset:
            yield f"{path}.surrogate: was trained on dataset {surrogate.dataset}, the model on {model.dataset}"
        if surrogate.conditioning is not model.network.conditioning:
            yield (
                f"{path}.surrogate: conditioning is {surrogate.conditioning}, the model's is "
                f"{model.network.conditioning}: labels would not match"
            )
    if process is None or sampling.t_mid == 0:
        return
    if sampling.t_mid > process.timesteps:
        yield f"{path}.t_mid: {sampling.t_mid} is more than the model's T = {process.timesteps}"
        return
    try:
        truncated_process(process, str(sampling.steps), sampling.t_mid)
    except ValueError as error:
        yield f"{path}.steps: {error}"


def _check_evaluation(path: str, evaluation: Evaluation, params: Params) -> Iterator[str]:
    sets = {}
    if sampling := params.samplings.get(evaluation.samples) or params.surrogate_samplings.get(evaluation.samples):
        sets[f"samples of {evaluation.samples}"] = sampling.count
    if evaluation.dataset in params.datasets:
        reference = known_card(params.datasets[evaluation.dataset])
        sets[f"{evaluation.split} images of {evaluation.dataset}"] = reference.counts[evaluation.split]
    for what, count in sets.items():
        if evaluation.neighbours >= count:
            yield f"{path}.neighbours: {evaluation.neighbours} neighbours need more than the {count} {what}"
        if evaluation.kid_subset_size > count:
            yield f"{path}.kid_subset_size: {evaluation.kid_subset_size} is more than the {count} {what}"


def _check_likelihood(path: str, likelihood: Likelihood, params: Params) -> Iterator[str]:
    yield from _reference(f"{path}.model", likelihood.model, params, "models")
    yield from _reference(f"{path}.dataset", likelihood.dataset, params, "datasets")
    dataset = params.datasets.get(likelihood.dataset)
    if dataset is not None and likelihood.images is not None:
        available = known_card(dataset).counts[likelihood.split]
        if likelihood.images > available:
            yield f"{path}.images: {likelihood.images} is more than the {available} images of {likelihood.split}"
