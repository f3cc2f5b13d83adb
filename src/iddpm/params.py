"""The typed schema of params.yaml: the one place where a parameter's type, range, unit and meaning stand."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from iddpm.diffusion import Mean, Objective, Sampler, TimestepSampling, Variance
from iddpm.errors import UserError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
"""Of a dictionary's entry: letters, digits, '-' and '_', since it names folders, DVC stages and MLflow runs."""

Steps = Annotated[
    int | str,
    Field(
        union_mode="left_to_right",
        description="Reverse steps: a count (100), section counts ('10,8,6', the first nearest to the data), "
        "or 'ddimN' for one integer stride.",
    ),
]


class Source(StrEnum):
    """Where a dataset's images come from."""

    DIGITS = "digits"


class Schedule(StrEnum):
    """Shape of the betas."""

    LINEAR = "linear"
    COSINE = "cosine"


class Conditioning(StrEnum):
    """What a network is told besides the image and the timestep."""

    NONE = "none"
    CLASS = "class"


class Precision(StrEnum):
    """Arithmetic of the network's forward and backward pass."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Weights(StrEnum):
    """Which of a checkpoint's weights are used."""

    EMA = "ema"
    RAW = "raw"


class Device(StrEnum):
    """Where tensors live; auto takes the GPU when there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Features(StrEnum):
    """The space in which distances between image sets are measured."""

    PIXELS = "pixels"


class Split(StrEnum):
    """A part of a dataset."""

    TRAIN = "train"
    TEST = "test"


class Section(BaseModel):
    """Frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Compute(Section):
    """Where stages run. Not part of any stage's hash: results change by rounding at most."""

    workers: int = Field(0, ge=0, description="Training processes: 0 in the stage's own process, N Ray workers.")
    device: Device = Field(Device.AUTO, description="auto, cpu or cuda.")


class Dataset(Section):
    """Images and labels, written once as shuffled webdataset shards."""

    source: Source = Field(description="digits: scikit-learn's 1,797 handwritten digits, 8x8 pixels, 10 classes.")
    images_per_block: int = Field(256, ge=1, description="Images in one tar member; 1 suits 256-pixel images.")
    images_per_shard: int = Field(8192, ge=1, description="Images in one tar file.")
    seed: int = Field(0, ge=0, description="Of the shuffle at writing.")


class Network(Section):
    """The paper's U-Net. Image size, channels and classes come from the dataset."""

    width: int = Field(ge=4, multiple_of=4, description="Channels at the highest resolution (the paper's C).")
    channel_mult: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, description="Width multiplier of each level; each level halves the size."
    )
    blocks: int = Field(ge=1, description="Residual blocks per level.")
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


class Training(Section):
    """How a diffusion model is optimised."""

    steps: int = Field(ge=1, description="Optimizer steps.")
    batch_size: int = Field(ge=1, description="Images per step over all workers.")
    learning_rate: float = Field(gt=0, description="Of AdamW.")
    objective: Objective = Field(Objective.HYBRID, description="simple, hybrid (eq. 16) or vlb.")
    vlb_weight: float = Field(0.001, ge=0, description="lambda of the hybrid objective, on T * L_t in bits/dim.")
    timestep_sampling: TimestepSampling = Field(
        TimestepSampling.UNIFORM, description="uniform, or loss_second_moment (eq. 18)."
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
    nonfinite_limit: int = Field(10, ge=1, description="Steps in a row with a non-finite gradient that end the run.")
    seed: int = Field(0, ge=0, description="Of initial weights, data order, timesteps, noise and dropout.")


class Model(Section):
    """A diffusion model: its data, network, process and training."""

    dataset: Name = Field(description="A key of datasets.")
    network: Network
    diffusion: Diffusion
    training: Training


class Surrogate(Section):
    """An SNGAN whose samples, noised to t_mid, can start a reverse chain."""

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


class Sampling(Section):
    """A set of images drawn from a model, from pure noise."""

    model: Name = Field(description="A key of models.")
    steps: Steps
    count: int = Field(ge=1, description="Images drawn; class labels go round, 0, 1, 2, ...")
    sampler: Sampler = Field(Sampler.ANCESTRAL, description="ancestral or ddim.")
    eta: float = Field(0.0, ge=0, le=1, description="Noise of a DDIM step; 0 is deterministic.")
    clip: bool = Field(True, description="Clip the predicted x_start to [-1, 1] at every step.")
    weights: Weights = Field(Weights.EMA, description="ema or raw.")
    batch_size: int = Field(128, ge=1, description="Images drawn at once; the images do not depend on it.")
    seed: int = Field(0, ge=0, description="Of the starting noise and of every step's noise.")


class SurrogateSampling(Sampling):
    """A set of images drawn from a model, started from a surrogate's samples noised by t_mid steps."""

    surrogate: Name = Field(description="A key of surrogates.")
    t_mid: int = Field(ge=0, description="Noising steps of the start: 0 is the surrogate alone, T ordinary sampling.")


class Evaluation(Section):
    """Scores of one set of samples against a dataset."""

    samples: Name = Field(description="A key of samplings or surrogate_samplings.")
    dataset: Name = Field(description="A key of datasets: the reference images.")
    split: Split = Field(Split.TRAIN, description="The part of the dataset that is the reference.")
    features: Features = Field(Features.PIXELS, description="pixels: grey levels in [0, 1], flattened.")
    neighbours: int = Field(3, ge=1, description="k of the precision and recall manifolds.")
    kid_subsets: int = Field(100, ge=1, description="Random subsets that KID averages over.")
    kid_subset_size: int = Field(250, ge=2, description="Images per KID subset.")
    inception_splits: int = Field(10, ge=1, description="Parts over which the inception score is averaged.")
    seed: int = Field(0, ge=0, description="Of the subsets and splits.")


class Likelihood(Section):
    """Bits per dimension of a dataset's images under a model."""

    model: Name = Field(description="A key of models.")
    dataset: Name = Field(description="A key of datasets.")
    split: Split = Field(Split.TEST, description="train or test.")
    images: int | None = Field(None, ge=1, description="How many, from the first; null takes all.")
    weights: Weights = Field(Weights.EMA, description="ema or raw.")
    batch_size: int = Field(128, ge=1, description="Images at once; the result does not depend on it.")
    seed: int = Field(0, ge=0, description="Of the one noise draw per image and timestep.")


class Params(Section):
    """params.yaml: every group is a dictionary, every entry one chain of stages."""

    compute: Compute = Compute()
    datasets: dict[Name, Dataset] = Field(default_factory=dict)
    surrogates: dict[Name, Surrogate] = Field(default_factory=dict)
    models: dict[Name, Model] = Field(default_factory=dict)
    samplings: dict[Name, Sampling] = Field(default_factory=dict)
    surrogate_samplings: dict[Name, SurrogateSampling] = Field(default_factory=dict)
    evaluations: dict[Name, Evaluation] = Field(default_factory=dict)
    likelihoods: dict[Name, Likelihood] = Field(default_factory=dict)


def read_params(path: Path) -> Params:
    """Parse and type-check a parameter file. UserError lists every problem as "file: key: what is wrong"."""
    try:
        data = YAML(typ="safe").load(path)  # as DVC reads it: 1e-4 is a number, a key given twice is refused
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run in the project's folder, or choose a preset") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: must hold a dictionary of sections")
    try:
        return Params.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {_describe(problem)}" for problem in error.errors())) from None
    except TypeError as error:  # a date, say: YAML knows more types than JSON
        raise UserError(f"{path}: {error}") from None


def _describe(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"] if part not in ("int", "str", "[key]"))
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown parameter"
    if problem["type"] == "missing":
        return f"{path}: is missing"
    shown = f", not {value!r}" if not isinstance(value, dict) else ""
    return f"{path}: {problem['msg'][0].lower()}{problem['msg'][1:]}{shown}"
