"""Contradictions within models and surrogates."""

from collections.abc import Iterator

from iddpm.checks.references import Named, named_model, reference
from iddpm.data import Card, known_card
from iddpm.diffusion import IwdiffReduction, Objective, TimestepSampling
from iddpm.errors import UserError
from iddpm.exchange import architecture_from_flags
from iddpm.params import (
    Block,
    Conditioning,
    Diffusion,
    DiffusionSurrogate,
    Import,
    Mixture,
    Model,
    Network,
    Params,
    SnganSurrogate,
    Surrogate,
    Training,
)
from iddpm.training.build import build_process


def check_model(path: str, model: Model, params: Params) -> Iterator[str]:
    """Of a diffusion model, surrogates among them."""
    yield from reference(f"{path}.dataset", model.dataset, params, "datasets")
    yield from _check_diffusion(f"{path}.diffusion", model.diffusion)
    yield from _check_training(f"{path}.training", model.training, model.diffusion, params)
    yield from _check_network(f"{path}.network", model.network)
    if model.dataset in params.datasets:
        yield from _check_model_on_data(path, model, known_card(params.datasets[model.dataset]))


def _check_diffusion(path: str, diffusion: Diffusion) -> Iterator[str]:
    try:
        build_process(diffusion)
    except ValueError as error:
        yield f"{path}: {error}"
    if (diffusion.beta_start is None) != (diffusion.beta_end is None):
        yield f"{path}.beta_start: needs beta_end beside it, and the reverse"
    if diffusion.beta_start is not None and diffusion.schedule != "linear":
        yield f"{path}.beta_start: a {diffusion.schedule} schedule has no endpoints"


def _check_training(path: str, training: Training, diffusion: Diffusion, params: Params) -> Iterator[str]:
    objective, variance = training.objective, diffusion.variance
    if objective is Objective.HYBRID and not variance.learned:
        yield f"{path}.objective: hybrid trains a learned variance, diffusion.variance is {variance}"
    if variance.learned and not objective.trains_variance:
        yield f"{path}.objective: {objective} leaves variance {variance} untrained; use hybrid or vlb"
    if objective is Objective.IWDIFF and training.noise_draws < 2:
        yield f"{path}.noise_draws: iwdiff weighs several draws of noise; give at least 2"
    if objective is not Objective.IWDIFF and training.iwdiff_reduction is not IwdiffReduction.MEAN:
        yield f"{path}.iwdiff_reduction: the objective is {objective}, not iwdiff"
    yield from _check_vlb_weight(f"{path}.vlb_weight", training)
    if training.snapshot_every is not None and training.snapshot_every > training.steps:
        yield f"{path}.snapshot_every: {training.snapshot_every} is more than the {training.steps} steps: there is none"
    if training.draws_at_once is not None and training.draws_at_once > training.noise_draws:
        yield f"{path}.draws_at_once: {training.draws_at_once} is more than noise_draws = {training.noise_draws}"
    if training.extra_measurements and training.timestep_sampling is TimestepSampling.UNIFORM:
        yield f"{path}.extra_measurements: only loss_second_moment learns from them; timestep_sampling is uniform"
    share = max(1, params.compute.workers) * training.microbatches
    if training.batch_size % share:
        yield (
            f"{path}.batch_size: {training.batch_size} does not divide into {params.compute.workers} workers "
            f"x {training.microbatches} microbatches"
        )


def _check_vlb_weight(path: str, training: Training) -> Iterator[str]:
    if training.objective is Objective.HYBRID and training.vlb_weight == 0:
        yield f"{path}: 0 leaves the learned variance untrained; use objective simple with a fixed variance"
    default = Training.model_fields["vlb_weight"].default
    if training.objective is not Objective.HYBRID and training.vlb_weight != default:
        yield f"{path}: the objective is {training.objective}, only hybrid has it; leave it out"


def _check_network(path: str, network: Network) -> Iterator[str]:
    if network.block is Block.MBCONV and network.scale_shift:
        yield f"{path}.scale_shift: an mbconv block adds the embedding; set it to false"
    yield from _check_embedding(path, network)
    for level, multiplier in enumerate(network.channel_mult):
        if (network.width * multiplier) % network.heads:
            channels = network.width * multiplier
            yield f"{path}.heads: {network.heads} do not divide the {channels} channels of level {level}"


def _check_embedding(path: str, network: Network) -> Iterator[str]:
    """Group norm with one channel per group takes away whatever was added to the channels: timestep and label."""
    if network.block is Block.MBCONV:
        widths = {4 * network.width * multiplier for multiplier in (1, *network.channel_mult)}
    else:
        widths = set() if network.scale_shift else {network.width * multiplier for multiplier in network.channel_mult}
    if blind := sorted(width for width in widths if 32 % width == 0):
        yield (
            f"{path}.width: with {blind[0]} channels every channel is a norm group of its own, which takes away the "
            "timestep that is added before it; " + ("widen it" if network.block is Block.MBCONV else "set scale_shift")
        )


def _check_model_on_data(path: str, model: Model, card: Card) -> Iterator[str]:
    network, own_size = model.network, model.size or card.size
    if own_size > card.size:
        yield f"{path}.size: {own_size} pixels are more than the {card.size} of dataset {model.dataset}"
    sizes = [own_size >> level for level in range(len(network.channel_mult))]
    if own_size % 2 ** (len(sizes) - 1):
        yield f"{path}.network.channel_mult: {len(sizes)} levels cannot halve {own_size} pixels evenly"
    for size in network.attention_sizes:
        if size not in sizes:
            yield f"{path}.network.attention_sizes: the network never reaches {size} pixels, only {sizes}"
    if model.upsampling is not None and model.upsampling.low_size >= own_size:
        yield f"{path}.upsampling.low_size: {model.upsampling.low_size} is not below the {own_size} pixels it makes"
    if network.conditioning is Conditioning.CLASS and not card.classes:
        yield f"{path}.network.conditioning: dataset {model.dataset} has no classes"
    yield from _enough_images(f"{path}.training.batch_size", model.training.batch_size, model.dataset, card)


def _enough_images(path: str, batch_size: int, dataset: str, card: Card) -> Iterator[str]:
    if batch_size > card.counts.get("train", batch_size):  # an image folder's count is not known before it is read
        yield f"{path}: {batch_size} is more than the {card.counts['train']} training images of dataset {dataset}"


def check_surrogate(path: str, surrogate: Surrogate, params: Params) -> Iterator[str]:
    """Of a surrogate of either kind."""
    if isinstance(surrogate, DiffusionSurrogate):
        yield from check_model(path, surrogate, params)
        yield from _check_low_resolution(path, surrogate, params)
    else:
        yield from _check_sngan(path, surrogate, params)


def _check_low_resolution(path: str, surrogate: DiffusionSurrogate, params: Params) -> Iterator[str]:
    if surrogate.upsampling is not None:
        yield f"{path}.upsampling: a surrogate starts from noise, it cannot be an upsampler"
    if surrogate.dataset in params.datasets and surrogate.size == known_card(params.datasets[surrogate.dataset]).size:
        yield f"{path}.size: {surrogate.size} is the dataset's own size; a surrogate works below it"


def _check_sngan(path: str, surrogate: SnganSurrogate, params: Params) -> Iterator[str]:
    yield from reference(f"{path}.dataset", surrogate.dataset, params, "datasets")
    if surrogate.dataset not in params.datasets:
        return
    card = known_card(params.datasets[surrogate.dataset])
    if surrogate.conditioning is Conditioning.CLASS and not card.classes:
        yield f"{path}.conditioning: dataset {surrogate.dataset} has no classes"
    yield from _enough_images(f"{path}.batch_size", surrogate.batch_size, surrogate.dataset, card)


def check_import(path: str, entry: Import) -> Iterator[str]:
    """Of an imported checkpoint: its flags."""
    try:
        architecture_from_flags(entry.flags)
    except (UserError, ValueError) as error:
        yield f"{path}.flags: {error}"


def _conditioned(model: Named) -> tuple[object, ...]:
    """What two networks must share to denoise the same images."""
    return model.card, model.size, model.architecture.network.conditioning, model.architecture.upsampling


def check_mixture(path: str, mixture: Mixture, params: Params) -> Iterator[str]:
    """Of a mixture: two models of the same process and data."""
    for key in ("middle", "ends"):
        yield from reference(f"{path}.{key}", getattr(mixture, key), params, "models", "imports")
    middle, ends = named_model(mixture.middle, params), named_model(mixture.ends, params)
    if middle is None or ends is None:
        return
    if middle.architecture.diffusion != ends.architecture.diffusion:
        yield f"{path}.ends: the process of {mixture.ends} is not that of {mixture.middle}"
    if _conditioned(middle) != _conditioned(ends):
        yield f"{path}.ends: images, classes or upsampling of {mixture.ends} are not those of {mixture.middle}"
    if 2 * mixture.within > middle.process.timesteps:
        yield f"{path}.within: twice {mixture.within} is more than T = {middle.process.timesteps}"
