"""Networks: the paper's U-Net and SNGAN."""

from iddpm.nets.layers import timestep_embedding
from iddpm.nets.sngan import Discriminator, Generator
from iddpm.nets.unet import SuperResolutionUNet, UNet

__all__ = ["Discriminator", "Generator", "SuperResolutionUNet", "UNet", "timestep_embedding"]
