"""Finished models opened for use: diffusion models, mixtures of two, SNGAN generators."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from iddpm.data import Card, area_average, to_tensor
from iddpm.diffusion import Denoiser, GaussianDiffusion
from iddpm.errors import UserError
from iddpm.params import Architecture, Conditioning, Device, SnganSurrogate, Weights
from iddpm.randomness import PositionalRandom
from iddpm.training.build import build_gan, build_network, build_process
from iddpm.training.checkpoint import Checkpoint, open_checkpoint
from iddpm.training.device import resolve_device

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class MixtureNetwork(nn.Module):
    """Two networks as one: `ends` has the first and the last `within` timesteps, `middle` those between (appendix A).

    Only one of them runs, so the samples of a batch must share their timestep: ValueError.
    """

    def __init__(self, middle: nn.Module, ends: nn.Module, process: GaussianDiffusion, within: int) -> None:
        super().__init__()
        self.middle, self.ends = middle, ends
        # Halfway between two timesteps, in the units that the networks are shown.
        unit = float(process.model_timestep(torch.tensor([1])))
        self._first, self._last = (within - 0.5) * unit, (process.original_timesteps - within - 0.5) * unit

    def forward(self, x: Tensor, timestep: Tensor, labels: Tensor | None = None, **conditioning: Tensor) -> Tensor:
        shared = float(timestep[0])
        if (timestep != shared).any():
            raise ValueError("the samples of a batch must share their timestep")
        network = self.middle if self._first < shared < self._last else self.ends
        output: Tensor = network(x, timestep, labels, **conditioning)
        return output


class DiffusionModel:
    """A finished diffusion model, or a mixture of two, ready for use. Images have `size` pixels a side."""

    def __init__(self, folder: Path, weights: Weights = Weights.EMA, device: Device = Device.AUTO) -> None:
        self.checkpoint = _open(folder, "diffusion", "mixture")
        about = self.checkpoint.about
        architectures = about.get("architectures") or {"middle": about["architecture"]}
        parts = {name: Architecture.model_validate_json(json.dumps(part)) for name, part in architectures.items()}
        self.architecture = parts["middle"]
        self.card = Card(**about["card"])
        self.size = self.architecture.size or self.card.size
        self.classes = self.card.classes if self.architecture.network.conditioning is Conditioning.CLASS else 0
        self.device = resolve_device(device)
        self.process = build_process(self.architecture.diffusion)
        network: nn.Module = build_network(self.architecture, self.card)
        if about["kind"] == "mixture":
            ends = build_network(parts["ends"], self.card)
            network = MixtureNetwork(network, ends, self.process, about["params"]["within"])
        self.network = network.to(self.device).eval()
        self.network.load_state_dict(self.checkpoint.weights("ema" if weights is Weights.EMA else "model"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.card.channels, self.size, self.size

    def denoiser(
        self, labels: Tensor | None, low_res: Tensor | None = None, noise_level: Tensor | None = None
    ) -> Denoiser:
        """The network with its labels bound, and an upsampler's low-resolution images and what noise they have."""
        conditioning = {} if low_res is None else {"low_res": low_res, "noise_level": noise_level}
        return lambda x_t, timestep: self.network(x_t, timestep, labels, **conditioning)

    def labels(self, count: int, asked: Labels | None = None) -> Labels | None:
        """Labels of `count` images as asked, 0, 1, 2, ... in turn where -1 or none is; None for an unconditional model.

        UserError names a label that the model does not have.
        """
        in_turn = np.arange(count, dtype=np.int64) % self.classes if self.classes else None
        if asked is None or (asked < 0).all():
            return in_turn
        if in_turn is None:
            raise UserError("label: the model is unconditional")
        if asked.max() >= self.classes:
            raise UserError(f"label {asked.max()}: the model has classes 0 to {self.classes - 1}")
        return np.where(asked < 0, in_turn, asked)

    def low_resolution(self, images: Images) -> Tensor:
        """Images uint8 [N, h, w, C] as an upsampler sees them, [N, C, h, w] in [-1, 1]; UserError for other images."""
        upsampling = self.architecture.upsampling
        if upsampling is None:
            raise UserError(f"{self.checkpoint.path}: no upsampler")
        size, (height, width, channels) = upsampling.low_size, images.shape[1:]
        if (height, width, channels) != (size, size, self.card.channels):
            raise UserError(
                f"{self.checkpoint.path}: upsamples {size}x{size} pixels and {self.card.channels} channels; these "
                f"images have {height}x{width} and {channels}"
            )
        return to_tensor(images, self.device)

    def on_images(self, images: Images, labels: Labels, classes: int) -> tuple[Tensor, Denoiser]:
        """Real images as the model is trained on them, [N, C, size, size] in [-1, 1], and the denoiser for them.

        It is told their labels and, of an upsampler, their low-resolution versions, without augmentation.
        `images` is uint8 [N, H, W, C], `classes` the number of their dataset's classes; UserError when they do not fit.
        """
        height, width, channels = images.shape[1:]
        if (height, width, channels) != (self.card.size, self.card.size, self.card.channels):
            raise UserError(
                f"{self.checkpoint.path}: made for {self.card.size}x{self.card.size} pixels and {self.card.channels} "
                f"channels; these images have {height}x{width} and {channels}"
            )
        if self.classes and classes != self.classes:
            raise UserError(
                f"{self.checkpoint.path}: is told one of {self.classes} classes; these images have {classes or 'none'}"
            )
        x = to_tensor(images, self.device, self.architecture.size)
        upsampling = self.architecture.upsampling
        low_res = None if upsampling is None else area_average(x, upsampling.low_size)
        return x, self.denoiser(torch.from_numpy(labels).to(self.device) if self.classes else None, low_res)


class GanModel:
    """A finished SNGAN generator."""

    def __init__(self, folder: Path, device: Device = Device.AUTO) -> None:
        self.checkpoint = _open(folder, "sngan")
        surrogate = SnganSurrogate.model_validate_json(json.dumps(self.checkpoint.about["params"]))
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


def _open(folder: Path, *kinds: str) -> Checkpoint:
    checkpoint = open_checkpoint(folder)
    if checkpoint.about["kind"] not in kinds:
        raise UserError(f"{folder}: holds a {checkpoint.about['kind']} model, {' or '.join(kinds)} is needed")
    return checkpoint
