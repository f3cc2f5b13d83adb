"""Parameters to the digit and multiply-adds to one per cent, as published."""

from typing import Any

import pytest
import torch
from torch import nn

from iddpm.nets import Discriminator, Generator, SuperResolutionUNet, UNet, count_blocks

COLOUR = {"in_channels": 3, "out_channels": 6, "heads": 4}
IMAGENET_64 = COLOUR | {"image_size": 64, "channel_mult": (1, 2, 3, 4), "blocks": 3, "attention_sizes": (16, 8)}
CIFAR = COLOUR | {"image_size": 32, "channel_mult": (1, 2, 2, 2), "blocks": 3, "attention_sizes": (16, 8)}
SIZE_256 = COLOUR | {"image_size": 256, "channel_mult": (1, 1, 2, 2, 4, 4), "blocks": 2}
LSUN = SIZE_256 | {"attention_sizes": (16,), "heads": 1, "scale_shift": False}
UPSAMPLER = SIZE_256 | {"in_channels": 6, "attention_sizes": (16, 8)}
COURSEWORK = {
    "image_size": 32, "in_channels": 3, "out_channels": 3, "attention_sizes": (16,), "heads": 1, "scale_shift": False,
}  # fmt: skip
DEEP, SHALLOW = COURSEWORK | {"channel_mult": (1, 2, 2, 2)}, COURSEWORK | {"channel_mult": (1, 2, 2)}


def count(network: type[nn.Module], settings: dict[str, Any]) -> tuple[int, float]:
    """Trainable parameters and G multiply-adds, without allocating the network."""
    with torch.device("meta"):
        built = network(**settings)
    blocks = count_blocks(built, settings["image_size"], 3)
    assert sum(block.parameters for block in blocks) == sum(parameter.numel() for parameter in built.parameters())
    return sum(block.parameters for block in blocks), sum(block.multiply_adds for block in blocks) / 1e9


@pytest.mark.parametrize(
    ("network", "settings", "parameters", "multiply_adds"),
    [
        (UNet, IMAGENET_64 | {"width": 64}, 30_303_494, 10.04),
        (UNet, IMAGENET_64 | {"width": 96}, 68_126_598, 22.43),
        (UNet, IMAGENET_64 | {"width": 128}, 121_063_942, 39.74),
        (UNet, IMAGENET_64 | {"width": 192}, 272_281_350, 89.09),
        (UNet, IMAGENET_64 | {"width": 128, "classes": 1000}, 121_575_942, 39.74),
        (UNet, IMAGENET_64 | {"width": 192, "classes": 1000}, 273_049_350, 89.09),
        (UNet, CIFAR | {"width": 128}, 52_546_438, 8.39),
        (UNet, LSUN | {"width": 128}, 113_676_678, None),
        (SuperResolutionUNet, UPSAMPLER | {"width": 192, "classes": 1000}, 279_792_390, 560),
    ],
)
def test_networks_of_the_paper(
    network: type[nn.Module], settings: dict[str, Any], parameters: int, multiply_adds: float | None
) -> None:
    counted_parameters, counted_multiply_adds = count(network, settings)
    assert counted_parameters == parameters
    if multiply_adds is not None:
        assert counted_multiply_adds == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "all_numbers", "trainable", "multiply_adds"),
    [
        (DEEP | {"width": 128, "blocks": 2}, 35_874_307, 35_746_307, 6.22),
        (DEEP | {"width": 128, "blocks": 1}, 24_403_587, 24_275_587, 4.20),
        (SHALLOW | {"width": 128, "blocks": 2}, 25_966_595, 25_838_595, 6.17),
        (SHALLOW | {"width": 128, "blocks": 1}, 17_842_563, 17_714_563, 4.20),
        (DEEP | {"width": 64, "blocks": 2, "block": "mbconv"}, 12_065_859, 12_001_859, 1.39),
        (DEEP | {"width": 96, "blocks": 2, "block": "mbconv"}, 26_927_715, 26_831_715, 3.04),
    ],
    ids=["Default", "DeepRes1", "ShallowRes2", "ShallowRes1", "MBConv64", "MBConv96"],
)
def test_networks_of_the_coursework(
    settings: dict[str, Any], all_numbers: int, trainable: int, multiply_adds: float
) -> None:
    counted_parameters, counted_multiply_adds = count(UNet, settings)
    assert counted_parameters == trainable
    assert counted_parameters + 1000 * settings["width"] == all_numbers  # with the table of T = 1000 sinusoids
    assert counted_multiply_adds == pytest.approx(multiply_adds, rel=0.01)


def test_sngan() -> None:
    with torch.device("meta"):
        networks = Generator(32, 3), Discriminator(32, 3)
    counts = [count_blocks(network, 32, 3) for network in networks]
    assert [sum(block.parameters for block in blocks) for blocks in counts] == [4_276_739, 1_053_824]
    linear, first = counts[0][:2]
    assert linear.multiply_adds == 128 * 4 * 4 * 256  # z to the bottom of the generator
    assert first.multiply_adds == 64 * 256 * 256 * (9 + 9 + 1)  # at 8x8: two 3x3 convolutions and the 1x1 shortcut


def test_blocks_by_hand() -> None:
    """Attention, a depthwise convolution and a label embedding, each counted from its definition."""
    settings: dict[str, Any] = {
        "image_size": 8, "in_channels": 1, "out_channels": 1, "width": 16, "channel_mult": (1,), "blocks": 1,
        "attention_sizes": (8,), "heads": 2, "scale_shift": False, "classes": 5, "block": "mbconv",
    }  # fmt: skip
    blocks = {block.name: block for block in count_blocks(UNet(**settings), 8, 1)}
    names = ["time_embed", "label_emb", "input_blocks.0", "input_blocks.1", "middle_block", "output_blocks.0"]
    assert list(blocks) == [*names, "output_blocks.1", "out"]
    assert (blocks["label_emb"].parameters, blocks["label_emb"].multiply_adds) == (5 * 64, 0)
    assert blocks["time_embed"].multiply_adds == 16 * 64 + 64 * 64
    pixels, c, expanded = 64, 16, 64
    mbconv = pixels * (c * expanded + 9 * expanded + expanded * c) + 64 * expanded + 2 * expanded * (c // 4)
    attention = pixels * (3 * c * c + c * c) + 2 * pixels * pixels * c  # projections, then q k and the weights' v
    assert blocks["input_blocks.1"].multiply_adds == mbconv + attention
    assert blocks["middle_block"].multiply_adds == 2 * mbconv + attention
    assert blocks["input_blocks.1"].output_shape == (16, 8, 8)
    with torch.device("meta"):
        assert count_blocks(UNet(**settings), 8, 1) == list(blocks.values())
