"""What is done with finished models: samples, their scores, likelihoods, the report."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from iddpm.diffusion import Handover, Sampler
from iddpm.params.base import Name, Section, Split, Steps, Weights


class Checkpoints(StrEnum):
    """Of a training: its result alone, or every kept snapshot besides."""

    FINAL = "final"
    ALL = "all"


class Splits(StrEnum):
    """One part of a dataset, or both."""

    TRAIN = "train"
    TEST = "test"
    BOTH = "both"


def _known_features(name: str) -> str:
    embedded = "pixels|lite0|inception"
    if re.fullmatch(rf"{embedded}|module/[A-Za-z0-9_-]+", name) is None:
        raise PydanticCustomError("features", "choose lite0, inception, pixels or module/NAME")
    if re.fullmatch(f"module/({embedded})", name):
        raise PydanticCustomError("features", "choose a NAME in module/NAME that is no embedded network's")
    return name


FeaturesName = Annotated[
    str,
    AfterValidator(_known_features),
    Field(
        description="Where distances are measured: pixels (grey levels in [0, 1]); lite0 (embedded ImageNet network, "
        "fd-lite0); inception (the 2015 network of published FIDs); module/NAME, a network of your own. What it needs "
        "lies in data/raw/features, in the folder of its name, on which the evaluation depends."
    ),
]


def _none_or_enough(resamples: int) -> int:
    if 0 < resamples < 100:  # too few for quantiles of 2.5 %
        raise PydanticCustomError("resamples", "choose 0, or 100 and more")
    return resamples


class _Chain(Section):
    """How a reverse chain is run."""

    steps: Steps
    sampler: Sampler = Field(Sampler.ANCESTRAL, description="ancestral or ddim.")
    eta: float = Field(0.0, ge=0, le=1, description="Noise of a DDIM step; 0 is deterministic.")
    clip: bool = Field(True, description="Clip the predicted x_start to [-1, 1] at every step.")
    weights: Weights = Field(Weights.EMA, description="ema or raw.")
    batch_size: int = Field(128, ge=1, description="Images drawn at once; the images do not depend on it.")
    seed: int = Field(0, ge=0, description="Of the starting noise and of every step's noise.")


class Sampling(_Chain):
    """A set of images drawn from a model, from pure noise."""

    model: Name = Field(description="A key of models, mixtures or imports.")
    count: int = Field(ge=1, description="Images drawn; class labels go round, 0, 1, 2, ...")
    checkpoint: int | None = Field(
        None,
        ge=1,
        description="Training step of a snapshot kept by training.snapshot_every; null is the finished model.",
    )
    interpolations: int = Field(
        0, ge=0, description="Pairs of images joined by a path of the starting noise, drawn as a picture; ddim, eta 0."
    )


FREE_AMONG_SEEDS = ("seed", "batch_size", "interpolations")
"""Keys in which samplings may differ and yet be seeds of one thing."""
FREE_AMONG_TRAINING_SEEDS = ("seed", "log_every", "checkpoint_every", "snapshot_every")
"""Likewise of trainings."""


class SurrogateSampling(Sampling):
    """A set of images drawn from a model, started from a surrogate at t_mid; `steps` are taken below t_mid."""

    surrogate: Name = Field(description="A key of surrogates.")
    t_mid: int = Field(ge=0, description="Noising steps of the start: 0 is the surrogate alone, T ordinary sampling.")
    surrogate_steps: Steps | None = Field(
        None, description="Reverse steps of a diffusion surrogate from T to t_mid, as in steps; null takes all."
    )
    handover: Handover = Field(
        Handover.X_START,
        description="What a diffusion surrogate hands over, resized bilinearly: x_start, noised again, or the raw x_t.",
    )


class _Upsampled(_Chain):
    """How low-resolution images are upsampled."""

    upsampler: Name = Field(description="A key of models or imports that has upsampling.")
    augmentation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Standard deviation of the noise added to the low-resolution images and told to the network; at "
        "most the noise_augmentation of its training.",
    )


class Cascade(_Upsampled):
    """Samples of a smaller model, upsampled: the same images in the same order with the same labels."""

    samples: Name = Field(description="A key of samplings, surrogate_samplings or cascades.")


class Reconstruction(_Upsampled):
    """Real images averaged down and upsampled again, compared with the originals."""

    dataset: Name = Field(description="A key of datasets, of the upsampler's size.")
    split: Split = Field(Split.TEST, description="train or test.")
    images: int = Field(ge=3, description="How many, from the first.")
    features: FeaturesName


class ScoreSettings(Section):
    """What a score depends on besides the two sets of images."""

    features: FeaturesName
    neighbours: int = Field(3, ge=1, description="k of precision, recall, density, coverage and the k-NN label vote.")
    manifold_reference: int | None = Field(
        None, ge=2, description="Reference images of precision, recall, density and coverage; null takes all."
    )
    kid_subset_size: int = Field(
        250, ge=2, description="Images of each of the disjoint subsets that KID averages over."
    )
    inception_splits: int = Field(10, ge=1, description="Parts over which the inception score is averaged.")
    bootstrap: Annotated[int, AfterValidator(_none_or_enough)] = Field(
        1000,
        ge=0,
        description="Resamples, 100 or more, of the 95 % intervals of density and inception score; 0: no intervals.",
    )
    seed: int = Field(0, ge=0, description="Of subsets, splits and resamples.")


class Evaluation(ScoreSettings):
    """Scores of one set of samples against a dataset."""

    samples: Name = Field(description="A key of samplings, surrogate_samplings or cascades.")
    dataset: Name = Field(description="A key of datasets: the reference images.")
    split: Split = Field(Split.TRAIN, description="The part of the dataset that is the reference.")


class Likelihood(Section):
    """Bits per dimension of a dataset's images under a model."""

    model: Name = Field(description="A key of models, mixtures or imports.")
    dataset: Name = Field(description="A key of datasets.")
    split: Splits = Field(Splits.TEST, description="train, test, or both and the gap between them.")
    images: int | None = Field(None, ge=1, description="How many of each split, from the first; null takes all.")
    checkpoints: Checkpoints = Field(
        Checkpoints.FINAL, description="final, or all: every snapshot kept by training.snapshot_every besides."
    )
    steps: int | None = Field(
        None,
        ge=1,
        description="K strided steps and every one of the first T / K; null takes all T.",
    )
    clip: bool = Field(True, description="Clip the predicted x_start to [-1, 1] at every step.")
    weights: Weights = Field(Weights.EMA, description="ema or raw.")
    batch_size: int = Field(128, ge=1, description="Images at once; the result does not depend on it.")
    seed: int = Field(0, ge=0, description="Of the one noise draw per image and timestep.")


class GradientNoise(Section):
    """The gradient noise scale of a training at every snapshot that it kept (paper, section 3.3)."""

    model: Name = Field(description="A key of models, with training.snapshot_every.")
    dataset: Name = Field(description="The model's own.")
    batches: int = Field(
        100,
        ge=10,
        multiple_of=5,
        description="Whole batches measured at each snapshot, in five groups whose spread gives the standard error.",
    )


class ScalingMetric(StrEnum):
    """What a scaling study plots against training compute."""

    FRECHET_DISTANCE = "frechet_distance"
    FRECHET_DISTANCE_INFINITY = "frechet_distance_infinity"
    BITS_PER_DIM = "bits_per_dim"


OF_EVALUATION = ("dataset", "split", "features")
OF_SAMPLING = ("count", "steps", "sampler", "eta", "clip", "weights")
OF_LIKELIHOOD = ("dataset", "split", "images", "steps", "clip", "weights")
"""Keys on which a metric depends besides the model: points of one study share them."""


class ScalingStudy(Section):
    """A metric against training compute over models and step budgets (paper, figure 10), with fits of power laws."""

    metric: ScalingMetric
    points: list[Name] = Field(
        min_length=3,
        description="Keys of evaluations (frechet_distance, frechet_distance_infinity) or likelihoods (bits_per_dim; "
        "with checkpoints: all each snapshot is a point).",
    )
    held_out: Name | None = Field(
        None, description="Key of the model predicted from the others; null is the one of most training compute."
    )
    bootstrap: int = Field(200, ge=20, description="Redraws of all points for the intervals of the joint law.")
    seed: int = Field(0, ge=0, description="Of the redraws.")


class Report(Section):
    """The page that gathers the pipeline's results."""

    title: str = Field("Report", min_length=1, description="Of the page.")
    published: dict[Name, str] = Field(
        {}, description="Evaluation or likelihood -> published result beside which it is shown, as TABLE/ROW."
    )
    scaling: dict[Name, ScalingStudy] = Field({}, description="Scaling studies, each with its figure and fits.")
