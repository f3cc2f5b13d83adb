"""What a network costs, by block: trainable parameters, and multiply-adds of one forward pass of one image.

The paper's "FLOPs" are multiply-adds; a floating point operation count is twice that. Convolutions, linear layers and
the matrix products of attention are counted, as in the published figures; norms, activations and sums are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from iddpm.nets.sngan import Generator
from iddpm.nets.unet import SuperResolutionUNet, UNet


@dataclass(frozen=True)
class BlockCount:
    """One block: the path of its parameters, the shape of its output for one image, and its cost."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def count_blocks(network: nn.Module, image_size: int, channels: int) -> list[BlockCount]:
    """Count a U-Net, Generator or Discriminator for images [channels, image_size, image_size], in order of execution.

    A network on the meta device costs no memory and no arithmetic. It is left in evaluation mode. The blocks are all
    of the network: their sums are its totals.
    """
    blocks = dict(_blocks(network))
    shapes: dict[str, tuple[int, ...]] = {}

    def note_shape(name: str) -> Any:
        return lambda module, inputs, output: shapes.__setitem__(name, tuple(output.shape[1:]))

    hooks = [module.register_forward_hook(note_shape(name)) for name, module in blocks.items()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(**_one_image(network, image_size, channels))
    for hook in hooks:
        hook.remove()
    flops = counter.get_flop_counts()
    return [
        BlockCount(
            name=name,
            output_shape=shape,
            parameters=sum(p.numel() for p in blocks[name].parameters() if p.requires_grad),
            multiply_adds=sum(flops.get(f"{type(network).__name__}.{name}", {}).values()) // 2,
        )
        for name, shape in shapes.items()
    ]


def _blocks(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in network.named_children():
        if isinstance(module, nn.ModuleList):
            yield from ((f"{name}.{number}", block) for number, block in enumerate(module))
        else:
            yield name, module


def _one_image(network: nn.Module, image_size: int, channels: int) -> dict[str, Tensor]:
    """Arguments of a forward pass with a batch of one."""
    device = next(network.parameters()).device
    label = {"labels": torch.zeros(1, dtype=torch.int64, device=device)} if network.classes else {}
    if isinstance(network, Generator):
        return {"z": torch.zeros(1, network.z_dim, device=device), **label}
    image = torch.zeros(1, channels, image_size, image_size, device=device)
    if not isinstance(network, UNet):
        return {"x": image, **label}
    low_res = {"low_res": image} if isinstance(network, SuperResolutionUNet) else {}
    return {"x": image, "timesteps": torch.zeros(1, device=device), **low_res, **label}
