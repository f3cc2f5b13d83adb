"""DDIM inversion: real images into noise, and back."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from iddpm.data import ShardFolder, to_uint8
from iddpm.diffusion import GaussianDiffusion, Sampler, ddim_encode, reverse_chain
from iddpm.errors import UserError
from iddpm.evaluation.grid import image_grid
from iddpm.params import Device, Split, Weights
from iddpm.stages.models import DiffusionModel, Images, Labels

SHOWN_DEVIATIONS = 3.0
"""Latents are standard normal: the picture spans this many standard deviations to either side."""


class Inversion(NamedTuple):
    """Images as the model sees them, uint8 [N, H, W, C], their latents and what these decode to."""

    originals: Images
    latents: npt.NDArray[np.float32]
    reconstructions: Images
    labels: Labels

    @property
    def mean_absolute_error(self) -> float:
        """In grey levels."""
        return float(np.abs(self._difference()).mean())

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio over all images, dB; infinite when nothing was lost."""
        error = float((self._difference() ** 2).mean())
        return 10 * float(np.log10(255**2 / error)) if error else float("inf")

    def _difference(self) -> npt.NDArray[np.float64]:
        return self.originals.astype(np.float64) - self.reconstructions


@torch.inference_mode()
def invert(
    model: DiffusionModel, images: Images, labels: Labels, classes: int, process: GaussianDiffusion, clip: bool
) -> Inversion:
    """Encode images along the deterministic DDIM path of `process`, and decode the latents along the same steps.

    `classes` is the number of the images' classes, `process` has at least 2 steps.
    """
    x, denoiser = model.on_images(images, labels, classes)
    originals = to_uint8(x)
    *_, latents = ddim_encode(process, denoiser, x, clip=clip)
    silence = torch.zeros_like(x)
    *_, decoded = reverse_chain(process, denoiser, latents, lambda step: silence, sampler=Sampler.DDIM, clip=clip)
    shown = latents.permute(0, 2, 3, 1).float().cpu().numpy()
    return Inversion(originals, shown, to_uint8(decoded.x), labels)


def invert_to_file(
    root: Path,
    folder: Path,
    out: Path,
    dataset: str,
    split: Split,
    count: int,
    steps: str,
    clip: bool,
    weights: Weights,
    device: Device,
) -> Inversion:
    """Invert the first `count` images of data/shards/DATASET and write them beside latents and reconstructions.

    UserError names the option that cannot be met.
    """
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"{out}: name a .png picture or an .npz file of arrays")
    model = DiffusionModel(folder, weights, device)
    try:
        process = model.process.respaced(steps)
    except ValueError as error:
        raise UserError(f"--steps: {error}") from None
    if process.timesteps < 2:
        raise UserError(f"--steps {steps}: an inversion takes at least 2")
    shards = ShardFolder(root / "data" / "shards" / dataset)
    images, labels = shards.read_split(split, count)
    if len(images) < count:
        raise UserError(f"--count {count}: {split} of {dataset} has {len(images)} images")
    inversion = invert(model, images, labels, shards.card.classes, process, clip)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        np.savez(out, **{name: array for name, array in inversion._asdict().items()})
    else:
        latents = torch.from_numpy(inversion.latents / SHOWN_DEVIATIONS).permute(0, 3, 1, 2)
        rows = (inversion.originals, to_uint8(latents), inversion.reconstructions)
        image_grid(np.concatenate(rows), out, columns=count)
    return inversion
