"""What the networks do that no golden vector shows."""

from typing import Any

import pytest
import torch
from torch import nn

from iddpm.nets import Discriminator, Generator, SuperResolutionUNet, UNet
from iddpm.nets.layers import MBConvBlock, PositionalDropout, SqueezeExcitation
from iddpm.nets.sngan import bottom_size

BLOCKS = ("standard", "mbconv")
TINY: dict[str, Any] = {
    "image_size": 8, "in_channels": 1, "out_channels": 1, "width": 16, "channel_mult": (1, 2), "blocks": 1,
    "attention_sizes": (4,), "heads": 2, "scale_shift": False,
}  # fmt: skip


def randomised(network: nn.Module) -> nn.Module:
    """Every parameter random: no branch is switched off by its zero initialisation."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("classes", [0, 2, 37])
@pytest.mark.parametrize(("image_size", "channels", "mult"), [(8, 1, (1, 2)), (28, 1, (1, 2, 2)), (28, 3, (1,))])
def test_any_size_channels_and_classes(
    image_size: int, channels: int, mult: tuple[int, ...], classes: int, block: str
) -> None:
    network = UNet(
        image_size=image_size, in_channels=channels, out_channels=2 * channels, width=8, channel_mult=mult, blocks=1,
        attention_sizes=(), heads=2, block=block, scale_shift=block == "standard", classes=classes,
    )  # fmt: skip
    x, labels = torch.zeros(2, channels, image_size, image_size), torch.tensor([0, classes - 1]) if classes else None
    assert network(x, torch.tensor([0.0, 3.5]), labels).shape == (2, 2 * channels, image_size, image_size)


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


@pytest.mark.parametrize("block", BLOCKS)
def test_dropout_of_a_network_belongs_to_the_sample(block: str) -> None:
    network = randomised(UNet(**TINY, dropout=0.3, block=block)).train()
    x, t, keys = torch.randn(3, 1, 8, 8), torch.tensor([1.0, 5.0, 9.0]), torch.tensor([7, 8, 9])
    together = network(x, t, None, keys)
    torch.testing.assert_close(together[1:], network(x[1:], t[1:], None, keys[1:]))
    assert (together - network(x, t, None, keys + 3)).abs().amax((1, 2, 3)).min() > 1e-3
    with pytest.raises(ValueError, match="dropout_key"):
        network(x, t)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_network_trains_in_every_parameter(block: str) -> None:
    torch.manual_seed(0)
    network = UNet(**TINY, classes=2, block=block).train()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    x, target, t, labels = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8), torch.arange(4.0), torch.tensor([0, 1] * 2)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (network(x, t, labels) - target).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert not [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]


@pytest.mark.parametrize("out_channels", [16, 32])
def test_mbconv_starts_as_its_shortcut(out_channels: int) -> None:
    block = MBConvBlock(16, out_channels, 8, dropout=PositionalDropout(0.0, 1))
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x, torch.randn(2, 8), None), block.skip_connection(x))
    assert isinstance(block.skip_connection, nn.Identity) == (out_channels == 16)


def test_mbconv_takes_the_embedding_by_addition_only() -> None:
    with pytest.raises(ValueError, match="scale_shift"):
        UNet(**(TINY | {"scale_shift": True}), block="mbconv")
    with pytest.raises(ValueError, match="'resnext' is neither"):
        UNet(**TINY, block="resnext")
    network, x = randomised(UNet(**TINY, block="mbconv")), torch.randn(1, 1, 8, 8)
    assert (network(x, torch.tensor([3.0])) - network(x, torch.tensor([700.0]))).abs().max() > 1e-3


def test_squeeze_excitation_gates_by_channel_means() -> None:
    layer, x = randomised(SqueezeExcitation(8, 2)), torch.randn(3, 8, 4, 4)
    gates = (layer(x) / x).detach()
    torch.testing.assert_close(gates, gates[:, :, :1, :1].expand_as(gates))
    assert gates.min() > 0 and gates.max() < 1 and gates[:, :, 0, 0].std(dim=1).min() > 1e-4
    mirrored = torch.flip(x, dims=(2, 3))
    torch.testing.assert_close(layer(mirrored), mirrored * gates)  # the same means, the same gates
    nn.init.zeros_(layer.excite.weight)
    torch.testing.assert_close(layer(x), x / 2)  # sigmoid(0)


def super_resolution(**settings: Any) -> SuperResolutionUNet:
    torch.manual_seed(0)
    return SuperResolutionUNet(**(TINY | {"in_channels": 2, "scale_shift": True}), **settings)


def test_noise_conditioning_starts_without_effect() -> None:
    plain, told = randomised(super_resolution()), super_resolution(noise_conditioning=True)
    assert set(plain.state_dict()) == set(UNet(**TINY).state_dict())
    missing = told.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("noise_embed.") for name in missing)
    x, t, low_res = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 4.0]), torch.randn(2, 1, 4, 4)
    assert torch.equal(told(x, t, low_res=low_res, noise_level=torch.tensor([0.1, 0.9])), plain(x, t, low_res=low_res))


def test_noise_level_is_each_sample_s_own() -> None:
    network = randomised(super_resolution(noise_conditioning=True))
    x, t, low_res = torch.randn(3, 1, 8, 8), torch.tensor([3, 4, 5]), torch.randn(3, 1, 4, 4)
    unsaid = network(x, t, low_res=low_res)
    assert torch.equal(unsaid, network(x, t, low_res=low_res, noise_level=torch.zeros(3)))
    change = (network(x, t, low_res=low_res, noise_level=torch.tensor([0.0, 0.1, 1.0])) - unsaid).abs().amax((1, 2, 3))
    assert change[0] < 1e-5 and change[1:].min() > 1e-3
    with pytest.raises(ValueError, match="takes no noise_level"):
        super_resolution()(x, t, low_res=low_res, noise_level=torch.zeros(3))


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (8, (4, 1)), (28, (7, 2)), (32, (4, 3)), (64, (4, 4)), (256, (4, 6)),
        (4, (2, 1)), (5, (3, 1)), (17, (5, 2)), (31, (8, 2)), (36, (5, 3)), (72, (5, 4)), (100, (7, 4)),
    ],
)  # fmt: skip
def test_sngan_scales(pixels: int, expected: tuple[int, int]) -> None:
    assert bottom_size(pixels) == expected
    if pixels <= 100:
        labels = torch.tensor([0, 4])
        images = Generator(pixels, 3, width=8, z_dim=4, classes=5)(torch.zeros(2, 4), labels)
        assert images.shape == (2, 3, pixels, pixels)
        assert Discriminator(pixels, 3, width=8, classes=5)(images, labels).shape == (2,)


def test_sngan_is_the_centre_of_the_next_size() -> None:
    torch.manual_seed(0)
    larger, smaller = Generator(20, 1, width=8, z_dim=4).eval(), Generator(17, 1, width=8, z_dim=4).eval()
    smaller.load_state_dict(larger.state_dict())
    z = torch.randn(2, 4)
    assert torch.equal(smaller(z), larger(z)[:, :, 1:18, 1:18])


@pytest.mark.parametrize("pixels", [4, 5, 17, 36])
def test_discriminator_sees_every_pixel_of_any_size(pixels: int) -> None:
    discriminator = randomised(Discriminator(pixels, 1, width=8)).eval()
    images = torch.randn(1, 1, pixels, pixels, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images)
    assert (gradient != 0).all()


def test_spectral_norm_bounds_every_layer() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(8, 1, width=16, classes=3).train()
    for _ in range(60):
        discriminator(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
    for module in discriminator.modules():
        if hasattr(module, "parametrizations"):
            assert float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)) == pytest.approx(1.0, abs=0.05)
