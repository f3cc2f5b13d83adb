"""Whether stored weights are those of a network, and if not, which flag is probably wrong."""

from collections.abc import Iterator
from typing import Any

import torch

from iddpm.data.sources import Card
from iddpm.exchange.flags import CHANNEL_MULT, CHANNELS
from iddpm.params import Architecture
from iddpm.training.build import build_network
from iddpm.training.checkpoint import Weights

Shapes = dict[str, tuple[int, ...]]
NAMED = 2


def empty_weights(architecture: Architecture, card: Card) -> Weights:
    """The network's weights without values (on torch's meta device): names and shapes at no cost."""
    with torch.device("meta"):
        return build_network(architecture, card).state_dict()


def shapes(weights: Weights) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def misfit(found: Shapes, expected: Shapes) -> str:
    """What differs, the first few names of each kind; "" when nothing does."""
    reshaped = [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "other shapes": reshaped,
    }
    return "; ".join(f"{kind}: {_first_few(names)}" for kind, names in kinds.items() if names)


def _first_few(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def probable_flags(found: Shapes, expected: Shapes, size: int) -> str:
    """The flags of improved-diffusion that the weights contradict, with the value they speak for; "" for none.

    `size` is the image size in pixels that the flags say. --num_heads and the process leave no trace in weights.
    """
    try:
        theirs, ours = _traits(found), _traits(expected)
    except (KeyError, IndexError, ZeroDivisionError):
        return ""
    differing = {name: value for name, value in theirs.items() if value != ours[name]}
    return ", ".join(_as_flags(differing, size))


def _traits(found: Shapes) -> dict[str, Any]:
    """What a flag decides, read off the weights: each trait under its flag's name."""
    width, channels = found["input_blocks.0.0.weight"][:2]
    levels: list[list[int]] = [[]]
    attending = set()
    for index in range(1, 1 + max(int(name.split(".")[1]) for name in found if name.startswith("input_blocks."))):
        if f"input_blocks.{index}.0.op.weight" in found:
            levels.append([])
            continue
        levels[-1].append(found[f"input_blocks.{index}.0.in_layers.2.weight"][0])
        if f"input_blocks.{index}.1.qkv.weight" in found:
            attending.add(len(levels) - 1)
    return {
        "image_size": tuple(level[0] / width for level in levels),
        "large_size": channels == 2 * CHANNELS,
        "num_channels": width,
        "num_res_blocks": len(levels[0]),
        "attention_resolutions": attending,
        "use_scale_shift_norm": found["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * levels[0][0],
        "class_cond": "label_emb.weight" in found,
        "learn_sigma": found["out.2.weight"][0] == 2 * CHANNELS,
    }


def _as_flags(traits: dict[str, Any], size: int) -> Iterator[str]:
    if "image_size" in traits:  # the levels' sizes are unknown then, and with them where it attends
        traits.pop("attention_resolutions", None)
    if "large_size" in traits:
        traits.pop("image_size", None)
    for name, value in traits.items():
        if name == "image_size":
            known = [str(pixels) for pixels, multipliers in CHANNEL_MULT.items() if multipliers == value]
            yield f"--{name} {known[0] if known else '(no size has its channel multipliers)'}"
        elif name == "large_size":
            yield "--large_size and --small_size" if value else "--image_size in place of --large_size"
        elif name == "attention_resolutions":
            yield f"--{name} {','.join(str(size >> level) for level in sorted(value)) or '1'}"
        else:
            yield f"--{name} {value}"
