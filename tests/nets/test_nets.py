"""Exact sizes of the published networks, and behaviour no golden vector shows."""

import pytest
import torch
from torch import nn

from iddpm.nets import Discriminator, Generator, SuperResolutionUNet, UNet
from iddpm.nets.layers import PositionalDropout
from iddpm.nets.sngan import bottom_size

IMAGENET_64 = {"image_size": 64, "channel_mult": (1, 2, 3, 4), "blocks": 3, "attention_sizes": (16, 8), "heads": 4}
LSUN_256 = {"image_size": 256, "channel_mult": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention_sizes": (16,), "heads": 1}


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("width", "classes", "expected"),
    [
        (64, 0, 30_303_494),
        (96, 0, 68_126_598),
        (128, 0, 121_063_942),
        (192, 0, 272_281_350),
        (128, 1000, 121_575_942),
        (192, 1000, 273_049_350),
    ],
)
def test_imagenet_64_sizes(width: int, classes: int, expected: int) -> None:
    with torch.device("meta"):
        assert size(UNet(in_channels=3, out_channels=6, width=width, classes=classes, **IMAGENET_64)) == expected


def test_other_published_sizes() -> None:
    with torch.device("meta"):
        cifar = UNet(
            image_size=32, in_channels=3, out_channels=6, width=128, channel_mult=(1, 2, 2, 2), blocks=3,
            attention_sizes=(16, 8), heads=4,
        )  # fmt: skip
        lsun = UNet(in_channels=3, out_channels=6, width=128, scale_shift=False, **LSUN_256)
        upsampler = SuperResolutionUNet(
            in_channels=6, out_channels=6, width=192, classes=1000,
            **(LSUN_256 | {"attention_sizes": (16, 8), "heads": 4}),
        )  # fmt: skip
    assert (size(cifar), size(lsun), size(upsampler)) == (52_546_438, 113_676_678, 279_792_390)
    assert (size(Generator(32, 3)), size(Discriminator(32, 3))) == (4_276_739, 1_053_824)


@pytest.mark.parametrize(("image_size", "channels", "mult"), [(8, 1, (1, 2)), (28, 1, (1, 2, 2)), (16, 3, (1,))])
def test_any_size_and_channels(image_size: int, channels: int, mult: tuple[int, ...]) -> None:
    network = UNet(
        image_size=image_size, in_channels=channels, out_channels=2 * channels, width=8, channel_mult=mult, blocks=1,
        attention_sizes=(), heads=2,
    )  # fmt: skip
    x = torch.zeros(2, channels, image_size, image_size)
    assert network(x, torch.tensor([0.0, 3.5])).shape == (2, 2 * channels, image_size, image_size)


def test_labels_are_asked_for_and_refused() -> None:
    def make(classes: int) -> UNet:
        return UNet(
            image_size=8, in_channels=1, out_channels=1, width=8, channel_mult=(1,), blocks=1, attention_sizes=(),
            heads=2, classes=classes,
        )  # fmt: skip

    x, t = torch.zeros(1, 1, 8, 8), torch.zeros(1)
    with pytest.raises(ValueError, match="needs labels"):
        make(3)(x, t)
    with pytest.raises(ValueError, match="takes no labels"):
        make(0)(x, t, torch.tensor([0]))


def test_dropout_mask_belongs_to_the_sample() -> None:
    dropout, other_layer = PositionalDropout(0.3, layer=1).train(), PositionalDropout(0.3, layer=2).train()
    keys, x = torch.tensor([11, 12, 2**31 + 5]), torch.ones(3, 16, 32, 32)
    together = dropout(x, keys)
    assert torch.equal(together[1:], dropout(x[1:], keys[1:]))
    assert abs(float((together == 0).double().mean()) - 0.3) < 0.01
    assert abs(float(together.mean()) - 1) < 0.02
    assert float(((together == 0) == (other_layer(x, keys) == 0)).double().mean()) < 0.62
    assert float(((together[0] == 0) == (together[1] == 0)).double().mean()) < 0.62
    assert torch.equal(dropout.eval()(x, None), x)


@pytest.mark.parametrize(("pixels", "expected"), [(8, (4, 1)), (28, (7, 2)), (32, (4, 3)), (64, (4, 4)), (256, (4, 6))])
def test_sngan_scales(pixels: int, expected: tuple[int, int]) -> None:
    assert bottom_size(pixels) == expected
    if pixels <= 32:
        images = Generator(pixels, 3, width=8, z_dim=4, classes=5)(torch.zeros(2, 4), torch.tensor([0, 4]))
        assert images.shape == (2, 3, pixels, pixels)
        assert Discriminator(pixels, 3, width=8, classes=5)(images, torch.tensor([0, 4])).shape == (2,)


def test_sngan_refuses_odd_sizes() -> None:
    with pytest.raises(ValueError, match="17 pixels"):
        bottom_size(17)


def test_spectral_norm_bounds_every_layer() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(8, 1, width=16, classes=3).train()
    for _ in range(60):
        discriminator(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
    for module in discriminator.modules():
        if hasattr(module, "parametrizations"):
            assert float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)) == pytest.approx(1.0, abs=0.05)
