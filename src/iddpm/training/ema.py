"""The exponential moving average of a network's weights."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * network; buffers, such as batch statistics, are copied."""
    averages: list[Tensor] = list(average.parameters())
    torch._foreach_lerp_(averages, list[Tensor](network.parameters()), 1.0 - decay)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)
