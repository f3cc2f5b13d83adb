"""From parameters and a dataset card to a network and a process."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from iddpm.data.sources import Card
from iddpm.diffusion import GaussianDiffusion, cosine_betas, linear_betas
from iddpm.nets import BlockCount, Discriminator, Generator, SuperResolutionUNet, UNet, count_blocks
from iddpm.params import Architecture, Conditioning, Diffusion, Schedule, SnganSurrogate


def build_process(diffusion: Diffusion) -> GaussianDiffusion:
    """The full, unrespaced process. ValueError when its betas leave (0, 1)."""
    if diffusion.schedule is Schedule.COSINE:
        betas = cosine_betas(diffusion.timesteps)
    else:
        betas = linear_betas(diffusion.timesteps, diffusion.beta_start, diffusion.beta_end)
    return GaussianDiffusion(
        betas, mean=diffusion.mean, variance=diffusion.variance, rescale_timesteps=diffusion.rescale_timesteps
    )


def build_network(architecture: Architecture, card: Card, seed: int = 0) -> UNet:
    """The U-Net for a dataset, its initial weights a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(_settings(architecture, card))


def count_network(architecture: Architecture, card: Card) -> list[BlockCount]:
    """What that U-Net costs, block by block; equal ones are counted once."""
    return list(_count(tuple(_settings(architecture, card).items()), card.channels))


def _settings(architecture: Architecture, card: Card) -> dict[str, Any]:
    network, upsampling = architecture.network, architecture.upsampling
    settings: dict[str, Any] = {
        "image_size": architecture.size or card.size,
        "in_channels": card.channels,
        "out_channels": card.channels * (2 if architecture.diffusion.variance.learned else 1),
        "width": network.width,
        "channel_mult": network.channel_mult,
        "blocks": network.blocks,
        "block": network.block.value,
        "attention_sizes": network.attention_sizes,
        "heads": network.heads,
        "scale_shift": network.scale_shift,
        "dropout": network.dropout,
        "classes": card.classes if network.conditioning is Conditioning.CLASS else 0,
    }
    if upsampling is None:
        return settings
    return settings | {"in_channels": 2 * card.channels, "noise_conditioning": upsampling.noise_augmentation > 0}


def _build(settings: Mapping[str, Any]) -> UNet:
    return (SuperResolutionUNet if "noise_conditioning" in settings else UNet)(**settings)


@cache
def _count(settings: tuple[tuple[str, Any], ...], channels: int) -> tuple[BlockCount, ...]:
    of = dict(settings)
    with torch.device("meta"):  # shapes without memory or arithmetic
        return tuple(count_blocks(_build(of), of["image_size"], channels))


def build_gan(surrogate: SnganSurrogate, card: Card) -> tuple[Generator, Discriminator]:
    """Generator and discriminator, their initial weights a function of the seed alone."""
    classes = card.classes if surrogate.conditioning is Conditioning.CLASS else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(surrogate.seed)
        generator = Generator(card.size, card.channels, surrogate.generator_width, surrogate.z_dim, classes)
        return generator, Discriminator(card.size, card.channels, surrogate.discriminator_width, classes)
