"""Images as tensors and back, and changing their size."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL.Image import Image, Resampling
from torch import Tensor

LARGEST_ASPECT = 64
"""Of the sides of an image that is resized."""


def to_tensor(images: npt.NDArray[np.uint8], device: torch.device, size: int | None = None) -> Tensor:
    """uint8 [N, H, W, C] -> float32 [N, C, H, W] in [-1, 1] on a device, averaged down to `size` if given."""
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x if size is None else area_average(x, size, grey_levels=True)


def to_uint8(x: Tensor) -> npt.NDArray[np.uint8]:
    """Images [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], rounded to the nearest grey level."""
    grey = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array: npt.NDArray[np.uint8] = grey.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def area_average(x: Tensor, size: int, *, grey_levels: bool = False) -> Tensor:
    """Images [N, C, H, W] in [-1, 1] averaged over areas down to [N, C, size, size].

    `grey_levels` rounds to the 256 levels of 8-bit images, which a likelihood rests on.
    """
    small = F.interpolate(x, (size, size), mode="area")
    return ((small + 1) * 127.5).round() / 127.5 - 1 if grey_levels else small


def resize_and_crop(image: Image, size: int) -> npt.NDArray[np.uint8]:
    """An 8-bit image of any shape as uint8 [size, size, channels], the way improved-diffusion's loader does it.

    Halved by box averages while the short side stays at least `size`, then resized (bicubic) to make it `size`,
    and cropped to the centre. ValueError for a shape whose enlargement would fill the memory.
    """
    if max(image.size) > LARGEST_ASPECT * min(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels are too long and narrow")
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size))).reshape(size, size, -1)
