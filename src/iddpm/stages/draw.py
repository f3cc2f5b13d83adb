"""Drawing images from a finished model: from noise, or from a surrogate's samples."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iddpm.data import to_uint8
from iddpm.diffusion import (
    ChainState,
    GaussianDiffusion,
    Handover,
    Sampler,
    hand_over,
    reverse_chain,
    surrogate_start,
    truncated_process,
    upper_process,
)
from iddpm.errors import UserError
from iddpm.params import Cascade, Reconstruction, Sampling
from iddpm.randomness import PositionalRandom
from iddpm.stages.batches import Arrays
from iddpm.stages.models import DiffusionModel, GanModel, Images, Labels

KeptArrays = Callable[[int, Callable[[], Arrays]], Arrays]
"""(position of a batch's first image, what draws the batch) -> what it drew."""

FOLLOWED = 8
"""The first images of a sampling, whose chains are shown."""
MOMENTS = 8
"""Of a chain that are shown, its beginning and its end among them."""
INTERPOLATED = 8
"""Images from one end of an interpolation to the other."""


@dataclass(frozen=True)
class Start:
    """A start from a surrogate after `t_mid` noising steps; `steps` and `handover` concern a diffusion surrogate."""

    surrogate: GanModel | DiffusionModel
    t_mid: int
    steps: str | None = None
    handover: Handover = Handover.X_START


@dataclass(frozen=True)
class LowResolution:
    """What an upsampler is shown: images uint8 [count, h, w, C], one for each that is drawn.

    `augmentation` is the standard deviation, in units of [-1, 1], of the noise that is added to them and told to the
    network.
    """

    images: Images
    augmentation: float = 0.0


class Drawn(NamedTuple):
    """Images uint8 [count, H, W, C], and how the first of them came about.

    `denoising`, uint8 [<= FOLLOWED, <= MOMENTS, 2, H, W, C], holds x_t and the x_start predicted from it, from noise to
    image, evenly over the steps of the last chain that ran: the model's, else a diffusion surrogate's, else None.
    """

    images: Images
    denoising: Images | None


class Chains(NamedTuple):
    """What makes an image: a surrogate's chain from T to t_mid, the model's below; None where none runs."""

    upper: GaussianDiffusion | None
    lower: GaussianDiffusion | None
    surrogate_evaluations: int
    network_evaluations: int


def plan_chains(model: DiffusionModel, steps: str, start: Start | None) -> Chains:
    """The chains for `steps`; ValueError when a spacing cannot be met."""
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
    low_res: LowResolution | None = None,
    progress: Callable[[int], None] = lambda done: None,
    kept: KeptArrays = lambda first, make: make(),
) -> Drawn:
    """Draw `count` images. Image i depends on seed, i, its label and low-resolution image, not on count or batch size.

    With a start the chain begins at the surrogate's samples noised by `t_mid` steps; t_mid = 0 returns them alone,
    at the model's size. An upsampler needs `low_res`, and no other model takes it: UserError. `progress` is told the
    number of images finished, a batch's steps as fractions of its images. `kept` may know a batch from an earlier run.
    """
    if low_res is None and model.architecture.upsampling is not None:
        raise UserError(f"{model.checkpoint.path}: an upsampler; entries of cascades give it low-resolution images")
    # The stages of a cascade may share their seed, so each size has noise of its own.
    prefix = "sampling" if low_res is None else f"upsampling/{model.size}"
    chains = plan_chains(model, steps, start)
    channels, height, width = model.image_shape
    images = np.empty((count, height, width, channels), np.uint8)  # many large ones fit into memory once, not twice
    denoising = []
    for first in range(0, count, batch_size):
        positions = torch.arange(first, min(first + batch_size, count), device=model.device)
        batch_labels = None if labels is None else torch.from_numpy(labels).to(model.device)[positions]
        batch = _Batch(positions, batch_labels, sampler, eta, clip, seed, prefix, chains, progress)
        arrays = kept(first, partial(batch.draw, model, start, low_res))
        images[first : first + len(positions)] = arrays["images"]
        denoising += [arrays["denoising"]] if "denoising" in arrays else []
        progress(first + len(positions))
    return Drawn(images, np.concatenate(denoising) if denoising else None)


def draw_entry(
    entry: Sampling | Cascade | Reconstruction,
    model: DiffusionModel,
    count: int,
    labels: Labels | None,
    *,
    start: Start | None = None,
    low_res: LowResolution | None = None,
    progress: Callable[[int], None] = lambda done: None,
    kept: KeptArrays = lambda first, make: make(),
) -> Drawn:
    """`draw` as an entry of params.yaml says."""
    return draw(
        model,
        count,
        steps=str(entry.steps),
        labels=labels,
        sampler=entry.sampler,
        eta=entry.eta,
        clip=entry.clip,
        batch_size=entry.batch_size,
        seed=entry.seed,
        start=start,
        low_res=low_res,
        progress=progress,
        kept=kept,
    )


@torch.inference_mode()
def interpolate(
    model: DiffusionModel, pair: int, *, steps: str, labels: Labels | None, clip: bool = True, seed: int = 0
) -> Images:
    """Images uint8 [INTERPOLATED, H, W, C] that DDIM makes of the noise between samples 2 pair and 2 pair + 1.

    The noise goes round on the sphere (Song et al. 2020, section 5.3). All images have the label of the first, so the
    last is the other sample where `labels`, those of all samples, agree.
    """
    positions = torch.tensor([2 * pair, 2 * pair + 1], device=model.device)
    first, last = PositionalRandom(seed, "sampling/start").normal(positions, model.image_shape)
    x = spherical_path(first, last, INTERPOLATED)
    label = None if labels is None else torch.full((len(x),), int(labels[2 * pair]), device=model.device)
    silence = torch.zeros_like(x)
    process = model.process.respaced(steps)
    path = reverse_chain(process, model.denoiser(label), x, lambda step: silence, sampler=Sampler.DDIM, clip=clip)
    *_, state = path
    return to_uint8(state.x)


def spherical_path(first: Tensor, last: Tensor, count: int) -> Tensor:
    """`count` evenly spaced points [count, ...] from `first` to `last`, both included, round the origin.

    Between independent normal vectors every point is normal again; those of the straight line would be too short.
    """
    cosine = torch.nn.functional.cosine_similarity(first.double().flatten(), last.double().flatten(), dim=0)
    angle = torch.arccos(cosine)
    fractions = torch.linspace(0, 1, count, dtype=torch.float64, device=first.device).reshape(-1, *[1] * first.ndim)
    weights = torch.sin((1 - fractions) * angle), torch.sin(fractions * angle)
    return ((weights[0] * first + weights[1] * last) / torch.sin(angle)).to(first.dtype)


@dataclass
class _Batch:
    """The images at `positions` on their way through the chains."""

    positions: Tensor
    labels: Tensor | None
    sampler: Sampler
    eta: float
    clip: bool
    seed: int
    prefix: str
    chains: Chains
    progress: Callable[[int], None]
    evaluated: int = 0
    denoising: list[Images] = field(default_factory=list)

    def draw(self, model: DiffusionModel, start: Start | None, low_res: LowResolution | None) -> Arrays:
        """`images` uint8 [N, size, size, C] and, of the sampling's first, `denoising`."""
        x = self._random("start").normal(self.positions, model.image_shape)
        if start is not None and start.t_mid < model.process.timesteps:
            x = self._x_mid(model, start, x)
        if self.chains.lower is not None:
            shown = () if low_res is None else self._augmented(model, low_res)
            x = self._walk(model, self.chains.lower, x, "step", shown).x
        arrays: Arrays = {"images": to_uint8(x)}
        return arrays | {"denoising": np.stack(self.denoising, axis=1)} if self.denoising else arrays

    def _augmented(self, model: DiffusionModel, low_res: LowResolution) -> tuple[Tensor, Tensor | None]:
        """The low-resolution images with noise as in training, and its standard deviation [N] for the network."""
        x, level = model.low_resolution(low_res.images[self.positions.cpu().numpy()]), low_res.augmentation
        if level == 0:
            return x, None
        noise = self._random("augmentation").normal(self.positions, x.shape[1:])
        return x + level * noise, torch.full((len(x),), level, device=x.device)

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
        self,
        model: DiffusionModel,
        process: GaussianDiffusion,
        x: Tensor,
        purpose: str,
        shown: tuple[Tensor | None, ...] = (),
        last_step: int = 0,
    ) -> ChainState:
        """The last state of a reverse chain from x, with what an upsampler is shown."""
        random, shape = self._random(purpose), x.shape[1:]
        path = reverse_chain(
            process,
            model.denoiser(self.labels if model.classes else None, *shown),
            x,
            lambda step: random.normal(self.positions, shape, draw=step),
            sampler=self.sampler,
            eta=self.eta,
            clip=self.clip,
            last_step=last_step,
        )
        first, steps = int(self.positions[0]), process.timesteps - last_step
        moments = set(np.linspace(0, steps, MOMENTS).round().tolist())
        self.denoising = []
        for taken, state in enumerate(path):
            if taken in moments:
                self._follow(x, state.x_start)
            x = state.x
            self.evaluated += 1
            evaluations = self.chains.surrogate_evaluations + self.chains.network_evaluations
            self.progress(first + len(self.positions) * self.evaluated // evaluations)
        self._follow(x, state.x_start)
        return state

    def _follow(self, x_t: Tensor, x_start: Tensor) -> None:
        """Note a moment of the chains that are shown."""
        shown = FOLLOWED - int(self.positions[0])
        if shown > 0:
            self.denoising.append(np.stack([to_uint8(x_t[:shown]), to_uint8(x_start[:shown])], axis=1))

    def _random(self, purpose: str) -> PositionalRandom:
        return PositionalRandom(self.seed, f"{self.prefix}/{purpose}")
