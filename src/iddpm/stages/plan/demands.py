"""From parameters to what every stage needs: operations, memory, disk, and the stages before it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from iddpm.data import known_card
from iddpm.params import (
    Dataset,
    DiffusionSurrogate,
    GradientNoise,
    ImagesDataset,
    Import,
    Mixture,
    Model,
    Params,
    Surrogate,
    Training,
)
from iddpm.stages.context import GROUPS
from iddpm.stages.plan.known import Demand, Known, shown_count
from iddpm.stages.plan.memory import NUMBER
from iddpm.stages.plan.operations import TRAINING_PASSES, Decoding, TrainingStep
from iddpm.stages.plan.storage import gan_bytes, image_bytes, resume_bytes, shard_bytes, training_bytes
from iddpm.stages.plan.uses import cascade, evaluate, likelihood, reconstruct, sample, surrogate_sample


def demands_of(
    params: Params, root: Path, images: Mapping[str, tuple[int, ...]] = {}
) -> tuple[list[Demand], list[str]]:
    """Of every stage of the pipeline, in its order, and notes on what cannot be known yet; `images` as for Known."""
    known = Known(params, root, images)
    found = []
    for kind, group in GROUPS.items():
        for name, entry in getattr(params, group).items():
            found.append(DEMANDS[kind](f"{kind}@{name}", entry, known))
    return [*found, Demand("report", [demand.address for demand in found])], known.notes


def _shard(address: str, dataset: Dataset, known: Known) -> Demand:
    card, counts = known_card(dataset), known.counts(address.partition("@")[2])
    count = sum(counts.values())
    return Demand(
        address,
        work=f"{shown_count(count)} images",
        operations=[(Decoding(card.size, card.channels), count)] if isinstance(dataset, ImagesDataset) else [],
        disk=shard_bytes(dataset, card, counts),
    )


def _surrogate(address: str, surrogate: Surrogate, known: Known) -> Demand:
    if isinstance(surrogate, DiffusionSurrogate):
        return _train(address, surrogate, known)
    step, _, numbers = known.gan(surrogate)
    return Demand(
        address,
        [f"shard@{surrogate.dataset}"],
        workers=1,
        parameters=sum(numbers),
        multiply_adds=step.generator + step.discriminator,
        work=f"{surrogate.steps:,} x {surrogate.batch_size}",
        operations=[(step, surrogate.steps)],
        memory=known.memory(step),
        disk=gan_bytes(*numbers),
    )


def _train(address: str, model: Model, known: Known) -> Demand:
    training, workers = model.training, max(1, known.params.compute.workers)
    network = known.unet(model, known_card(known.params.datasets[model.dataset]))
    step = TrainingStep(network, _timeless(training))
    return Demand(
        address,
        [f"shard@{model.dataset}"],
        workers=workers,
        parameters=network.parameters,
        multiply_adds=network.multiply_adds,
        work=f"{training.steps:,} x {training.batch_size}",
        operations=[(step, training.steps)],
        paper_flops=2.0 * TRAINING_PASSES * network.multiply_adds * training.steps * training.batch_size,
        memory=known.memory(step, workers),
        disk=training_bytes(network.parameters, training),
        running_disk=resume_bytes(network.parameters),
    )


def _timeless(training: Training) -> Training:
    """Without what a step's time and memory do not depend on, so that equal steps are measured once."""
    kept = {"batch_size", "objective", "noise_draws", "draws_at_once", "timestep_sampling", "extra_measurements"}
    kept |= {"horizontal_flips", "microbatches", "precision", "iwdiff_reduction"}
    return Training(steps=1, learning_rate=1e-3, **{name: getattr(training, name) for name in kept})


def _import(address: str, entry: Import, known: Known) -> Demand:
    network = known.named(address.partition("@")[2])
    return Demand(
        address,
        parameters=network.parameters,
        multiply_adds=network.multiply_adds,
        disk=NUMBER * network.parameters,
    )


def _mix(address: str, mixture: Mixture, known: Known) -> Demand:
    names = mixture.middle, mixture.ends
    parameters = sum(known.named(name).parameters for name in names)
    needs = [known.model_stage(name) for name in names]
    return Demand(address, needs, parameters=parameters, disk=2 * NUMBER * parameters)


def _gradient_noise(address: str, entry: GradientNoise, known: Known) -> Demand:
    """Training steps in one process, as many images at once in them as in a worker's; the images are read once."""
    model = known.params.models[entry.model]
    training, workers = model.training, max(1, known.params.compute.workers)
    assert training.snapshot_every is not None  # iddpm.checks
    card = known_card(known.params.datasets[entry.dataset])
    network = known.unet(model, card)
    changes = {"microbatches": training.microbatches * workers, "extra_measurements": 0}
    step = TrainingStep(network, _timeless(training.model_copy(update=changes)))
    snapshots = training.steps // training.snapshot_every
    return Demand(
        address,
        [f"train@{entry.model}", f"shard@{entry.dataset}"],
        workers=1,
        parameters=network.parameters,
        multiply_adds=network.multiply_adds,
        work=f"{snapshots} x {entry.batches} x {training.batch_size}",
        operations=[(step, snapshots * entry.batches)],
        memory=known.memory(step) | {"gradients": 2 * NUMBER * network.parameters},
        host_memory=image_bytes(entry.batches * training.batch_size, card.size, card.channels),
    )


DEMANDS: dict[str, Callable[[str, Any, Known], Demand]] = {
    "shard": _shard,
    "surrogate": _surrogate,
    "train": _train,
    "import": _import,
    "mix": _mix,
    "sample": sample,
    "surrogate-sample": surrogate_sample,
    "cascade": cascade,
    "reconstruct": reconstruct,
    "evaluate": evaluate,
    "likelihood": likelihood,
    "gradient-noise": _gradient_noise,
}
"""Stage -> what tells an entry's demand from (address, entry, known)."""
