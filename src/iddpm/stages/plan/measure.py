"""This machine, measured: a few real repetitions of every operation of a plan."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from iddpm.data import Card, write_shards
from iddpm.data.resizing import resize_and_crop
from iddpm.data.sources.base import ArraySource
from iddpm.data.sources.decoding import decode
from iddpm.diffusion import bound_terms, reverse_chain
from iddpm.evaluation import ScoredSet, nearest_figure, score
from iddpm.evaluation.images import ArrayImages
from iddpm.params import Device, DigitsDataset, Model, Source
from iddpm.randomness import PositionalRandom
from iddpm.stages.plan.features import untrained_network
from iddpm.stages.plan.operations import (
    Decoding,
    FeaturePass,
    GanPass,
    GanStep,
    NetworkPass,
    Operation,
    Scoring,
    TrainingStep,
)
from iddpm.training.build import build_gan, build_network, build_process
from iddpm.training.device import resolve_device
from iddpm.training.gan import GanTraining
from iddpm.training.loop import DiffusionTraining

Repetition = Callable[[], object]
AT_LEAST = 3
"""Timed repetitions."""
LONG_ENOUGH_S = 1.0
"""More are timed until they have taken so long together; one that takes AT_LEAST times as long alone is done once."""
FLOPS_AT_ONCE = {"cpu": 1e11, "cuda": 1e15}
"""By device: an operation of more is measured on fewer images, twice, and extrapolated on the line between."""
SCORED_AT_MOST = 1500
"""Images a side; the time of more is extrapolated by their operations."""
PHOTOGRAPH = 500, 375
"""Width and height in pixels of a file that is decoded: ImageNet's most frequent ones."""


class Stopwatch:
    """Times operations. `features` is the folder of feature networks."""

    def __init__(self, device: Device, features: Path) -> None:
        self.device = resolve_device(device)
        self._features = features
        self._known: dict[str, float] = {}

    def seconds(self, operation: Operation) -> float:
        """Of one repetition, measured the first time it is asked for."""
        key = repr(operation)
        if key not in self._known:
            self._known[key] = self._measure(operation)
        return self._known[key]

    def _measure(self, operation: Operation) -> float:
        match operation:
            case TrainingStep(training=training):

                def with_batch(images: int) -> Operation:
                    kept = (
                        training if images == training.batch_size else training.model_copy(update={"microbatches": 1})
                    )
                    return replace(operation, training=kept.model_copy(update={"batch_size": images}))

                return self._by_images(operation, training.batch_size, with_batch)
            case NetworkPass(images=images):
                return self._by_images(operation, images, lambda fewer: replace(operation, images=fewer))
            case Scoring(samples=samples, reference=reference):
                fewer = replace(
                    operation,
                    samples=min(samples, SCORED_AT_MOST),
                    reference=min(max(reference, 2), SCORED_AT_MOST),
                )
                return self._timed(fewer) * max(operation.flops / fewer.flops, 1.0)
            case _:
                return self._timed(operation)

    def _by_images(self, operation: Operation, images: int, with_images: Callable[[int], Operation]) -> float:
        fewer = int(images * FLOPS_AT_ONCE[self.device.type] / operation.flops)
        if fewer >= images:
            return self._timed(operation)
        fewer = min(max(fewer // 2, 1), images - 1)
        times = [self._timed(with_images(size)) for size in (fewer, min(2 * fewer, images))]
        slope = max(times[1] - times[0], 0.0) / (min(2 * fewer, images) - fewer)
        return times[1] + (images - min(2 * fewer, images)) * slope

    def _timed(self, operation: Operation) -> float:
        with TemporaryDirectory() as folder:
            repeat = self._prepare(operation, Path(folder))
            first = self._once(repeat)  # pays for what the others find ready
            if first > AT_LEAST * LONG_ENOUGH_S > 0:
                return first
            taken: list[float] = []
            while len(taken) < AT_LEAST or sum(taken) < LONG_ENOUGH_S:
                taken.append(self._once(repeat))
        return sum(taken) / len(taken)

    def _once(self, repeat: Repetition) -> float:
        began = time.perf_counter()
        repeat()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def _prepare(self, operation: Operation, folder: Path) -> Repetition:
        """What does the operation once, all it needs being ready."""
        match operation:
            case TrainingStep():
                return self._training_step(operation, folder)
            case GanStep():
                _write_images(operation.card, folder)
                gan = GanTraining(operation.surrogate.model_copy(update={"steps": 10**9}), folder, _named(self.device))
                numbers = count()
                return lambda: gan.training_step(next(numbers))
            case NetworkPass():
                steps = self._network_passes(operation)
                return lambda: next(steps)
            case GanPass():
                return self._gan_pass(operation)
            case FeaturePass():
                network = untrained_network(operation.features, self._features, self.device)
                images = np.zeros((operation.images, *operation.shape), np.uint8)
                return lambda: network(images)
            case Scoring():
                return self._scoring(operation, folder)
            case Decoding():
                content = _photograph()
                return lambda: resize_and_crop(decode(content, 1 if operation.channels == 1 else 3), operation.size)

    def _training_step(self, operation: TrainingStep, folder: Path) -> Repetition:
        network = operation.network
        _write_images(network.card, folder)
        model = Model(dataset="measured", training=operation.training, **dict(network.architecture))
        training, numbers = DiffusionTraining(model, folder, _named(self.device)), count()
        return lambda: training.training_step(next(numbers))

    @torch.inference_mode()
    def _network_passes(self, operation: NetworkPass) -> Iterator[object]:
        """Reverse steps or terms of the bound, one after another without end."""
        network = operation.network
        module = build_network(network.architecture, network.card).to(self.device).eval()
        process = build_process(network.architecture.diffusion)
        x, told = network.inputs(operation.images, self.device)
        positions = torch.arange(operation.images, device=self.device)
        random = PositionalRandom(0, "plan")

        def noise(step: int) -> Tensor:
            return random.normal(positions, x.shape[1:], draw=step)

        def denoise(x_t: Tensor, timestep: Tensor) -> Tensor:
            output: Tensor = module(x_t, timestep, **told)
            return output

        while True:
            yield from (bound_terms if operation.bound else reverse_chain)(process, denoise, x, noise)

    def _gan_pass(self, operation: GanPass) -> Repetition:
        generator = build_gan(operation.surrogate, operation.card)[0].to(self.device).eval()
        positions = torch.arange(operation.images, device=self.device)
        labels = torch.zeros_like(positions) if generator.classes else None
        random = PositionalRandom(0, "plan")

        @torch.inference_mode()
        def draw() -> None:
            generator(random.normal(positions, (generator.z_dim,)), labels)

        return draw

    def _scoring(self, operation: Scoring, folder: Path) -> Repetition:
        sets = [
            self._scored_set(operation, size, seed)
            for seed, size in enumerate((operation.samples, operation.reference))
        ]

        def score_them() -> None:
            scores = score(sets[0], sets[1], operation.settings)
            nearest_figure(sets[0].images, sets[1].images, scores.nearest, folder / "nearest.png")

        return score_them

    def _scored_set(self, operation: Scoring, images: int, seed: int) -> ScoredSet:
        """Made-up images in ten groups, like classes: a classifier takes longest where there is nothing to find."""
        random = np.random.default_rng(seed)
        labels = np.arange(images) % 10
        centres = np.random.default_rng(0).integers(0, 200, (10, *operation.shape))
        pixels = (centres[labels] + random.integers(0, 56, (images, *operation.shape))).astype(np.uint8)
        if operation.classes:
            means = np.random.default_rng(0).standard_normal((10, operation.dimensions))
            features = means[labels] + random.standard_normal((images, operation.dimensions))
            probabilities = (
                torch.from_numpy(random.dirichlet(np.ones(operation.classes), images)).float().to(self.device)
            )
        else:
            features, probabilities = pixels.reshape(images, -1) / 255, None
        known = labels if operation.labelled else None
        return ScoredSet(
            torch.from_numpy(features).float().to(self.device), probabilities, known, ArrayImages(pixels, known)
        )


def _named(device: torch.device) -> Device:
    return Device(device.type)


def _write_images(card: Card, folder: Path) -> None:
    """Shards of made-up images."""
    images = 512
    random = np.random.default_rng(0)
    shape = (images, card.size, card.size, card.channels)
    split = random.integers(0, 256, shape, np.uint8), np.arange(images) % max(1, card.classes)
    source = ArraySource(replace(card, counts={"train": images}), {"train": split})
    for _ in write_shards(source, DigitsDataset(source=Source.DIGITS), folder):
        pass


def _photograph() -> bytes:
    """A JPEG file."""
    import PIL.Image
    from sklearn.datasets import load_sample_image

    stream = io.BytesIO()
    PIL.Image.fromarray(load_sample_image("china.jpg")).resize(PHOTOGRAPH).save(stream, "JPEG", quality=95)
    return stream.getvalue()
