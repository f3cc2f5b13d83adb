"""The paper's U-Net (Nichol & Dhariwal 2021, appendix A), the coursework's, and the super-resolution variant."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iddpm.nets.layers import (
    AttentionBlock,
    Downsample,
    GroupNorm32,
    MBConvBlock,
    PositionalDropout,
    ResBlock,
    Stage,
    Upsample,
    timestep_embedding,
    zero_init,
)


class UNet(nn.Module):
    """x_t [N, in_channels, size, size], model timestep [N], labels [N] -> [N, out_channels, size, size].

    `channel_mult` has one entry per level, each level half the size of the one above; a level whose size is
    in `attention_sizes` (pixels) attends. `classes` = 0 is unconditional, else labels lie in [0, classes).
    `block` is "standard" or "mbconv", the coursework's, which adds the time embedding: ValueError with `scale_shift`.
    The parameters carry the names of the public improved-diffusion checkpoints (which have standard blocks).
    """

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int,
        out_channels: int,
        width: int,
        channel_mult: Sequence[int],
        blocks: int,
        attention_sizes: Sequence[int],
        heads: int,
        block: str = "standard",
        scale_shift: bool = True,
        dropout: float = 0.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        if block not in ("standard", "mbconv"):
            raise ValueError(f"block: {block!r} is neither standard nor mbconv")
        if block == "mbconv" and scale_shift:
            raise ValueError("scale_shift: an mbconv block adds the time embedding; set it to false")
        self.width, self.classes = width, classes
        self._dropout, self._dropout_layers = dropout, 0
        self._block, self._scale_shift, self._emb_channels = block, scale_shift, 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        if classes:
            self.label_emb = nn.Embedding(classes, 4 * width)
        channels, size = width, image_size
        skip_channels = [channels]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(in_channels, channels, 3, padding=1))])
        for level, multiplier in enumerate(channel_mult):
            for _ in range(blocks):
                attention = [AttentionBlock(width * multiplier, heads)] if size in attention_sizes else []
                self.input_blocks.append(Stage(self._res_block(channels, width * multiplier), *attention))
                channels = width * multiplier
                skip_channels.append(channels)
            if level < len(channel_mult) - 1:
                self.input_blocks.append(Stage(Downsample(channels)))
                skip_channels.append(channels)
                size //= 2
        self.middle_block = Stage(
            self._res_block(channels, channels), AttentionBlock(channels, heads), self._res_block(channels, channels)
        )
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(channel_mult))):
            for number in range(blocks + 1):
                layers: list[nn.Module] = [self._res_block(channels + skip_channels.pop(), width * multiplier)]
                channels = width * multiplier
                if size in attention_sizes:
                    layers.append(AttentionBlock(channels, heads))
                if level and number == blocks:
                    layers.append(Upsample(channels))
                    size *= 2
                self.output_blocks.append(Stage(*layers))
        self.out = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), zero_init(nn.Conv2d(channels, out_channels, 3, padding=1))
        )

    def _res_block(self, channels: int, out_channels: int) -> ResBlock | MBConvBlock:
        self._dropout_layers += 1
        dropout = PositionalDropout(self._dropout, self._dropout_layers)
        if self._block == "mbconv":
            return MBConvBlock(channels, out_channels, self._emb_channels, dropout=dropout)
        return ResBlock(channels, out_channels, self._emb_channels, scale_shift=self._scale_shift, dropout=dropout)

    def forward(
        self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None, dropout_key: Tensor | None = None
    ) -> Tensor:
        return self._denoise(x, self._embed(timesteps, labels), dropout_key)

    def _embed(self, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        if (labels is not None) != bool(self.classes):
            raise ValueError(
                "a class-conditional network needs labels"
                if self.classes
                else "an unconditional network takes no labels"
            )
        emb: Tensor = self.time_embed(timestep_embedding(timesteps, self.width))
        return emb if labels is None else emb + self.label_emb(labels)

    def _denoise(self, x: Tensor, emb: Tensor, dropout_key: Tensor | None) -> Tensor:
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb, dropout_key)
            skips.append(x)
        x = self.middle_block(x, emb, dropout_key)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb, dropout_key)
        return self.out(x)  # type: ignore[no-any-return]


class SuperResolutionUNet(UNet):
    """A U-Net that also sees `low_res` [N, C, h, w], upsampled bilinearly and concatenated to x_t (C each).

    With `noise_conditioning` it is also told `noise_level` [N] in [0, 1], the standard deviation of the noise that
    was added to `low_res` (none given: 0); at initialisation that changes nothing.
    """

    def __init__(self, *, noise_conditioning: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.noise_embed: nn.Sequential | None = None
        if noise_conditioning:
            width = self.width
            self.noise_embed = nn.Sequential(
                nn.Linear(width, 4 * width), nn.SiLU(), zero_init(nn.Linear(4 * width, 4 * width))
            )

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        labels: Tensor | None = None,
        dropout_key: Tensor | None = None,
        *,
        low_res: Tensor,
        noise_level: Tensor | None = None,
    ) -> Tensor:
        emb = self._embed(timesteps, labels)
        if self.noise_embed is not None:
            level = torch.zeros_like(timesteps) if noise_level is None else noise_level
            # scaled to the range of timesteps, which the embedding's frequencies are made for
            emb = emb + self.noise_embed(timestep_embedding(1000 * level, self.width))
        elif noise_level is not None:
            raise ValueError("a network without noise conditioning takes no noise_level")
        upsampled = F.interpolate(low_res, x.shape[-2:], mode="bilinear", align_corners=False)
        return self._denoise(torch.cat([x, upsampled], dim=1), emb, dropout_key)
