"""A finished model as it is served: opened with the weights that a request asks for, drawing as it is told."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from iddpm.diffusion import Sampler, Variance
from iddpm.errors import UserError, choose
from iddpm.params import Device, Sampling, Weights
from iddpm.stages.draw import draw
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


def draw_images(
    model: DiffusionModel,
    labels: Labels | None,
    count: int,
    sampler: str,
    steps: str,
    seed: int,
    eta: float = 0.0,
    clip: bool = True,
    batch_size: int = 128,
) -> Images:
    """Draw in one call; labels of -1, or none for a conditional model, go round the classes.

    UserError names a label or setting that the model cannot meet.
    """
    chosen = choose("sampler", sampler, Sampler)
    if not 0 <= eta <= 1:
        raise UserError(f"eta {eta:g}: lies between 0 and 1")
    if eta and chosen is not Sampler.DDIM:
        raise UserError(f"eta {eta:g}: only the ddim sampler has it, the sampler is {sampler}")
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size}: draw one image at once at least")
    settings: dict[str, Any] = {"eta": eta, "clip": clip, "batch_size": batch_size, "seed": seed}
    try:
        _refuse_skipping(model, steps, chosen)
        return draw(model, count, steps=steps, labels=model.labels(count, labels), sampler=chosen, **settings).images
    except ValueError as error:
        raise UserError(f"steps: {error}") from None


def _refuse_skipping(model: DiffusionModel, steps: str, sampler: Sampler) -> None:
    """A learned log variance is that of a single noising step, whatever the chain skips."""
    total = model.process.timesteps
    skips = model.process.respaced(steps).timesteps < total
    if skips and model.process.variance is Variance.LEARNED and sampler is Sampler.ANCESTRAL:
        raise UserError(f"steps {steps}: the model's variances are those of single steps; take all {total}, or ddim")


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
