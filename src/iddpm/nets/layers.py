"""Building blocks of the U-Nets. Parameter names follow the public improved-diffusion checkpoints."""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """[cos, sin] of the (possibly fractional) timesteps [N] at dim/2 frequencies, float32 [N, dim]."""
    half = dim // 2
    frequencies = torch.exp(
        -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    )
    angles = timesteps[:, None].to(torch.float32) * frequencies[None]
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return F.pad(embedding, (0, dim % 2))


def zero_init(module: ModuleT) -> ModuleT:
    """Zero all parameters, so that a residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class GroupNorm32(nn.GroupNorm):
    """32 groups (fewer when the channels do not divide), computed in float32 under autocast."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels), channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class PositionalDropout(nn.Module):
    """Dropout whose mask is a pure function of each sample's key, so workers and accumulation change nothing.

    `key` is int64 [N], one draw per sample; `layer` tells the network's dropout layers apart.
    """

    def __init__(self, probability: float, layer: int) -> None:
        super().__init__()
        self.probability, self.layer = probability, layer

    def forward(self, x: Tensor, key: Tensor | None) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        if key is None:
            raise ValueError("a network with dropout needs dropout_key in training mode")
        element = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device)
        bits = _mix(_mix(key.to(torch.int32) + self.layer * 0x3C6EF372)[:, None] + element[None] * -1640531527)
        keep = ((bits & 0xFFFFFF) >= self.probability * 2**24).reshape(x.shape)
        return x * keep / (1.0 - self.probability)


def _mix(x: Tensor) -> Tensor:
    """Avalanche of int32 values (murmur3's finaliser; multiplication wraps)."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * -2048144789
    x = (x ^ ((x >> 13) & 0x7FFFF)) * -1028477387
    return x ^ ((x >> 16) & 0xFFFF)


class ResBlock(nn.Module):
    """GN-SiLU-Conv3, time embedding, GN-SiLU-dropout-zero Conv3, with a 1x1 skip when channels change.

    With `scale_shift` the embedding gives GN(h) * (1 + scale) + shift, else it is added before the norm.
    """

    def __init__(
        self, channels: int, out_channels: int, emb_channels: int, *, scale_shift: bool, dropout: PositionalDropout
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels if scale_shift else out_channels)
        )
        self.out_layers = nn.ModuleList(
            [
                GroupNorm32(out_channels),
                nn.SiLU(),
                dropout,
                zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
            ]
        )
        self.skip_connection = nn.Identity() if out_channels == channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor, dropout_key: Tensor | None) -> Tensor:
        h = self.in_layers(x)
        emb_out = self.emb_layers(emb)[:, :, None, None]
        norm, activation, dropout, conv = self.out_layers
        if self.scale_shift:
            scale, shift = emb_out.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + emb_out)
        h = conv(dropout(activation(h), dropout_key))
        return self.skip_connection(x) + h  # type: ignore[no-any-return]


class SqueezeExcitation(nn.Module):
    """Scale every channel by a gate in (0, 1) that is computed from all channel means (Hu et al. 2018)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class MBConvBlock(nn.Module):
    """The coursework's inverted bottleneck: expand by 4, add the time embedding, depthwise Conv3, squeeze-excitation.

    GN-SiLU-Conv1, time embedding, GN-SiLU-depthwise Conv3-GN-SiLU-SE-dropout-zero Conv1, with a 1x1 skip when
    channels change. Only the embedding and the skip have biases.
    """

    def __init__(self, channels: int, out_channels: int, emb_channels: int, *, dropout: PositionalDropout) -> None:
        super().__init__()
        expanded = 4 * channels
        self.expand = nn.Sequential(GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, expanded, 1, bias=False))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, expanded))
        self.depthwise = nn.Sequential(
            GroupNorm32(expanded),
            nn.SiLU(),
            nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False),
            GroupNorm32(expanded),
            nn.SiLU(),
            SqueezeExcitation(expanded, channels // 4),
        )
        self.dropout = dropout
        self.project = zero_init(nn.Conv2d(expanded, out_channels, 1, bias=False))
        self.skip_connection = nn.Identity() if out_channels == channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor, dropout_key: Tensor | None) -> Tensor:
        h = self.depthwise(self.expand(x) + self.emb_layers(emb)[:, :, None, None])
        return self.skip_connection(x) + self.project(self.dropout(h, dropout_key))  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, residual, zero-initialised output."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_init(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        flat = x.reshape(n, c, h * w)
        # Heads are split before q, k and v: the channel order of the public checkpoints.
        qkv = self.qkv(self.norm(flat)).reshape(n, self.heads, 3 * c // self.heads, h * w)
        q, k, v = (part.transpose(2, 3) for part in qkv.chunk(3, dim=2))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, c, h * w)
        return (flat + self.proj_out(attended)).reshape(n, c, h, w)  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """Halve the size with a stride-2 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Double the size by nearest neighbours, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))  # type: ignore[no-any-return]


class Stage(nn.Sequential):
    """Layers in sequence; residual blocks among them also get the embedding and the dropout key."""

    def forward(self, x: Tensor, emb: Tensor, dropout_key: Tensor | None) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb, dropout_key) if isinstance(layer, ResBlock | MBConvBlock) else layer(x)
        return x
