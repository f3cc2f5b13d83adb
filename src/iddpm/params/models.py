"""Models: networks, the noising process, their training, and models made of finished models."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from iddpm.diffusion import IwdiffReduction, Mean, Objective, TimestepSampling, Variance
from iddpm.params.base import Conditioning, Name, Section


class Schedule(StrEnum):
    """Shape of the betas."""

    LINEAR = "linear"
    COSINE = "cosine"


class Block(StrEnum):
    """The residual block of a U-Net."""

    STANDARD = "standard"
    MBCONV = "mbconv"


class Precision(StrEnum):
    """Arithmetic of the network's forward and backward pass."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Network(Section):
    """The U-Net of the paper and the coursework. Image size, channels and classes come from the dataset."""

    width: int = Field(ge=4, multiple_of=4, description="Channels at the highest resolution (the paper's C).")
    channel_mult: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, description="Width multiplier of each level; each level halves the size."
    )
    blocks: int = Field(ge=1, description="Residual blocks per level.")
    block: Block = Field(
        Block.STANDARD,
        description="standard: two 3x3 convolutions; mbconv: depthwise with squeeze-excitation (coursework).",
    )
    attention_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="Sizes in pixels that attend.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    scale_shift: bool = Field(True, description="Embedding as scale and shift after the norm, else added before it.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability in residual blocks.")
    conditioning: Conditioning = Field(Conditioning.NONE, description="none, or class: labels join the embedding.")


class Diffusion(Section):
    """The noising process and how the network's output is read."""

    timesteps: int = Field(ge=2, description="T, the number of noising steps.")
    schedule: Schedule = Field(Schedule.COSINE, description="linear or cosine (eq. 17).")
    beta_start: float | None = Field(None, gt=0, lt=1, description="First beta of a linear schedule.")
    beta_end: float | None = Field(None, gt=0, lt=1, description="Last beta of a linear schedule.")
    mean: Mean = Field(Mean.EPS, description="What the network predicts: eps or x_start.")
    variance: Variance = Field(
        Variance.LEARNED_RANGE, description="fixed_small, fixed_large, learned or learned_range (eq. 15)."
    )
    rescale_timesteps: bool = Field(True, description="Show the network t * 1000 / T instead of t.")


class Upsampling(Section):
    """Makes a model an upsampler: it sees a low-resolution version of the image beside x_t."""

    low_size: int = Field(ge=1, description="Pixels of a side of the low-resolution image (area-averaged in training).")
    noise_augmentation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Largest standard deviation of the noise added to the low-resolution image in training, drawn "
        "uniformly per image and told to the network; 0 adds none.",
    )


class Architecture(Section):
    """What a network is and how its output is read, without data or training."""

    network: Network
    diffusion: Diffusion
    size: int | None = Field(
        None, ge=1, description="Train on images area-averaged to this many pixels; null takes the dataset's size."
    )
    upsampling: Upsampling | None = Field(None, description="null: an ordinary model.")


class Training(Section):
    """How a diffusion model is optimised."""

    steps: int = Field(ge=1, description="Optimizer steps.")
    batch_size: int = Field(ge=1, description="Images per step over all workers.")
    learning_rate: float = Field(gt=0, description="Of AdamW.")
    objective: Objective = Field(Objective.HYBRID, description="simple, hybrid (eq. 16), vlb, or iwdiff (coursework).")
    vlb_weight: float = Field(0.001, ge=0, description="lambda of the hybrid objective, on T * L_t in bits/dim.")
    noise_draws: int = Field(
        1, ge=1, description="k draws of noise for each image and timestep: iwdiff weighs them, the others average."
    )
    iwdiff_reduction: IwdiffReduction = Field(
        IwdiffReduction.MEAN, description="Squared errors in iwdiff's weights: mean over dimensions, or sum (its text)."
    )
    draws_at_once: int | None = Field(
        None,
        ge=1,
        description="Noise draws held in memory together; null all. Fewer cost iwdiff one more forward pass.",
    )
    timestep_sampling: TimestepSampling = Field(
        TimestepSampling.UNIFORM, description="uniform, or loss_second_moment (eq. 18)."
    )
    extra_measurements: int = Field(
        0, ge=0, description="n more losses per image and step, at new timesteps without gradient, for the sampler."
    )
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW.")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear learning-rate warm-up.")
    gradient_clip: float | None = Field(None, gt=0, description="Largest gradient norm; null clips nothing.")
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="Decay of the weights' moving average, per step.")
    horizontal_flips: bool = Field(False, description="Mirror every other image at random.")
    microbatches: int = Field(1, ge=1, description="Gradient accumulation: parts that a worker's batch is cut into.")
    precision: Precision = Field(Precision.FLOAT32, description="float32 or bfloat16 (autocast).")
    log_every: int = Field(50, ge=1, description="Steps between rows of the metrics log, each a mean since the last.")
    checkpoint_every: int = Field(1000, ge=1, description="Steps between checkpoints of an unfinished run.")
    snapshot_every: int | None = Field(
        None,
        ge=1,
        description="Steps between checkpoints kept in the finished model's folder snapshots; null keeps none.",
    )
    nonfinite_limit: int = Field(10, ge=1, description="Steps in a row with a non-finite gradient that end the run.")
    seed: int = Field(0, ge=0, description="Of initial weights, data order, timesteps, noise and dropout.")


class Model(Architecture):
    """A diffusion model: its data, network, process and training."""

    dataset: Name = Field(description="A key of datasets.")
    training: Training


class SurrogateKind(StrEnum):
    """What a surrogate is."""

    SNGAN = "sngan"
    LOW_RESOLUTION = "low_resolution"


class SnganSurrogate(Section):
    """An SNGAN whose samples, noised to t_mid, can start a reverse chain."""

    kind: Literal[SurrogateKind.SNGAN]
    dataset: Name = Field(description="A key of datasets.")
    conditioning: Conditioning = Field(Conditioning.NONE, description="none, or class.")
    steps: int = Field(ge=1, description="Generator steps.")
    critic_steps: int = Field(5, ge=1, description="Discriminator steps per generator step.")
    batch_size: int = Field(64, ge=2, description="Images per discriminator step.")
    learning_rate: float = Field(2.0e-4, gt=0, description="Of both Adams (betas 0 and 0.9), falling linearly to 0.")
    generator_width: int = Field(256, ge=4, description="Channels of the generator.")
    discriminator_width: int = Field(128, ge=4, description="Channels of the discriminator.")
    z_dim: int = Field(128, ge=1, description="Dimensions of the latent vector.")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Decay of the generator's moving average, per step.")
    log_every: int = Field(50, ge=1, description="Generator steps between rows of the metrics log.")
    checkpoint_every: int = Field(1000, ge=1, description="Generator steps between checkpoints.")
    seed: int = Field(0, ge=0, description="Of initial weights, data order, latents and dequantisation noise.")


class DiffusionSurrogate(Model):
    """A low-resolution diffusion model that runs the noisy part of a chain (the coursework's DDPM-16)."""

    kind: Literal[SurrogateKind.LOW_RESOLUTION]
    size: int = Field(ge=1, description="Pixels of a side it works at, below the dataset's.")


Surrogate = Annotated[SnganSurrogate | DiffusionSurrogate, Field(discriminator="kind")]


class Mixture(Section):
    """Two finished models of one process in one: which of them denoises depends on the timestep (paper, appendix)."""

    middle: Name = Field(description="A key of models or imports: all timesteps but those at the ends.")
    ends: Name = Field(description="A key of models or imports: the first and the last timesteps.")
    within: int = Field(100, ge=1, description="Timesteps at either end that belong to `ends`.")


class Import(Section):
    """A public improved-diffusion checkpoint as a model of this project."""

    weights: str = Field(pattern=r"\.pt$", description="The .pt file, under data/raw/checkpoints by custom.")
    flags: str = Field(
        description="MODEL_FLAGS and DIFFUSION_FLAGS it was trained with, as on the public command line."
    )
