"""Drawing images from a finished model: from noise, or from a surrogate's samples."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iddpm.data.sources import Card
from iddpm.diffusion import Denoiser, Sampler, reverse_chain, surrogate_start, truncated_process
from iddpm.errors import UserError
from iddpm.params import Conditioning, Device, Model, Surrogate, Weights
from iddpm.randomness import PositionalRandom
from iddpm.training.build import build_gan, build_network, build_process, resolve_device
from iddpm.training.checkpoint import Checkpoint, open_checkpoint

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def to_uint8(x: Tensor) -> Images:
    """Images [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], rounded to the nearest grey level."""
    grey = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array: Images = grey.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


class DiffusionModel:
    """A finished diffusion model, ready to draw."""

    def __init__(self, folder: Path, weights: Weights = Weights.EMA, device: Device = Device.AUTO) -> None:
        self.checkpoint = _open(folder, "diffusion")
        self.model = Model.model_validate_json(json.dumps(self.checkpoint.about["params"]))
        self.card = Card(**self.checkpoint.about["card"])
        self.device = resolve_device(device)
        self.process = build_process(self.model.diffusion)
        self.network = build_network(self.model, self.card).to(self.device).eval()
        self.network.load_state_dict(self.checkpoint.weights("ema" if weights is Weights.EMA else "model"))

    def denoiser(self, labels: Tensor | None) -> Denoiser:
        """The network with its labels bound."""
        return lambda x_t, timestep: self.network(x_t, timestep, labels)

    def labels(self, count: int) -> Labels | None:
        """Labels 0, 1, 2, ... in turn for `count` images; None for an unconditional model."""
        return np.arange(count, dtype=np.int64) % self.network.classes if self.network.classes else None


class GanModel:
    """A finished SNGAN generator."""

    def __init__(self, folder: Path, device: Device = Device.AUTO) -> None:
        self.checkpoint = _open(folder, "sngan")
        surrogate = Surrogate.model_validate_json(json.dumps(self.checkpoint.about["params"]))
        self.card = Card(**self.checkpoint.about["card"])
        self.device = resolve_device(device)
        self.generator = build_gan(surrogate, self.card)[0].to(self.device).eval()
        self.generator.load_state_dict(self.checkpoint.weights("ema"))
        self.conditional = surrogate.conditioning is Conditioning.CLASS

    @torch.inference_mode()
    def draw(self, positions: Tensor, labels: Tensor | None, seed: int) -> Tensor:
        """Images float32 [N, C, H, W] in [-1, 1] for sample indices [N]."""
        z = PositionalRandom(seed, "sampling/latent").normal(positions, (self.generator.z_dim,))
        images: Tensor = self.generator(z, labels if self.conditional else None)
        return images


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
    surrogate: GanModel | None = None,
    t_mid: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Images:
    """Draw `count` images, uint8 [count, H, W, C]. Image i depends on seed and i, not on count or batch size.

    With a surrogate the chain starts from its samples noised by `t_mid` steps; t_mid = 0 returns them as they are.
    `progress` is told the number of images finished, counting a batch's steps as fractions of its images.
    """
    process = model.process
    if surrogate is None:
        chain = process.respaced(steps)
    else:
        assert t_mid is not None
        chain = truncated_process(process, steps, t_mid) if t_mid else process
    start, step_noise = PositionalRandom(seed, "sampling/start"), PositionalRandom(seed, "sampling/step")
    shape = (model.card.channels, model.card.size, model.card.size)
    finished = []
    for first in range(0, count, batch_size):
        positions = torch.arange(first, min(first + batch_size, count), device=model.device)
        batch_labels = None if labels is None else torch.from_numpy(labels).to(model.device)[positions]
        x = start.normal(positions, shape)
        if surrogate is not None and t_mid is not None:
            x = surrogate_start(process, surrogate.draw(positions, batch_labels, seed), x, t_mid)
        if t_mid != 0:
            noise = lambda step, where=positions: step_noise.normal(where, shape, draw=step)  # noqa: E731
            path = reverse_chain(chain, model.denoiser(batch_labels), x, noise, sampler=sampler, eta=eta, clip=clip)
            for taken, x_previous in enumerate(path, 1):
                x = x_previous
                progress(first + len(positions) * taken // chain.timesteps)
        progress(first + len(positions))
        finished.append(to_uint8(x))
    return np.concatenate(finished)


def draw_images(
    model: DiffusionModel, labels: Labels | None, count: int, sampler: str, steps: str, seed: int, eta: float = 0.0
) -> Images:
    """Draw in one call; labels of -1, or none for a conditional model, go round the classes.

    UserError names a label, sampler or step count that the model cannot meet.
    """
    asked = model.labels(count)
    if labels is not None and (labels >= 0).any():
        if asked is None:
            raise UserError("label: the model is unconditional")
        if labels.max() >= model.network.classes:
            raise UserError(f"label {labels.max()}: the model has classes 0 to {model.network.classes - 1}")
        asked = np.where(labels < 0, asked, labels)
    if sampler not in list(Sampler):
        raise UserError(f"sampler {sampler!r}: choose {' or '.join(Sampler)}")
    try:
        return draw(model, count, steps=steps, labels=asked, sampler=Sampler(sampler), eta=eta, seed=seed)
    except ValueError as error:
        raise UserError(f"steps: {error}") from None


def _open(folder: Path, kind: str) -> Checkpoint:
    checkpoint = open_checkpoint(folder)
    if checkpoint.about["kind"] != kind:
        raise UserError(f"{folder}: holds a {checkpoint.about['kind']} model, {kind} is needed")
    return checkpoint
