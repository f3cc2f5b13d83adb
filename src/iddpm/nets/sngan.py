"""SNGAN with residual blocks (Miyato et al. 2018, table 4), at any size; class-conditional as in its companion
paper (Miyato & Koyama 2018): conditional batch norm in the generator, projection in the discriminator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def bottom_size(image_size: int) -> tuple[int, int]:
    """(size at the generator's bottom, number of doublings) for images of at least 4 pixels a side.

    The bottom has 4 to 8 pixels, below 8 pixels half the image's; doubled, they reach `image_size` or more.
    """
    doublings = max(1, (image_size // 4).bit_length() - 1)
    return -(-image_size // 2**doublings), doublings


class ConditionalBatchNorm(nn.Module):
    """Batch norm with one scale and shift per class; plain batch norm when `classes` is 0."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=classes == 0)
        if classes:
            self.scale, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.norm(x)
        return x if labels is None else x * self.scale(labels)[:, :, None, None] + self.shift(labels)[:, :, None, None]


class GeneratorBlock(nn.Module):
    """BN-ReLU-upsample-Conv3-BN-ReLU-Conv3 beside an upsampled 1x1 shortcut."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ConditionalBatchNorm(channels, classes), ConditionalBatchNorm(channels, classes)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, labels)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, labels)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2))  # type: ignore[no-any-return]


class Generator(nn.Module):
    """z [N, z_dim] (and labels [N]) -> images [N, channels, size, size] in [-1, 1].

    A size that doubling does not meet is the centre of the next one that it does.
    """

    def __init__(self, image_size: int, channels: int, width: int = 256, z_dim: int = 128, classes: int = 0) -> None:
        super().__init__()
        self.image_size, self.z_dim, self.width, self.classes = image_size, z_dim, width, classes
        self.bottom, doublings = bottom_size(image_size)
        self.linear = nn.Linear(z_dim, width * self.bottom**2)
        self.blocks = nn.ModuleList([GeneratorBlock(width, classes) for _ in range(doublings)])
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                _init_weights(module)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.linear(z).reshape(len(z), self.width, self.bottom, self.bottom)
        for block in self.blocks:
            x = block(x, labels)
        x = torch.tanh(self.conv(F.relu(self.norm(x))))
        margin = (x.shape[-1] - self.image_size) // 2
        centre = slice(margin, margin + self.image_size)
        return x[:, :, centre, centre]


class DiscriminatorBlock(nn.Module):
    """(ReLU-)Conv3-ReLU-Conv3, optionally halved, beside a shortcut; all convolutions spectrally normalised."""

    def __init__(self, in_channels: int, channels: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = _normalised(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.conv2 = _normalised(nn.Conv2d(channels, channels, 3, padding=1))
        learned_shortcut = halve or in_channels != channels
        self.shortcut = _normalised(nn.Conv2d(in_channels, channels, 1)) if learned_shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.halve:
            return h + self.shortcut(x)  # type: ignore[no-any-return]
        # Pooling commutes with the 1x1 shortcut; pooling first costs a quarter.
        return _halved(h) + self.shortcut(_halved(x))  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """Images [N, channels, size, size] (and labels [N]) -> critic value [N]."""

    def __init__(self, image_size: int, channels: int, width: int = 128, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        halvings = max(1, (image_size // 8).bit_length() - 1)
        blocks = [DiscriminatorBlock(channels, width, halve=True, first=True)]
        blocks += [DiscriminatorBlock(width, width, halve=True) for _ in range(halvings - 1)]
        blocks += [DiscriminatorBlock(width, width, halve=False) for _ in range(2)]
        self.blocks = nn.ModuleList(blocks)
        self.linear = _normalised(nn.Linear(width, 1, bias=False))
        self.projection = _normalised(nn.Embedding(classes, width)) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x)
        features = F.relu(x).sum(dim=(2, 3))
        value = self.linear(features)[:, 0]
        if self.projection is not None:
            value = value + (features * self.projection(labels)).sum(1)
        return value  # type: ignore[no-any-return]


def _halved(x: Tensor) -> Tensor:
    """Averages of 2x2 pixels; of an odd size the last row and column are averaged among themselves."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


def _init_weights(module: nn.Module) -> None:
    assert isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding)
    nn.init.xavier_uniform_(module.weight)
    if not isinstance(module, nn.Embedding) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _normalised(module: nn.Module) -> nn.Module:
    _init_weights(module)
    return spectral_norm(module)
