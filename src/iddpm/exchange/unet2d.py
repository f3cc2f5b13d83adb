"""diffusers' UNet2DModel: its config.json and weight names, and what of our networks it can be.

Its conventions that ours meet: [cos, sin] timestep embedding with frequencies 10000^(-i/half), group norms with
epsilon 1e-5, stride-2 convolutions padded on all sides, attention in the middle, labels added to the embedding.
It keeps q, k and v apart; ours lie in one matrix whose rows are split into heads before q, k and v.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from iddpm.data.sources import Card
from iddpm.errors import UserError
from iddpm.exchange.fit import empty_weights, misfit, shapes
from iddpm.exchange.flags import image_card
from iddpm.params import Architecture, Block, Conditioning, Diffusion, Network
from iddpm.training.checkpoint import Weights

GROUPS = 32
REQUIRED: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "act_fn": "silu",
    "norm_num_groups": GROUPS,
    "norm_eps": 1e-5,
    "add_attention": True,
    "class_embed_type": None,
}
"""Settings with one value that our networks have, which is also UNet2DModel's default."""

OPTIONAL: dict[str, Any] = {
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "dropout": 0.0,
    "num_class_embeds": None,
    "time_embedding_dim": None,
}
"""Settings we read, with UNet2DModel's defaults."""

DOWN = {False: "DownBlock2D", True: "AttnDownBlock2D"}
UP = {False: "UpBlock2D", True: "AttnUpBlock2D"}
MODULES = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
PARTS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "norm": "group_norm",
    "qkv": "to_{}",
    "proj_out": "to_out.0",
    "op": "conv",
    "conv": "conv",
}
"""Ours -> theirs, within a block."""


def config_from_architecture(architecture: Architecture, card: Card) -> dict[str, Any]:
    """config.json of the same network. UserError gives every reason why there is none."""
    if reasons := list(_inexpressible(architecture, card)):
        raise UserError(f"UNet2DModel cannot be this network: {'; '.join(reasons)}")
    network = architecture.network
    attends = [size in network.attention_sizes for size in _sizes(architecture, card)]
    widths = [network.width * multiplier for multiplier in network.channel_mult]
    return {"_class_name": "UNet2DModel"} | REQUIRED | {
        "sample_size": architecture.size or card.size,
        "in_channels": card.channels,
        "out_channels": card.channels * (2 if architecture.diffusion.variance.learned else 1),
        "block_out_channels": widths,
        "layers_per_block": network.blocks,
        "down_block_types": [DOWN[attending] for attending in attends],
        "up_block_types": [UP[attending] for attending in reversed(attends)],
        # null: one head as wide as its level
        "attention_head_dim": None if network.heads == 1 else widths[-1] // network.heads,
        "attn_norm_num_groups": GROUPS,
        "resnet_time_scale_shift": "scale_shift" if network.scale_shift else "default",
        "dropout": network.dropout,
        "num_class_embeds": card.classes if network.conditioning is Conditioning.CLASS else None,
        "time_embedding_dim": None,
    }  # fmt: skip


def architecture_from_config(config: dict[str, Any], diffusion: Diffusion) -> tuple[Architecture, Card]:
    """The network of a config.json, with a process, and the card of its images. UserError says what ours cannot be."""
    setting = REQUIRED | OPTIONAL | config
    try:
        if reasons := list(_foreign(setting, diffusion)):
            raise UserError(f"networks of this project cannot be this UNet2DModel: {'; '.join(reasons)}")
        widths, size, classes = setting["block_out_channels"], setting["sample_size"], setting["num_class_embeds"]
        attends = [kind == DOWN[True] for kind in setting["down_block_types"]]
        network = Network(
            width=widths[0],
            channel_mult=tuple(width // widths[0] for width in widths),
            blocks=setting["layers_per_block"],
            attention_sizes=tuple(size >> level for level, attending in enumerate(attends) if attending),
            heads=int(_heads(setting).pop()),
            scale_shift=setting["resnet_time_scale_shift"] == "scale_shift",
            dropout=setting["dropout"],
            conditioning=Conditioning.CLASS if classes else Conditioning.NONE,
        )
    except KeyError as error:
        raise UserError(f"{error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"a setting has the wrong type ({' '.join(str(error).split())})") from None
    return Architecture(network=network, diffusion=diffusion), image_card(setting["in_channels"], size, classes or 0)


def to_unet2d(weights: Weights, architecture: Architecture, card: Card) -> Weights:
    """Our weights under its names; qkv in three parts, attention's projections as matrices."""
    blocks, heads = _block_names(architecture, card), architecture.network.heads
    converted: Weights = {}
    for name, tensor in weights.items():
        theirs = _their_name(name, blocks)
        if "to_" in theirs:
            tensor = tensor.squeeze(2) if tensor.ndim == 3 else tensor
        if "to_{}" in theirs:
            for letter, part in zip("qkv", _split_qkv(tensor, heads), strict=True):
                converted[theirs.format(letter)] = part
        else:
            converted[theirs] = tensor
    return converted


def from_unet2d(stored: Weights, architecture: Architecture, card: Card) -> Weights:
    """Its weights under our names, float32. UserError names the first ones that do not fit."""
    blocks, heads = _block_names(architecture, card), architecture.network.heads
    ours = empty_weights(architecture, card)
    if difference := misfit(shapes(stored), shapes(to_unet2d(ours, architecture, card))):
        raise UserError(f"not the weights of its config.json: {difference}")
    converted: Weights = {}
    for name, empty in ours.items():
        theirs = _their_name(name, blocks)
        if "to_{}" in theirs:
            tensor = _join_qkv([stored[theirs.format(letter)] for letter in "qkv"], heads)
        else:
            tensor = stored[theirs]
        converted[name] = tensor.float().reshape(empty.shape)
    return converted


def _sizes(architecture: Architecture, card: Card) -> list[int]:
    size = architecture.size or card.size
    return [size >> level for level in range(len(architecture.network.channel_mult))]


def _split_qkv(tensor: Tensor, heads: int) -> Iterator[Tensor]:
    """[3C, ...] ordered (head, q/k/v, channel) -> q, k, v [C, ...] ordered (head, channel)."""
    parts = tensor.reshape(heads, 3, -1, *tensor.shape[1:])
    for number in range(3):
        yield parts[:, number].reshape(-1, *tensor.shape[1:])


def _join_qkv(parts: list[Tensor], heads: int) -> Tensor:
    by_head = [part.reshape(heads, -1, *part.shape[1:]) for part in parts]
    return torch.stack(by_head, dim=1).reshape(-1, *parts[0].shape[1:])


def _block_names(architecture: Architecture, card: Card) -> dict[str, str]:
    """Our blocks' names -> theirs, such as input_blocks.1.0 -> down_blocks.0.resnets.0."""
    network, sizes = architecture.network, _sizes(architecture, card)
    names = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    names["middle_block.1"] = "mid_block.attentions.0"
    index = 0
    for level in range(len(sizes)):
        for block in range(network.blocks):
            index += 1
            names[f"input_blocks.{index}.0"] = f"down_blocks.{level}.resnets.{block}"
            names[f"input_blocks.{index}.1"] = f"down_blocks.{level}.attentions.{block}"
        index += 1
        names[f"input_blocks.{index}.0"] = f"down_blocks.{level}.downsamplers.0"
    for level, size in enumerate(reversed(sizes)):
        first, last = level * (network.blocks + 1), level * (network.blocks + 1) + network.blocks
        for block in range(network.blocks + 1):
            names[f"output_blocks.{first + block}.0"] = f"up_blocks.{level}.resnets.{block}"
            names[f"output_blocks.{first + block}.1"] = f"up_blocks.{level}.attentions.{block}"
        attends = size in network.attention_sizes
        names[f"output_blocks.{last}.{2 if attends else 1}"] = f"up_blocks.{level}.upsamplers.0"
    return names


def _their_name(name: str, blocks: dict[str, str]) -> str:
    module, _, parameter = name.rpartition(".")
    if module in MODULES:
        return f"{MODULES[module]}.{parameter}"
    words = module.split(".")
    length = 2 if words[0] == "middle_block" else 3
    return f"{blocks['.'.join(words[:length])]}.{PARTS['.'.join(words[length:])]}.{parameter}"


def _inexpressible(architecture: Architecture, card: Card) -> Iterator[str]:
    network = architecture.network
    if architecture.upsampling is not None:
        yield "it has no low-resolution input"
    if network.block is not Block.STANDARD:
        yield f"it has no {network.block} blocks"
    if network.channel_mult[0] != 1:
        yield f"its first convolution is as wide as the first level, channel_mult begins with {network.channel_mult[0]}"
    if network.width % GROUPS:
        yield f"its norms have one number of groups, ours {GROUPS} only where width ({network.width}) divides by it"
    attending = {
        network.width * multiplier
        for size, multiplier in zip(_sizes(architecture, card), network.channel_mult, strict=True)
        if size in network.attention_sizes
    } | {network.width * network.channel_mult[-1]}
    if network.heads > 1 and len(attending) > 1:
        levels = " and ".join(map(str, sorted(attending)))
        yield f"it fixes the width of a head, not their number: {network.heads} heads at both {levels} channels"


def _foreign(setting: dict[str, Any], diffusion: Diffusion) -> Iterator[str]:
    """What our networks cannot be of these settings."""
    for name, value in REQUIRED.items():
        if setting[name] != value:
            yield f"{name} is {setting[name]!r}, ours {value!r}"
    if setting["_class_name"] != "UNet2DModel":
        yield f"_class_name is {setting['_class_name']!r}, not 'UNet2DModel'"
    if setting["resnet_time_scale_shift"] not in ("default", "scale_shift"):
        yield f"resnet_time_scale_shift is {setting['resnet_time_scale_shift']!r}"
    elif setting["attn_norm_num_groups"] not in (
        GROUPS,
        None if setting["resnet_time_scale_shift"] == "default" else 0,
    ):
        yield f"attn_norm_num_groups is {setting['attn_norm_num_groups']}: the middle attention of ours has {GROUPS}"
    if not isinstance(setting["sample_size"], int):
        yield f"sample_size is {setting['sample_size']!r}, not one number of pixels"
    widths = setting["block_out_channels"]
    if any(width % GROUPS or width % widths[0] for width in widths):
        yield f"block_out_channels is {widths}: ours are multiples of the first, and that of {GROUPS}"
    if setting["time_embedding_dim"] not in (None, 4 * widths[0]):
        yield f"time_embedding_dim is {setting['time_embedding_dim']}, ours 4 x {widths[0]}"
    down, up = setting["down_block_types"], setting["up_block_types"]
    attends = [kind == DOWN[True] for kind in down]
    if list(down) != [DOWN[at] for at in attends] or list(up) != [UP[at] for at in reversed(attends)]:
        yield f"down_block_types {down} and up_block_types {up}: ours attend at the same levels, going down and up"
    heads = _heads(setting)
    if len(heads) > 1 or not heads.pop().is_integer():
        yield f"attention_head_dim is {setting['attention_head_dim']}: ours have one number of heads at all levels"
    ratio = 2 if diffusion.variance.learned else 1
    if setting["out_channels"] != ratio * setting["in_channels"]:
        yield (
            f"out_channels is {setting['out_channels']} for {setting['in_channels']} in_channels, which contradicts "
            f"--learn_sigma {diffusion.variance.learned}"
        )


def _heads(setting: dict[str, Any]) -> set[float]:
    """The numbers of heads of the attending levels and the middle; not whole where a width does not divide."""
    widths, kinds = setting["block_out_channels"], setting["down_block_types"]
    attending = [width for width, kind in zip(widths, kinds, strict=True) if kind == DOWN[True]] + [widths[-1]]
    return {width / (setting["attention_head_dim"] or width) for width in attending}
