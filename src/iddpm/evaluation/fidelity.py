"""Fidelity of images to their originals: peak signal-to-noise ratio and structural similarity."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Images = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]
AT_ONCE = 64
"""Images, to bound the memory."""
SMALLEST_SIZE = 6
"""Pixels of a side that SSIM's window, 11 x 11 over reflected edges, needs."""


class Fidelity(NamedTuple):
    """Of each image [N]: PSNR in dB, infinite for an exact copy; SSIM (Wang et al. 2004), 1 for an exact copy."""

    psnr: Values
    ssim: Values


def fidelity(images: Images, originals: Images) -> Fidelity:
    """Of images uint8 [N, H, W, C] to originals of the same shape, on grey levels.

    SSIM has a Gaussian window of standard deviation 1.5 and is averaged over pixels and channels.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    psnr, ssim = [], []
    for first in range(0, len(images), AT_ONCE):
        ours, theirs = (
            torch.from_numpy(each[first : first + AT_ONCE]).permute(0, 3, 1, 2).double() for each in (images, originals)
        )
        psnr.append(peak_signal_noise_ratio(ours, theirs, data_range=255.0, reduction="none", dim=(1, 2, 3)))
        ssim.append(structural_similarity_index_measure(ours, theirs, data_range=255.0, reduction="none"))
    return Fidelity(torch.cat(psnr).numpy(), torch.cat(ssim).numpy())
