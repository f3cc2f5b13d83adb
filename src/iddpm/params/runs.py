"""What is done with finished models: samples, their scores, likelihoods."""

from enum import StrEnum

from pydantic import Field

from iddpm.diffusion import Handover, Sampler
from iddpm.params.base import Name, Section, Split, Steps, Weights


class Features(StrEnum):
    """The space in which distances between image sets are measured."""

    PIXELS = "pixels"


class Sampling(Section):
    """A set of images drawn from a model, from pure noise."""

    model: Name = Field(description="A key of models, mixtures or imports.")
    steps: Steps
    count: int = Field(ge=1, description="Images drawn; class labels go round, 0, 1, 2, ...")
    sampler: Sampler = Field(Sampler.ANCESTRAL, description="ancestral or ddim.")
    eta: float = Field(0.0, ge=0, le=1, description="Noise of a DDIM step; 0 is deterministic.")
    clip: bool = Field(True, description="Clip the predicted x_start to [-1, 1] at every step.")
    weights: Weights = Field(Weights.EMA, description="ema or raw.")
    batch_size: int = Field(128, ge=1, description="Images drawn at once; the images do not depend on it.")
    seed: int = Field(0, ge=0, description="Of the starting noise and of every step's noise.")


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

    model: Name = Field(description="A key of models, mixtures or imports.")
    dataset: Name = Field(description="A key of datasets.")
    split: Split = Field(Split.TEST, description="train or test.")
    images: int | None = Field(None, ge=1, description="How many, from the first; null takes all.")
    steps: int | None = Field(
        None,
        ge=1,
        description="K strided steps and every one of the first T / K; null takes all T.",
    )
    clip: bool = Field(True, description="Clip the predicted x_start to [-1, 1] at every step.")
    weights: Weights = Field(Weights.EMA, description="ema or raw.")
    batch_size: int = Field(128, ge=1, description="Images at once; the result does not depend on it.")
    seed: int = Field(0, ge=0, description="Of the one noise draw per image and timestep.")
