"""A finished model as it is served: opened with the weights that a request asks for, drawing as it is told."""

from functools import lru_cache
from pathlib import Path

from iddpm.diffusion import Sampler, Variance
from iddpm.params import Device, Sampling, Weights
from iddpm.stages.draw import draw_entry
from iddpm.stages.models import DiffusionModel, Images, Labels
from iddpm.stages.request import adapt_entry, refuse_unfit, refuse_unknown
from iddpm.training.checkpoint import Checkpoint, architecture_of

FEW_STEPS = 100


class SingleModel:
    """Draws images with either set of a model's weights, one of them in memory."""

    def __init__(self, folder: Path, device: Device = Device.AUTO) -> None:
        self._opened = lru_cache(maxsize=1)(lambda weights: DiffusionModel(folder, weights, device))
        checkpoint = self._opened(Weights.EMA).checkpoint
        self._unasked, self._settings = _unscored(checkpoint), served_defaults(checkpoint, None).keys()

    def draw(self, labels: Labels | None, count: int, **asked: str | float) -> Images:
        """Images uint8 [count, H, W, C]; labels of -1, or none, go round the classes of a conditional model.

        As `served_defaults` without a sampling has it, but for what is asked by its names. UserError names a label or
        setting that the model cannot meet.
        """
        refuse_unknown(asked, self._settings)
        entry = adapt_entry(self._unasked, asked)
        model = self._opened(entry.weights)
        refuse_unfit(entry, model)
        return draw_entry(entry, model, count, model.labels(count, labels)).images


def served_defaults(checkpoint: Checkpoint, sampling: Sampling | None) -> dict[str, str | int | float]:
    """What `SingleModel.draw` takes besides labels and count, as the sampling has it.

    Without one: 100 ancestral steps, but all T of a shorter process and where variances are those of single steps.
    """
    sampling = sampling or _unscored(checkpoint)
    return {
        "steps": str(sampling.steps),
        "sampler": sampling.sampler.value,
        "eta": sampling.eta,
        "clip": sampling.clip,
        "weights": sampling.weights.value,
        "batch_size": sampling.batch_size,
        "seed": sampling.seed,
    }


def _unscored(checkpoint: Checkpoint) -> Sampling:
    """How a model draws that no sampling speaks for; its name and the count say nothing."""
    diffusion = architecture_of(checkpoint.about)["diffusion"]
    timesteps: int = diffusion["timesteps"]
    steps = timesteps if diffusion["variance"] == Variance.LEARNED else min(timesteps, FEW_STEPS)
    return Sampling(model="model", steps=steps, sampler=Sampler.ANCESTRAL, count=1)
