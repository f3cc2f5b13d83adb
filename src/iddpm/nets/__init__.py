"""Networks: the U-Nets of the paper and the coursework, SNGAN, and what they cost."""

from iddpm.nets.counts import BlockCount, count_blocks
from iddpm.nets.layers import timestep_embedding
from iddpm.nets.sngan import Discriminator, Generator
from iddpm.nets.unet import SuperResolutionUNet, UNet

__all__ = [
    "BlockCount",
    "Discriminator",
    "Generator",
    "SuperResolutionUNet",
    "UNet",
    "count_blocks",
    "timestep_embedding",
]
