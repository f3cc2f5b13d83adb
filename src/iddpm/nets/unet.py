"""The paper's U-Net (Nichol & Dhariwal 2021, appendix A), and its super-resolution variant."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iddpm.nets.layers import (
    AttentionBlock,
    Downsample,
    GroupNorm32,
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
    The parameters carry the names of the public improved-diffusion checkpoints.
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
        scale_shift: bool = True,
        dropout: float = 0.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.width, self.classes = width, classes
        self._dropout, self._dropout_layers = dropout, 0
        self._scale_shift, self._emb_channels = scale_shift, 4 * width
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
            for block in range(blocks + 1):
                layers: list[nn.Module] = [self._res_block(channels + skip_channels.pop(), width * multiplier)]
                channels = width * multiplier
                if size in attention_sizes:
                    layers.append(AttentionBlock(channels, heads))
                if level and block == blocks:
                    layers.append(Upsample(channels))
                    size *= 2
                self.output_blocks.append(Stage(*layers))
        self.out = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), zero_init(nn.Conv2d(channels, out_channels, 3, padding=1))
        )

    def _res_block(self, channels: int, out_channels: int) -> ResBlock:
        self._dropout_layers += 1
        return ResBlock(
            channels,
            out_channels,
            self._emb_channels,
            scale_shift=self._scale_shift,
            dropout=PositionalDropout(self._dropout, self._dropout_layers),
        )

    def forward(
        self, x: Tensor, timesteps: Tensor, labels: Tensor | None = None, dropout_key: Tensor | None = None
    ) -> Tensor:
        if (labels is not None) != bool(self.classes):
            raise ValueError(
                "a class-conditional network needs labels"
                if self.classes
                else "an unconditional network takes no labels"
            )
        emb = self.time_embed(timestep_embedding(timesteps, self.width))
        if labels is not None:
            emb = emb + self.label_emb(labels)
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb, dropout_key)
            skips.append(x)
        x = self.middle_block(x, emb, dropout_key)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb, dropout_key)
        return self.out(x)  # type: ignore[no-any-return]


class SuperResolutionUNet(UNet):
    """A U-Net that also sees `low_res` [N, C, h, w], upsampled bilinearly and concatenated to x_t (C each)."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        labels: Tensor | None = None,
        dropout_key: Tensor | None = None,
        *,
        low_res: Tensor,
    ) -> Tensor:
        upsampled = F.interpolate(low_res, x.shape[-2:], mode="bilinear", align_corners=False)
        return super().forward(torch.cat([x, upsampled], dim=1), timesteps, labels, dropout_key)
