"""A finished model as it is served: opened with the weights that a request asks for, drawing as it is told."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from iddpm.diffusion import Sampler, Variance
from iddpm.errors import choose
from iddpm.params import Device, Sampling, Weights
from iddpm.stages.draw import draw_images
from iddpm.stages.models import DiffusionModel, Images, Labels
from iddpm.training.checkpoint import Checkpoint, architecture_of

FEW_STEPS = 100


class SingleModel:
    """Draws images with either set of a model's weights, one of them in memory."""

    def __init__(self, folder: Path, device: Device = Device.AUTO) -> None:
        self._opened = lru_cache(maxsize=1)(lambda weights: DiffusionModel(folder, weights, device))
        self.checkpoint = self._opened(Weights.EMA).checkpoint

    def draw(self, labels: Labels | None, count: int, weights: str = "ema", **asked: Any) -> Images:
        """As `draw_images`, which takes what is asked."""
        return draw_images(self._opened(choose("weights", weights, Weights)), labels, count, **asked)


def served_defaults(checkpoint: Checkpoint, sampling: Sampling | None) -> dict[str, str | int | float]:
    """What `SingleModel.draw` takes besides labels and count, as the sampling has it.

    Without one: 100 ancestral steps, but all T of a shorter process and where variances are those of single steps.
    """
    if sampling is None:
        diffusion = architecture_of(checkpoint.about)["diffusion"]
        timesteps: int = diffusion["timesteps"]
        steps = timesteps if diffusion["variance"] == Variance.LEARNED else min(timesteps, FEW_STEPS)
        sampling = Sampling(model="model", steps=steps, sampler=Sampler.ANCESTRAL, count=1)
    return {
        "steps": str(sampling.steps),
        "sampler": sampling.sampler.value,
        "eta": sampling.eta,
        "clip": sampling.clip,
        "weights": sampling.weights.value,
        "batch_size": sampling.batch_size,
        "seed": sampling.seed,
    }
