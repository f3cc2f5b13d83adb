"""improved-diffusion's flags: the released models, its defaults, and whatever cannot be meant."""

import json
from pathlib import Path

import pytest

from iddpm.checks import load_params
from iddpm.diffusion import Mean, Variance
from iddpm.errors import UserError
from iddpm.exchange import architecture_from_flags, flags_from_architecture, release_flags
from iddpm.exchange.fit import empty_weights
from iddpm.params import Architecture, Conditioning, Schedule
from tests.conftest import ROOT

RELEASES = {
    "cifar10_uncond_50M_500K": 52_546_438,
    "cifar10_uncond_vlb_50M_500K": 52_546_438,
    "imagenet64_cond_270M_250K": 273_049_350,
    "imagenet64_uncond_100M_1500K": 121_063_942,
    "imagenet64_uncond_vlb_100M_1500K": 121_063_942,
    "lsun_uncond_100M_1200K_bs128": 113_676_678,
    "lsun_uncond_100M_2400K_bs64": 113_676_678,
    "upsample_cond_500K": 279_792_390,
}
"""Released model -> its published number of parameters."""


def altered(architecture: Architecture, **changes: dict) -> Architecture:
    """With other settings in network, diffusion or upsampling."""
    data = architecture.model_dump(mode="json")
    for section, settings in changes.items():
        data[section] = (data[section] or {}) | settings
    return Architecture.model_validate_json(json.dumps(data))


@pytest.mark.parametrize("name", RELEASES)
def test_released_models_have_the_published_sizes(name: str) -> None:
    architecture, card = architecture_from_flags(release_flags(ROOT / "presets", name))
    assert sum(tensor.numel() for tensor in empty_weights(architecture, card).values()) == RELEASES[name]


def test_every_preset_of_a_release_imports_the_file_it_names() -> None:
    with_imports = {path.stem: load_params(path) for path in ROOT.glob("presets/*.yaml")}
    with_imports = {name: params for name, params in with_imports.items() if params.imports}
    assert with_imports.keys() == RELEASES.keys()
    for name, params in with_imports.items():
        path = f"data/raw/checkpoints/{name}.pt"
        assert params.imports.keys() == {name} and params.imports[name].weights == path
        assert path in (ROOT / "presets" / f"{name}.yaml").read_text().splitlines()[0]


def test_defaults_are_those_of_the_public_code() -> None:
    architecture, card = architecture_from_flags("")
    network, diffusion = architecture.network, architecture.diffusion
    assert (card.size, card.channels, card.classes) == (64, 3, 0)
    assert (network.width, network.channel_mult, network.blocks, network.heads) == (128, (1, 2, 3, 4), 2, 4)
    assert network.attention_sizes == (16, 8) and network.scale_shift and not network.dropout
    assert (diffusion.timesteps, diffusion.schedule) == (1000, Schedule.LINEAR)
    assert (diffusion.mean, diffusion.variance) == (Mean.EPS, Variance.FIXED_LARGE) and diffusion.rescale_timesteps


def test_a_class_conditional_release() -> None:
    architecture, card = architecture_from_flags(release_flags(ROOT / "presets", "imagenet64_cond_270M_250K"))
    assert card.classes == 1000 and architecture.network.conditioning is Conditioning.CLASS
    assert architecture.diffusion.variance is Variance.LEARNED_RANGE
    assert (architecture.diffusion.timesteps, architecture.diffusion.rescale_timesteps) == (4000, False)


def test_the_upsampler_is_one() -> None:
    architecture, card = architecture_from_flags("--small_size 32 --num_channels 64")
    assert card.size == 256 and architecture.upsampling is not None and architecture.upsampling.low_size == 32
    assert architecture.network.channel_mult == (1, 1, 2, 2, 4, 4)


def test_spellings_of_a_flag() -> None:
    spelt = [
        "--learn_sigma True --image_size 32 --sigma_small False",
        "--image_size=32 --learn_sigma=yes --num_heads_upsample -1",
        "--image_size 64 --lr 1e-4 --learn_sigma 1 --image_size '32' --timestep_respacing '' --use_kl True",
        "--num_heads_upsample 4 --image_size 32 --learn_sigma t --batch_size 128 --schedule_sampler uniform",
    ]
    assert len({architecture_from_flags(flags)[0].model_dump_json() for flags in spelt}) == 1


def test_attention_resolutions_become_factors_as_in_the_public_code() -> None:
    def sizes(flags: str) -> tuple[int, ...]:
        return architecture_from_flags(flags)[0].network.attention_sizes

    assert sizes("--image_size 32") == (16, 8)
    assert sizes("--image_size 64 --attention_resolutions 31,8") == (32, 8)  # 64 // 31 = 2
    assert sizes("--image_size 64 --attention_resolutions 12") == ()  # 64 // 12 = 5, the factor of no level


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num_head_channels 64", "--num_head_channels: not a flag of improved-diffusion"),
        ("--num_head_channels=64", "--num_head_channels: not a flag"),
        ("64", "64: not a flag"),
        ("--image_size", "--image_size: expected one argument"),
        ("--image_size 64.0", "--image_size: invalid int value: '64.0'"),
        ("--learn_sigma maybe", "--learn_sigma: 'maybe' is neither True nor False"),
        ("--dropout '0.3", "no closing quotation"),
        ("--image_size 128", "--image_size 128: the public code builds 256, 64, 32"),
        ("--large_size 32", "--large_size 32: the public code builds 256, 64"),
        ("--large_size 256 --small_size 256", "--small_size 256: must lie between"),
        ("--large_size 256 --image_size 64", "--image_size: the upsampler's scripts"),
        ("--large_size 256 --sigma_small True", "--sigma_small: the upsampler's scripts"),
        ("--num_channels 100", "--num_channels 100: must be a multiple of 32"),
        ("--num_channels 0", "--num_channels 0: must be a multiple of 32"),
        ("--num_res_blocks 0", "--num_res_blocks 0: must be at least 1"),
        ("--num_heads 0", "--num_heads 0: must be at least 1"),
        ("--num_heads 5", "--num_heads 5: does not divide the 384 channels at 16 pixels"),
        ("--num_heads 3 --attention_resolutions 1", "--num_heads 3: does not divide the 512 channels at 8 pixels"),
        ("--num_heads_upsample 2", "--num_heads_upsample 2: networks of this project have one number of heads"),
        ("--attention_resolutions ''", "--attention_resolutions '': write sizes"),
        ("--attention_resolutions 16,0", "--attention_resolutions '16,0': write sizes"),
        ("--dropout 1", "--dropout 1.0: must be at least 0 and below 1"),
        ("--noise_schedule sqrt", "--noise_schedule sqrt: choose linear or cosine"),
        ("--diffusion_steps 1", "--diffusion_steps 1: must be at least 2"),
        ("--diffusion_steps 15", "--diffusion_steps 15: betas from"),
    ],
)
def test_refused_flags_are_named(flags: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        architecture_from_flags(flags)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "flags",
    [
        "",
        *(release_flags(ROOT / "presets", name) for name in RELEASES),
        "--image_size 32 --num_heads 1 --attention_resolutions 1 --dropout 0.15 --sigma_small True",
        "--large_size 64 --small_size 16 --predict_xstart True --noise_schedule cosine --use_scale_shift_norm False",
    ],
)
def test_flags_survive_the_way_there_and_back(flags: str) -> None:
    model = architecture_from_flags(flags)
    written = flags_from_architecture(*model)
    assert architecture_from_flags(written) == model
    assert flags_from_architecture(*architecture_from_flags(written)) == written


@pytest.mark.parametrize(
    ("card_changes", "changes", "reason"),
    [
        ({"channels": 1}, {}, "3 channels, not 1"),
        ({"classes": 10}, {"network": {"conditioning": "class"}}, "1000 classes, not 10"),
        ({"size": 16}, {}, "it builds sizes 256, 64, 32, not 16"),
        ({}, {"network": {"channel_mult": [1, 2]}}, "channel_mult is [1, 2, 2, 2], not [1, 2]"),
        ({}, {"network": {"block": "mbconv"}}, "it has no mbconv blocks"),
        ({}, {"network": {"width": 48}}, "not 48"),
        ({}, {"diffusion": {"variance": "learned"}}, "no flag for variance: learned"),
        ({}, {"diffusion": {"beta_start": 4e-4, "beta_end": 0.18}}, "runs from 0.0001 to 0.02"),
        ({"size": 64}, {"upsampling": {"low_size": 16}, "diffusion": {"variance": "fixed_small"}}, "fixed_small"),
        ({"size": 64}, {"upsampling": {"low_size": 16, "noise_augmentation": 0.1}}, "no noise_augmentation"),
    ],
)
def test_what_the_public_code_cannot_express(card_changes: dict, changes: dict, reason: str) -> None:
    architecture, card = architecture_from_flags("--image_size 32")
    card = type(card)(**(card.as_json() | card_changes))
    if card.size == 64:
        changes = {"network": {"channel_mult": [1, 2, 3, 4]}} | changes
    with pytest.raises(UserError) as refusal:
        flags_from_architecture(altered(architecture, **changes), card)
    assert str(refusal.value).startswith("improved-diffusion cannot express this model: ")
    assert reason in str(refusal.value) and ";" not in str(refusal.value)


def test_every_reason_is_given_at_once() -> None:
    architecture, card = architecture_from_flags("--image_size 32")
    card = type(card)(**(card.as_json() | {"channels": 1, "size": 28}))
    with pytest.raises(UserError, match=r"not 1; it builds sizes 256, 64, 32, not 28$"):
        flags_from_architecture(architecture, card)


def test_linear_endpoints_that_are_the_default_are_expressible() -> None:
    architecture, card = architecture_from_flags("--image_size 32 --diffusion_steps 100")
    explicit = altered(architecture, diffusion={"beta_start": 0.001, "beta_end": 0.2})
    assert flags_from_architecture(explicit, card) == flags_from_architecture(architecture, card)


def test_an_unknown_release_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--release ddpm: choose cifar10_uncond_50M_500K, .*upsample_cond_500K$"):
        release_flags(ROOT / "presets", "ddpm")
    with pytest.raises(UserError, match="--release digits: choose"):
        release_flags(ROOT / "presets", "digits")
