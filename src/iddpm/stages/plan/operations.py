"""What stages repeat: each operation with its floating point operations, a multiply-add counting as two of them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iddpm.data import Card
from iddpm.diffusion import Objective
from iddpm.evaluation.frechet import SAMPLES_PER_DIMENSION, SUBSETS
from iddpm.params import Architecture, Conditioning, Precision, ScoreSettings, SnganSurrogate, Training

TRAINING_PASSES = 3
"""Forward passes that a forward and a backward pass are worth: the backward pass computes two gradients."""


BFLOAT16, TF32, FLOAT32, FLOAT64 = 1.0, 2.0, 16.0, 32.0
"""How many times as long as in bfloat16 a GPU takes: A100 312, 156, 19.5 and 9.7 TFLOPS, H100 989, 494, 67 and 34."""


@dataclass(frozen=True)
class PlannedNetwork:
    """A U-Net, the card of its images, its parameters, and multiply-adds of one forward pass of one image.

    `convolutions` are those of the multiply-adds that are not in linear layers or attention.
    """

    architecture: Architecture
    card: Card
    parameters: int
    multiply_adds: int
    convolutions: int

    @property
    def slowdown(self) -> float:
        """Of float32: as torch's defaults are, and we leave them, convolutions use TF32 and matrix products do not."""
        share = self.convolutions / self.multiply_adds
        return TF32 * share + FLOAT32 * (1 - share)

    @property
    def size(self) -> int:
        """Pixels of a side it works at."""
        return self.architecture.size or self.card.size

    def inputs(self, images: int, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """x [images, C, size, size] and what the network is told besides the timestep."""
        x = torch.zeros(images, self.card.channels, self.size, self.size, device=device)
        told: dict[str, Tensor] = {}
        if self.architecture.network.conditioning is Conditioning.CLASS:
            told["labels"] = torch.zeros(images, dtype=torch.int64, device=device)
        if self.architecture.upsampling is not None:
            low = self.architecture.upsampling.low_size
            told["low_res"] = torch.zeros(images, self.card.channels, low, low, device=device)
        return x, told


@dataclass(frozen=True)
class TrainingStep:
    """An optimizer step on a whole batch."""

    network: PlannedNetwork
    training: Training

    @property
    def slowdown(self) -> float:
        return BFLOAT16 if self.training.precision is Precision.BFLOAT16 else self.network.slowdown

    @property
    def flops(self) -> float:
        training = self.training
        grouped = training.draws_at_once is not None and training.draws_at_once < training.noise_draws
        # iwdiff in groups needs the losses of all draws before the first gradient
        passes = TRAINING_PASSES + training.extra_measurements + (grouped and training.objective is Objective.IWDIFF)
        return 2.0 * self.network.multiply_adds * training.batch_size * training.noise_draws * passes


@dataclass(frozen=True)
class NetworkPass:
    """A reverse step of `images` images, or with `bound` a term of their bound."""

    network: PlannedNetwork
    images: int
    bound: bool = False

    @property
    def slowdown(self) -> float:
        return self.network.slowdown

    @property
    def flops(self) -> float:
        return 2.0 * self.network.multiply_adds * self.images


@dataclass(frozen=True)
class GanStep:
    """A generator step with its critic steps; multiply-adds of generator and discriminator for one image."""

    surrogate: SnganSurrogate
    card: Card
    generator: int
    discriminator: int
    slowdown: ClassVar[float] = TF32  # nearly all of it convolutions

    @property
    def flops(self) -> float:
        critic = self.generator + TRAINING_PASSES * 2 * self.discriminator
        generator = TRAINING_PASSES * 2 * (self.generator + self.discriminator)
        return 2.0 * self.surrogate.batch_size * (self.surrogate.critic_steps * critic + generator)


@dataclass(frozen=True)
class GanPass:
    """`images` images of a generator of so many multiply-adds."""

    surrogate: SnganSurrogate
    card: Card
    images: int
    generator: int
    slowdown: ClassVar[float] = TF32

    @property
    def flops(self) -> float:
        return 2.0 * self.generator * self.images


@dataclass(frozen=True)
class FeaturePass:
    """Features of `images` images of one shape (height, width, channels)."""

    features: str
    shape: tuple[int, int, int]
    multiply_adds: int
    images: int = 50
    slowdown: ClassVar[float] = FLOAT32  # feature networks turn TF32 off

    @property
    def flops(self) -> float:
        return 2.0 * self.multiply_adds * self.images


@dataclass(frozen=True)
class Scoring:
    """Every score of `samples` images against `reference` images with so many features (and classes, 0 for none)."""

    settings: ScoreSettings
    samples: int
    reference: int
    dimensions: int
    classes: int
    shape: tuple[int, int, int]
    labelled: bool
    slowdown: ClassVar[float] = FLOAT64

    @property
    def flops(self) -> float:
        """Of neighbours, covariances with their eigenvalues, and kernels; the rest is small beside them."""
        n, m, d = self.samples, self.reference, self.dimensions
        chosen = self.settings.manifold_reference or m
        pairs = n * n + chosen * chosen + n * m + (min(n + chosen, m) * m if chosen < m else 0)
        covariances, subsets = (n + m) * d * d, 0.0
        decompositions = 9.0 + 4 / 3 + (9 if self.settings.bootstrap else 0)
        if n >= SAMPLES_PER_DIMENSION * d:
            subsets = SUBSETS * (n / 2 * d * d + (4 + 4 / 3) * d**3)
        kernels = 3 * min(n, m) * self.settings.kid_subset_size * d
        return 2.0 * (pairs * d + covariances + kernels) + subsets + decompositions * d**3


@dataclass(frozen=True)
class Decoding:
    """One image file decoded, resized and cropped; done on CPUs."""

    size: int
    channels: int
    slowdown: ClassVar[float] = BFLOAT16
    flops: ClassVar[float] = 0.0


Operation = TrainingStep | NetworkPass | GanStep | GanPass | FeaturePass | Scoring | Decoding
