"""The Inception network of 2015 by which published FIDs are measured.

The architecture of the TensorFlow graph of 2015-12-05 with its peculiarities, in the tensor names of the weights
that pytorch-fid and torch-fidelity share (torch-fidelity 0.4.0, feature_extractor_inceptionv3.py).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iddpm.errors import UserError
from iddpm.evaluation.features.network import ModuleFeatures, load_weights

SIZE = 299
CLASSES = 1008
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
FILES = (WEIGHTS, "pt_inception-2015-12-05-6726825d.pth")
"""The same file as torch-fidelity and as pytorch-fid name it."""

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
DOWNLOAD = "`iddpm download inception` fetches it"

Pool = Callable[[Tensor], Tensor]
AVERAGE: Pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
MAXIMUM: Pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
REDUCE: Pool = partial(F.max_pool2d, kernel_size=3, stride=2)


class Conv(NamedTuple):
    """A convolution of a block: with stride 1 it keeps the size, with stride 2 it has no padding."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Chain = Sequence[Conv | tuple[Conv, Conv]]
"""Convolutions one after the other; a pair takes the same input, and its outputs are joined."""


class ConvBatchNorm(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: tuple[int, int],
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Chains of convolutions beside each other and a pooled branch, joined along the channels.

    `pooled` channels, if given, are made of the pooled branch by a 1x1 convolution.
    """

    def __init__(self, in_channels: int, chains: Sequence[Chain], pool: Pool, pooled: int | None = None) -> None:
        super().__init__()
        self._chains = [[(step,) if isinstance(step, Conv) else step for step in chain] for chain in chains]
        self._pool, self._pooled = pool, pooled
        self.channels = pooled or in_channels
        for chain in self._chains:
            channels = in_channels
            for step in chain:
                for name, out_channels, kernel, stride in step:
                    padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else (0, 0)
                    self.add_module(name, ConvBatchNorm(channels, out_channels, kernel, stride, padding))
                channels = sum(conv.channels for conv in step)
            self.channels += channels
        if pooled:
            self.branch_pool = ConvBatchNorm(in_channels, pooled, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = []
        for chain in self._chains:
            y = x
            for step in chain:
                y = torch.cat([self.get_submodule(conv.name)(y) for conv in step], 1)
            branches.append(y)
        pooled = self._pool(x)
        return torch.cat([*branches, self.branch_pool(pooled) if self._pooled else pooled], 1)


def _block_5(in_channels: int, pooled: int) -> Block:
    chains = [
        [Conv("branch1x1", 64)],
        [Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))],
        [Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3))],
    ]
    return Block(in_channels, chains, AVERAGE, pooled)


def _block_6a(in_channels: int) -> Block:
    chains = [
        [Conv("branch3x3", 384, (3, 3), stride=2)],
        [Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3), stride=2)],
    ]
    return Block(in_channels, chains, REDUCE)


def _block_6(in_channels: int, width: int) -> Block:
    chains = [
        [Conv("branch1x1", 192)],
        [Conv("branch7x7_1", width), Conv("branch7x7_2", width, (1, 7)), Conv("branch7x7_3", 192, (7, 1))],
        [
            Conv("branch7x7dbl_1", width),
            Conv("branch7x7dbl_2", width, (7, 1)),
            Conv("branch7x7dbl_3", width, (1, 7)),
            Conv("branch7x7dbl_4", width, (7, 1)),
            Conv("branch7x7dbl_5", 192, (1, 7)),
        ],
    ]
    return Block(in_channels, chains, AVERAGE, 192)


def _block_7a(in_channels: int) -> Block:
    chains = [
        [Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), stride=2)],
        [
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, (3, 3), stride=2),
        ],
    ]
    return Block(in_channels, chains, REDUCE)


def _block_7(in_channels: int, pool: Pool) -> Block:
    chains: list[Chain] = [
        [Conv("branch1x1", 320)],
        [Conv("branch3x3_1", 384), (Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1)))],
        [
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, (3, 3)),
            (Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1))),
        ],
    ]
    return Block(in_channels, chains, pool, 192)


class Inception(nn.Module):
    """uint8 [N, 3, H, W] -> features of pool_3 [N, 2048] and 1,008 class logits without their bias."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBatchNorm(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = ConvBatchNorm(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = ConvBatchNorm(32, 64, (3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = ConvBatchNorm(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvBatchNorm(80, 192, (3, 3))
        self.Mixed_5b = _block_5(192, pooled=32)
        self.Mixed_5c = _block_5(256, pooled=64)
        self.Mixed_5d = _block_5(288, pooled=64)
        self.Mixed_6a = _block_6a(288)
        self.Mixed_6b = _block_6(768, width=128)
        self.Mixed_6c = _block_6(768, width=160)
        self.Mixed_6d = _block_6(768, width=160)
        self.Mixed_6e = _block_6(768, width=192)
        self.Mixed_7a = _block_7a(768)
        self.Mixed_7b = _block_7(1280, AVERAGE)
        self.Mixed_7c = _block_7(2048, MAXIMUM)  # a peculiarity of the graph of 2015
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = (resize_as_tensorflow1(images.float(), SIZE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(REDUCE(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(REDUCE(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return features, features @ self.fc.weight.T


def resize_as_tensorflow1(x: Tensor, size: int) -> Tensor:
    """Float [N, C, H, W] -> [N, C, size, size], as resize_bilinear of TensorFlow 1: the first pixels' corners meet.

    Neither pixel centres nor antialiasing: output pixel i lies at i * H / size between its two neighbours.
    """
    return _interpolated(_interpolated(x, size, dim=3), size, dim=2)


def _interpolated(x: Tensor, size: int, dim: int) -> Tensor:
    length = x.shape[dim]
    # the scale is rounded to float32 before it is multiplied, as in TensorFlow
    places = torch.arange(size, dtype=torch.float32) * torch.tensor(length / size, dtype=torch.float32)
    low = places.long()
    weights = (places - low).to(x.device).view([size if axis == dim else 1 for axis in range(4)])
    high = (low + 1).clamp(max=length - 1)
    first, second = (x.index_select(dim, indices.to(x.device)) for indices in (low, high))
    return first + (second - first) * weights


def find_weights(folder: Path) -> Path:
    """The file of weights in `folder`, under either name. UserError when there is none."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder / WEIGHTS}: missing; {DOWNLOAD}, or put your copy there")
    return path


def open_inception(folder: Path, device: torch.device) -> ModuleFeatures:
    """The network with the weights in `folder`. UserError when none or others lie there."""
    inception = Inception()
    inception.load_state_dict(load_weights(find_weights(folder), SHA256, DOWNLOAD))
    identity = {
        "name": "inception",
        "weights_sha256": SHA256,
        "resize": f"bilinear of TensorFlow 1, {SIZE}x{SIZE}",
        "scaling": "(x - 128) / 128",
        "features": "pool_3, 2048",
        "probabilities": "softmax of logits without bias, 1008",
    }
    return ModuleFeatures(inception, identity, "FID", device)
