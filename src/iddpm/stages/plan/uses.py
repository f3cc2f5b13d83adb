"""What stages need that use finished models: passes of images through networks, and scores."""

from dataclasses import replace

from iddpm.checks.references import named_model
from iddpm.data import known_card
from iddpm.diffusion import GaussianDiffusion, strided_process, truncated_process, upper_process
from iddpm.params import (
    Cascade,
    Checkpoints,
    DiffusionSurrogate,
    Evaluation,
    Likelihood,
    Reconstruction,
    Sampling,
    ScoreSettings,
    Splits,
    SurrogateSampling,
)
from iddpm.stages.draw import INTERPOLATED
from iddpm.stages.plan.known import Demand, Known, Repeated, shown_count
from iddpm.stages.plan.memory import features_bytes
from iddpm.stages.plan.operations import FeaturePass, NetworkPass, PlannedNetwork, Scoring
from iddpm.stages.plan.storage import image_bytes
from iddpm.training.build import build_process


def _passes(
    address: str, name: str, known: Known, *, images: int, steps: float, batch: int, bound: bool = False
) -> Demand:
    """`images` images through `steps` evaluations each of the model of that name."""
    batch = max(1, min(batch, images))
    operations: Repeated = [
        (NetworkPass(known.named(part), batch, bound), images * steps * share / batch)
        for part, share in known.parts(name).items()
    ]
    networks = [operation.network for operation, _ in operations if isinstance(operation, NetworkPass)]
    memories = [known.memory(operation) for operation, _ in operations if isinstance(operation, NetworkPass)]
    return Demand(
        address,
        [known.model_stage(name)],
        workers=1,
        parameters=sum(network.parameters for network in networks),
        multiply_adds=max(network.multiply_adds for network in networks),
        work=f"{images:,} x {steps:,.0f}",
        operations=operations,
        memory=max(memories, key=lambda parts: sum(parts.values())),
    )


def _process(name: str, known: Known) -> GaussianDiffusion:
    model = named_model(name, known.params)
    assert model is not None  # iddpm.checks
    return model.process


def _with_images(demand: Demand, images: int, network: PlannedNetwork) -> Demand:
    """With the images: in memory until all are drawn, in work/ batch by batch, and then on the disk."""
    size = image_bytes(images, network.size, network.card.channels)
    return replace(demand, host_memory=demand.host_memory + size, disk=size, running_disk=size)


def sample(address: str, sampling: Sampling, known: Known) -> Demand:
    steps = _process(sampling.model, known).respaced(str(sampling.steps)).timesteps
    demand = _passes(address, sampling.model, known, images=sampling.count, steps=steps, batch=sampling.batch_size)
    if sampling.interpolations:
        pairs = NetworkPass(known.named(sampling.model), INTERPOLATED)
        demand.operations.append((pairs, sampling.interpolations * steps))
    return _with_images(demand, sampling.count, known.named(sampling.model))


def surrogate_sample(address: str, sampling: SurrogateSampling, known: Known) -> Demand:
    process, surrogate = _process(sampling.model, known), known.params.surrogates[sampling.surrogate]
    steps, t_mid = str(sampling.steps), sampling.t_mid
    below = truncated_process(process, steps, t_mid).timesteps if t_mid else 0
    count, batch = sampling.count, min(sampling.batch_size, sampling.count)
    demand = _passes(address, sampling.model, known, images=count, steps=below, batch=batch)
    demand.needs.append(f"surrogate@{sampling.surrogate}")
    if t_mid < process.timesteps and isinstance(surrogate, DiffusionSurrogate):
        network = known.unet(surrogate, known_card(known.params.datasets[surrogate.dataset]))
        spacing = str(sampling.surrogate_steps or process.timesteps - t_mid)
        above = upper_process(build_process(surrogate.diffusion), spacing, t_mid).timesteps - (t_mid > 0)
        demand.operations.append((NetworkPass(network, batch), count * above / batch))
        demand.work = f"{count:,} x ({above:,} + {below:,})"
    elif t_mid < process.timesteps and not isinstance(surrogate, DiffusionSurrogate):
        _, drawn, _ = known.gan(surrogate)
        demand.operations.append((replace(drawn, images=batch), count / batch))
        demand.work = f"{count:,} x (1 + {below:,})"
    return _with_images(demand, count, known.named(sampling.model))


def cascade(address: str, entry: Cascade, known: Known) -> Demand:
    count = known.sampling(entry.samples).count
    steps = _process(entry.upsampler, known).respaced(str(entry.steps)).timesteps
    demand = _passes(address, entry.upsampler, known, images=count, steps=steps, batch=entry.batch_size)
    demand.needs.append(known.samples_stage(entry.samples))
    upsampling = known.named(entry.upsampler).architecture.upsampling
    assert upsampling is not None  # iddpm.checks
    demand.host_memory = image_bytes(count, upsampling.low_size, known.named(entry.upsampler).card.channels)
    return _with_images(demand, count, known.named(entry.upsampler))


def reconstruct(address: str, entry: Reconstruction, known: Known) -> Demand:
    steps = _process(entry.upsampler, known).respaced(str(entry.steps)).timesteps
    demand = _passes(address, entry.upsampler, known, images=entry.images, steps=steps, batch=entry.batch_size)
    demand.needs.append(f"shard@{entry.dataset}")
    network = known.named(entry.upsampler)
    # beside the upsampled: the images as read, the originals, bilinear and bicubic, one of these twice
    demand.host_memory = 5 * image_bytes(entry.images, network.size, network.card.channels)
    shape = (network.size, network.size, network.card.channels)
    cost = known.features(entry.features, shape)
    if cost.multiply_adds:  # of the originals, upsampled, bilinear and bicubic
        features = FeaturePass(entry.features, shape, cost.multiply_adds)
        demand.operations.append((features, 4 * entry.images / features.images))
    return _with_images(demand, entry.images, network)


def likelihood(address: str, entry: Likelihood, known: Known) -> Demand:
    """Every term of the bound, of each split, under each checkpoint."""
    process = _process(entry.model, known)
    steps = strided_process(process, entry.steps).timesteps if entry.steps else process.timesteps
    splits = ("train", "test") if entry.split is Splits.BOTH else (entry.split.value,)
    images = sum(known.counts(entry.dataset)[split] if entry.images is None else entry.images for split in splits)
    if entry.checkpoints is Checkpoints.ALL:
        training = known.params.models[entry.model].training
        assert training.snapshot_every is not None  # iddpm.checks
        images *= 1 + len(range(training.snapshot_every, training.steps, training.snapshot_every))
    demand = _passes(address, entry.model, known, images=images, steps=steps, batch=entry.batch_size, bound=True)
    demand.needs.append(f"shard@{entry.dataset}")
    return demand


def evaluate(address: str, entry: Evaluation, known: Known) -> Demand:
    """Features of the samples, and of the reference unless an evaluation before has computed them; then the scores."""
    sampling = known.sampling(entry.samples)
    upsampled = known.params.cascades.get(entry.samples)
    network = known.named(sampling.model if upsampled is None else upsampled.upsampler)
    card = known_card(known.params.datasets[entry.dataset])
    samples, reference = sampling.count, known.counts(entry.dataset)[entry.split.value]
    shape = (network.size, network.size, card.channels)
    cost = known.features(entry.features, shape)
    scoring = Scoring(
        ScoreSettings(**{name: getattr(entry, name) for name in ScoreSettings.model_fields if name != "seed"}),
        samples=samples,
        reference=reference,
        dimensions=cost.dimensions,
        classes=cost.classes,
        shape=shape,
        labelled=card.classes > 0,
    )
    key = repr((entry.dataset, entry.split, entry.features, shape))
    extracted = samples if key in known.reference_features else samples + reference
    known.reference_features.add(key)
    operations: Repeated = [(scoring, 1.0)]
    numbers = cost.dimensions + cost.classes
    if cost.multiply_adds:
        features = FeaturePass(entry.features, shape, cost.multiply_adds)
        operations.append((features, extracted / features.images))
    return Demand(
        address,
        [known.samples_stage(entry.samples), f"shard@{entry.dataset}"],
        workers=1,
        multiply_adds=cost.multiply_adds,
        work=f"{samples:,} + {shown_count(reference)}",
        operations=operations,
        memory={"features": features_bytes(samples + reference, numbers)},
        host_memory=features_bytes(max(samples, reference), numbers),
        disk=features_bytes(extracted, numbers),
    )
