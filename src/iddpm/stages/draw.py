"""Drawing images from a finished model: from noise, or from a surrogate's samples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iddpm.diffusion import (
    ChainState,
    GaussianDiffusion,
    Handover,
    Sampler,
    Variance,
    hand_over,
    reverse_chain,
    surrogate_start,
    truncated_process,
    upper_process,
)
from iddpm.errors import UserError, choose
from iddpm.randomness import PositionalRandom
from iddpm.stages.models import DiffusionModel, GanModel, Images, Labels

KeptImages = Callable[[int, Callable[[], Images]], Images]
"""(position of a batch's first image, what draws the batch) -> its images."""


def to_uint8(x: Tensor) -> Images:
    """Images [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], rounded to the nearest grey level."""
    grey = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array: Images = grey.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


@dataclass(frozen=True)
class Start:
    """A start from a surrogate after `t_mid` noising steps; `steps` and `handover` concern a diffusion surrogate."""

    surrogate: GanModel | DiffusionModel
    t_mid: int
    steps: str | None = None
    handover: Handover = Handover.X_START


class Chains(NamedTuple):
    """What makes an image: a surrogate's chain from T to t_mid, the model's below; None where none runs."""

    upper: GaussianDiffusion | None
    lower: GaussianDiffusion | None
    surrogate_evaluations: int
    network_evaluations: int


def plan_chains(model: DiffusionModel, steps: str, start: Start | None) -> Chains:
    """The chains for `steps`; ValueError when a spacing cannot be met, UserError for an upsampler."""
    if model.architecture.upsampling is not None:
        raise UserError(f"{model.checkpoint.path}: an upsampler; no command draws from low-resolution images yet")
    total = model.process.timesteps
    if start is None or start.t_mid == total:
        lower = model.process.respaced(steps)
        return Chains(None, lower, 0, lower.timesteps)
    below = truncated_process(model.process, steps, start.t_mid) if start.t_mid else None
    network_evaluations = below.timesteps if below else 0
    if isinstance(start.surrogate, GanModel):
        return Chains(None, below, 1, network_evaluations)
    upper = upper_process(start.surrogate.process, start.steps or str(total - start.t_mid), start.t_mid)
    return Chains(upper, below, upper.timesteps - (start.t_mid > 0), network_evaluations)


@torch.inference_mode()
def draw(
    model: DiffusionModel,
    count: int,
    *,
    steps: str,
    labels: Labels | None = None,
    sampler: Sampler = Sampler.ANCESTRAL,
    eta: float = 0.0,
    clip: bool = True,
    batch_size: int = 256,
    seed: int = 0,
    start: Start | None = None,
    progress: Callable[[int], None] = lambda done: None,
    kept: KeptImages = lambda first, make: make(),
) -> Images:
    """Draw `count` images, uint8 [count, H, W, C]. Image i depends on seed and i, not on count or batch size.

    With a start the chain begins at the surrogate's samples noised by `t_mid` steps; t_mid = 0 returns them alone,
    at the model's size. `progress` is told the number of images finished, a batch's steps as fractions of its images.
    `kept` may know a batch from an earlier run.
    """
    chains = plan_chains(model, steps, start)
    finished = []
    for first in range(0, count, batch_size):
        positions = torch.arange(first, min(first + batch_size, count), device=model.device)
        batch_labels = None if labels is None else torch.from_numpy(labels).to(model.device)[positions]
        batch = _Batch(positions, batch_labels, sampler, eta, clip, seed, chains, progress)
        finished.append(kept(first, partial(batch.draw, model, start)))
        progress(first + len(positions))
    return np.concatenate(finished)


@dataclass
class _Batch:
    """The images at `positions` on their way through the chains."""

    positions: Tensor
    labels: Tensor | None
    sampler: Sampler
    eta: float
    clip: bool
    seed: int
    chains: Chains
    progress: Callable[[int], None]
    evaluated: int = 0

    def draw(self, model: DiffusionModel, start: Start | None) -> Images:
        """Images uint8 [N, size, size, C]."""
        x = self._random("start").normal(self.positions, model.image_shape)
        if start is not None and start.t_mid < model.process.timesteps:
            x = self._x_mid(model, start, x)
        if self.chains.lower is not None:
            x = self._walk(model, self.chains.lower, x, "step").x
        return to_uint8(x)

    def _x_mid(self, model: DiffusionModel, start: Start, noise: Tensor) -> Tensor:
        surrogate, t_mid = start.surrogate, start.t_mid
        if isinstance(surrogate, GanModel):
            x_start = surrogate.draw(self.positions, self.labels, self.seed)
            return surrogate_start(model.process, x_start, noise, t_mid)
        assert self.chains.upper is not None
        x = self._random("surrogate_start").normal(self.positions, surrogate.image_shape)
        state = self._walk(surrogate, self.chains.upper, x, "surrogate_step", last_step=1 if t_mid else 0)
        return hand_over(model.process, state, model.size, noise, t_mid, start.handover)

    def _walk(
        self, model: DiffusionModel, process: GaussianDiffusion, x: Tensor, purpose: str, last_step: int = 0
    ) -> ChainState:
        """The last state of a reverse chain from x."""
        random, shape = self._random(purpose), x.shape[1:]
        path = reverse_chain(
            process,
            model.denoiser(self.labels if model.classes else None),
            x,
            lambda step: random.normal(self.positions, shape, draw=step),
            sampler=self.sampler,
            eta=self.eta,
            clip=self.clip,
            last_step=last_step,
        )
        for state in path:
            last = state
            self.evaluated += 1
            evaluations = self.chains.surrogate_evaluations + self.chains.network_evaluations
            self.progress(int(self.positions[0]) + len(self.positions) * self.evaluated // evaluations)
        return last

    def _random(self, purpose: str) -> PositionalRandom:
        return PositionalRandom(self.seed, f"sampling/{purpose}")


def draw_images(
    model: DiffusionModel, labels: Labels | None, count: int, sampler: str, steps: str, seed: int, eta: float = 0.0
) -> Images:
    """Draw in one call; labels of -1, or none for a conditional model, go round the classes.

    UserError names a label, sampler, eta or step count that the model cannot meet.
    """
    asked = model.labels(count)
    if labels is not None and (labels >= 0).any():
        if asked is None:
            raise UserError("label: the model is unconditional")
        if labels.max() >= model.classes:
            raise UserError(f"label {labels.max()}: the model has classes 0 to {model.classes - 1}")
        asked = np.where(labels < 0, asked, labels)
    chosen = choose("sampler", sampler, Sampler)
    if not 0 <= eta <= 1:
        raise UserError(f"eta {eta:g}: lies between 0 and 1")
    if eta and chosen is not Sampler.DDIM:
        raise UserError(f"eta {eta:g}: only the ddim sampler has it, the sampler is {sampler}")
    try:
        _refuse_skipping(model, steps, chosen)
        return draw(model, count, steps=steps, labels=asked, sampler=chosen, eta=eta, seed=seed)
    except ValueError as error:
        raise UserError(f"steps: {error}") from None


def _refuse_skipping(model: DiffusionModel, steps: str, sampler: Sampler) -> None:
    """A learned log variance is that of a single noising step, whatever the chain skips."""
    total = model.process.timesteps
    skips = model.process.respaced(steps).timesteps < total
    if skips and model.process.variance is Variance.LEARNED and sampler is Sampler.ANCESTRAL:
        raise UserError(f"steps {steps}: the model's variances are those of single steps; take all {total}, or ddim")
