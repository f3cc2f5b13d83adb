"""improved-diffusion's command-line flags and this project's architectures, into each other.

Names, defaults and meanings are those of its script_util.py and scripts.
"""

import argparse
import math
import shlex
from collections.abc import Iterator
from typing import Any, NoReturn

from iddpm.data.sources import Card
from iddpm.diffusion import Mean, Variance
from iddpm.errors import UserError
from iddpm.params import Architecture, Block, Conditioning, Diffusion, Network, Schedule, Upsampling
from iddpm.training.build import build_process

CHANNEL_MULT = {256: (1, 1, 2, 2, 4, 4), 64: (1, 2, 3, 4), 32: (1, 2, 2, 2)}
"""Image size -> the channel multipliers that the public code gives it."""
UPSAMPLED_SIZES = (256, 64)
CLASSES = 1000
CHANNELS = 3
GROUPS = 32

DIFFUSION_DEFAULTS: dict[str, Any] = {
    "learn_sigma": False,
    "sigma_small": False,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "predict_xstart": False,
    "rescale_timesteps": True,
}
NETWORK_DEFAULTS: dict[str, Any] = {
    "image_size": 64,
    "large_size": 256,
    "small_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "attention_resolutions": "16,8",
    "use_scale_shift_norm": True,
    "dropout": 0.0,
    "class_cond": False,
}
DEFAULTS = NETWORK_DEFAULTS | DIFFUSION_DEFAULTS
IRRELEVANT = (
    "timestep_respacing", "use_kl", "rescale_learned_sigmas", "use_checkpoint",
    "data_dir", "schedule_sampler", "lr", "weight_decay", "lr_anneal_steps", "batch_size", "microbatch", "ema_rate",
    "log_interval", "save_interval", "resume_checkpoint", "use_fp16", "fp16_scale_growth",
    "clip_denoised", "num_samples", "use_ddim", "model_path", "base_samples",
)  # fmt: skip
"""Flags of training and sampling: no weight's shape or meaning depends on them."""


def architecture_from_flags(flags: str) -> tuple[Architecture, Card]:
    """The network and process of MODEL_FLAGS and DIFFUSION_FLAGS, with the card of the images they mean.

    The upsampler's flags must name --large_size or --small_size, which its scripts default to 256 and 64.
    UserError names the flag that is unknown, malformed, or beyond this project.
    """
    given = _parse(flags)
    value = DEFAULTS | given
    upsampler = "large_size" in given or "small_size" in given
    size_flag = "large_size" if upsampler else "image_size"
    _refuse_first(_problems(given, value, size_flag))
    size = value[size_flag]
    network = Network(
        width=value["num_channels"],
        channel_mult=CHANNEL_MULT[size],
        blocks=value["num_res_blocks"],
        attention_sizes=_attention_sizes(size, value["attention_resolutions"]),
        heads=value["num_heads"],
        scale_shift=value["use_scale_shift_norm"],
        dropout=value["dropout"],
        conditioning=Conditioning.CLASS if value["class_cond"] else Conditioning.NONE,
    )
    architecture = Architecture(
        network=network,
        diffusion=_diffusion(value),
        upsampling=Upsampling(low_size=value["small_size"]) if upsampler else None,
    )
    _refuse_first(_indivisible_heads(network, size))
    return architecture, image_card(CHANNELS, size, CLASSES if value["class_cond"] else 0)


def diffusion_from_flags(flags: str) -> Diffusion:
    """The process alone, for a network that something else describes. UserError also for a flag of the network."""
    given = _parse(flags)
    if name := next((name for name in given if name in NETWORK_DEFAULTS), None):
        raise UserError(f"--{name}: the folder's config.json describes the network; give the flags of the process only")
    value = DEFAULTS | given
    _refuse_first(_diffusion_problems(value))
    return _diffusion(value)


def image_card(channels: int, size: int, classes: int) -> Card:
    """The card of images known only through the weights that were trained on them."""
    return Card(
        source="imported weights",
        description="images this project has not seen: their model was trained elsewhere",
        channels=channels,
        size=size,
        classes=classes,
        counts={},
    )


def flags_from_architecture(architecture: Architecture, card: Card) -> str:
    """The flags with which the public code builds the same network and process. UserError says what it cannot."""
    if reasons := list(_inexpressible(architecture, card)):
        raise UserError(f"improved-diffusion cannot express this model: {'; '.join(reasons)}")
    network, diffusion, upsampling = architecture.network, architecture.diffusion, architecture.upsampling
    size = architecture.size or card.size
    sizes = {"image_size": size} if upsampling is None else {"large_size": size, "small_size": upsampling.low_size}
    value: dict[str, Any] = sizes | {
        "num_channels": network.width,
        "num_res_blocks": network.blocks,
        "diffusion_steps": diffusion.timesteps,
        "noise_schedule": diffusion.schedule.value,
    }
    attending = [level for level in network.attention_sizes if level in _level_sizes(size)]
    optional: dict[str, Any] = {
        "num_heads": network.heads,
        # "" is no list to its parser; a resolution of one pixel is below every level and attends nowhere
        "attention_resolutions": ",".join(map(str, attending)) or "1",
        "use_scale_shift_norm": network.scale_shift,
        "dropout": network.dropout,
        "class_cond": network.conditioning is Conditioning.CLASS,
        "learn_sigma": diffusion.variance is Variance.LEARNED_RANGE,
        "sigma_small": diffusion.variance is Variance.FIXED_SMALL,
        "predict_xstart": diffusion.mean is Mean.X_START,
        "rescale_timesteps": diffusion.rescale_timesteps,
    }
    value |= {name: setting for name, setting in optional.items() if setting != DEFAULTS[name]}
    return " ".join(f"--{name} {setting}" for name, setting in value.items())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def _parse(flags: str) -> dict[str, Any]:
    """The flags given that matter, typed."""
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=_boolean if isinstance(default, bool) else type(default))
    for name in IRRELEVANT:
        parser.add_argument(f"--{name}")
    try:
        words = shlex.split(flags)
    except ValueError as error:
        raise UserError(f"{flags!r}: {str(error).lower()}") from None
    given, unknown = parser.parse_known_args(words)
    if unknown:
        raise UserError(f"{unknown[0].partition('=')[0]}: not a flag of improved-diffusion")
    return {name: value for name, value in vars(given).items() if name in DEFAULTS}


def _boolean(text: str) -> bool:
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def _refuse_first(problems: Iterator[str]) -> None:
    if problem := next(problems, None):
        raise UserError(problem)


def _problems(given: dict[str, Any], value: dict[str, Any], size_flag: str) -> Iterator[str]:
    size, upsampler = value[size_flag], size_flag == "large_size"
    if upsampler:
        for name in ("image_size", "sigma_small"):
            if name in given:
                yield f"--{name}: the upsampler's scripts (--large_size, --small_size) have no such flag"
    sizes = UPSAMPLED_SIZES if upsampler else tuple(CHANNEL_MULT)
    if size not in sizes:
        yield f"--{size_flag} {size}: the public code builds {', '.join(map(str, sizes))}"
    if upsampler and not 1 <= value["small_size"] < size:
        yield f"--small_size {value['small_size']}: must lie between 1 and --large_size {size}"
    if value["num_channels"] < GROUPS or value["num_channels"] % GROUPS:
        yield f"--num_channels {value['num_channels']}: must be a multiple of {GROUPS}, the groups of its norms"
    for name in ("num_res_blocks", "num_heads"):
        if value[name] < 1:
            yield f"--{name} {value[name]}: must be at least 1"
    if value["num_heads_upsample"] not in (-1, value["num_heads"]):
        yield (
            f"--num_heads_upsample {value['num_heads_upsample']}: networks of this project have one number of heads, "
            f"--num_heads {value['num_heads']}"
        )
    text = value["attention_resolutions"]
    if not all(part.strip().isdecimal() and int(part) for part in text.split(",")):
        yield f"--attention_resolutions {text!r}: write sizes in pixels, such as 16,8"
    if not 0 <= value["dropout"] < 1:
        yield f"--dropout {value['dropout']}: must be at least 0 and below 1"
    yield from _diffusion_problems(value)


def _diffusion_problems(value: dict[str, Any]) -> Iterator[str]:
    if value["noise_schedule"] not in list(Schedule):
        yield f"--noise_schedule {value['noise_schedule']}: choose {' or '.join(Schedule)}"
    elif value["diffusion_steps"] < 2:
        yield f"--diffusion_steps {value['diffusion_steps']}: must be at least 2"
    else:
        try:
            build_process(_diffusion(value))
        except ValueError as error:
            yield f"--diffusion_steps {value['diffusion_steps']}: {error}"


def _diffusion(value: dict[str, Any]) -> Diffusion:
    fixed = Variance.FIXED_SMALL if value["sigma_small"] else Variance.FIXED_LARGE
    return Diffusion(
        timesteps=value["diffusion_steps"],
        schedule=Schedule(value["noise_schedule"]),
        mean=Mean.X_START if value["predict_xstart"] else Mean.EPS,
        variance=Variance.LEARNED_RANGE if value["learn_sigma"] else fixed,
        rescale_timesteps=value["rescale_timesteps"],
    )


def _level_sizes(size: int) -> list[int]:
    return [size >> level for level in range(len(CHANNEL_MULT[size]))]


def _attention_sizes(size: int, resolutions: str) -> tuple[int, ...]:
    """As the public code does: a resolution becomes the factor size // resolution, and a level of that factor attends.

    A factor that no level has attends nowhere.
    """
    factors = {size // int(resolution) for resolution in resolutions.split(",")}
    return tuple(pixels for pixels in _level_sizes(size) if size // pixels in factors)


def _indivisible_heads(network: Network, size: int) -> Iterator[str]:
    sizes = _level_sizes(size)
    for pixels, multiplier in zip(sizes, network.channel_mult, strict=True):
        channels = network.width * multiplier
        if (pixels in network.attention_sizes or pixels == sizes[-1]) and channels % network.heads:
            yield f"--num_heads {network.heads}: does not divide the {channels} channels at {pixels} pixels"


def _inexpressible(architecture: Architecture, card: Card) -> Iterator[str]:
    network, diffusion, upsampling = architecture.network, architecture.diffusion, architecture.upsampling
    size = architecture.size or card.size
    sizes = tuple(CHANNEL_MULT) if upsampling is None else UPSAMPLED_SIZES
    if card.channels != CHANNELS:
        yield f"its images have {CHANNELS} channels, not {card.channels}"
    if network.conditioning is Conditioning.CLASS and card.classes != CLASSES:
        yield f"its conditional networks have {CLASSES} classes, not {card.classes}"
    if network.block is not Block.STANDARD:
        yield f"it has no {network.block} blocks"
    if size not in sizes:
        yield f"it builds sizes {', '.join(map(str, sizes))}, not {size}"
    elif network.channel_mult != CHANNEL_MULT[size]:
        yield f"at size {size} its channel_mult is {list(CHANNEL_MULT[size])}, not {list(network.channel_mult)}"
    if network.width % GROUPS:
        yield f"its widths are multiples of {GROUPS}, the groups of its norms, not {network.width}"
    if upsampling is not None and upsampling.noise_augmentation:
        yield "its upsamplers know no noise_augmentation"
    if diffusion.variance is Variance.LEARNED:
        yield "it has no flag for variance: learned"
    if upsampling is not None and diffusion.variance is Variance.FIXED_SMALL:
        yield "its upsampler has no flag for variance: fixed_small"
    if diffusion.beta_start is not None and diffusion.beta_end is not None:
        ours, theirs = (diffusion.beta_start, diffusion.beta_end), (0.1 / diffusion.timesteps, 20 / diffusion.timesteps)
        if not all(math.isclose(one, other) for one, other in zip(ours, theirs, strict=True)):
            yield f"its linear schedule of {diffusion.timesteps} steps runs from {theirs[0]:g} to {theirs[1]:g}"
