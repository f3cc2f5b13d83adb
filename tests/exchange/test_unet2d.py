"""diffusers' UNet2DModel: the same outputs, lossless both ways, and what either side cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from iddpm.data.sources import Card
from iddpm.errors import UserError
from iddpm.exchange import export_unet2d, import_unet2d
from iddpm.exchange.flags import image_card
from iddpm.params import Architecture, Diffusion, Weights
from iddpm.training.build import build_network

from .conftest import assert_same, model_folder

SIMPLE = {"timesteps": 20, "variance": "fixed_large"}
PROCESS_FLAGS = "--diffusion_steps 20 --noise_schedule cosine"
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, int, int]]] = {
    "one width attends, heads, labels, learned variance": (
        {"width": 32, "channel_mult": [1, 2], "blocks": 1, "attention_sizes": [4], "heads": 4, "conditioning": "class"},
        {"timesteps": 20},
        (3, 8, 7),
    ),
    "every width attends with one head, embedding added": (
        {"width": 32, "channel_mult": [1, 2, 3], "blocks": 2, "attention_sizes": [16, 8, 4], "heads": 1}
        | {"scale_shift": False},
        SIMPLE,
        (1, 16, 0),
    ),
    "equal widths share their heads": (
        {"width": 64, "channel_mult": [1, 2, 2, 2], "blocks": 1, "attention_sizes": [8, 4], "heads": 4},
        {"timesteps": 20, "schedule": "linear", "beta_start": 0.02, "beta_end": 0.5, "variance": "learned"},
        (3, 16, 10),
    ),
    "only the middle attends": ({"width": 32, "channel_mult": [1, 1], "blocks": 1, "heads": 2}, SIMPLE, (3, 8, 0)),
}


def built(network: dict, diffusion: dict, shape: tuple[int, int, int], **more: Any) -> tuple[Architecture, Card]:
    data = {"network": network, "diffusion": diffusion} | more
    return Architecture.model_validate_json(json.dumps(data)), image_card(*shape)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert ((actual - expected).norm() / expected.norm()).item() < 1e-5


@torch.inference_mode()
def outputs(network: torch.nn.Module, theirs: UNet2DModel, shape: tuple[int, ...], classes: int) -> list[torch.Tensor]:
    """Of both for the same images, fractional model timesteps and labels."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, *shape, generator=generator)
    timesteps = torch.tensor([0.0, 17.25, 999.0])
    labels = torch.tensor([0, 1, classes - 1]) if classes else None
    return [network.eval()(x, timesteps, labels), theirs.eval()(x, timesteps, labels).sample]


@pytest.mark.parametrize("case", CASES)
def test_exported_models_give_the_same_output_and_come_back(case: str, tmp_path: Path) -> None:
    architecture, card = built(*CASES[case])
    written = model_folder(tmp_path / "model", architecture, card)
    export_unet2d(tmp_path / "model", tmp_path / "out", Weights.EMA)
    theirs, info = UNet2DModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    network = build_network(architecture, card)
    network.load_state_dict(written["ema"])
    classes = card.classes if architecture.network.conditioning == "class" else 0
    assert_close(*outputs(network, theirs, (card.channels, card.size, card.size), classes))
    imported = import_unet2d(tmp_path / "out", None)
    assert_same(imported.weights, written["ema"])
    assert (imported.architecture, imported.card) == (architecture, card)


def test_a_model_trained_below_its_dataset_size(tmp_path: Path) -> None:
    network, diffusion, (channels, size, classes) = CASES["only the middle attends"]
    architecture, card = built(network, diffusion, (channels, 2 * size, classes), size=size)
    written = model_folder(tmp_path / "model", architecture, card)
    export_unet2d(tmp_path / "model", tmp_path / "out", Weights.RAW)
    assert UNet2DModel.from_pretrained(tmp_path / "out").config.sample_size == size
    imported = import_unet2d(tmp_path / "out", None)
    assert_same(imported.weights, written["model"])
    assert (imported.architecture, imported.card) == (architecture, card)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"upsampling": {"low_size": 4}}, "it has no low-resolution input"),
        ({"network": {"block": "mbconv", "scale_shift": False}}, "it has no mbconv blocks"),
        ({"network": {"channel_mult": [2, 2]}}, "channel_mult begins with 2"),
        ({"network": {"width": 48}}, "32 only where width (48) divides by it"),
        ({"network": {"attention_sizes": [8, 4]}}, "it fixes the width of a head, not their number: 4 heads at both"),
    ],
)
def test_what_unet2d_cannot_be(changes: dict[str, dict], reason: str, tmp_path: Path) -> None:
    network, diffusion, shape = CASES["one width attends, heads, labels, learned variance"]
    sections = {"network": network | changes.pop("network", {})} | changes
    architecture, card = built(sections.pop("network"), diffusion, shape, **sections)
    model_folder(tmp_path / "model", architecture, card)
    with pytest.raises(UserError) as refusal:
        export_unet2d(tmp_path / "model", tmp_path / "out", Weights.EMA)
    assert str(refusal.value).startswith(f"{tmp_path}/model: UNet2DModel cannot be this network: ")
    assert reason in str(refusal.value) and ";" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


FOREIGN: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 16,
    "num_class_embeds": 5,
}


def foreign(folder: Path, **changes: Any) -> UNet2DModel:
    """A folder that diffusers wrote, of weights that are nowhere zero."""
    torch.manual_seed(0)
    model = UNet2DModel(**(FOREIGN | changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"out_channels": 6, "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32, "dropout": 0.1},
        {"attention_head_dim": None, "num_class_embeds": None},
    ],
)
def test_a_foreign_folder_gives_the_same_output(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = foreign(tmp_path / "theirs", **changes)
    learned = theirs.config.out_channels == 6
    imported = import_unet2d(tmp_path / "theirs", f"{PROCESS_FLAGS} --learn_sigma {learned}")
    assert imported.architecture.diffusion == Diffusion.model_validate_json(
        json.dumps({"timesteps": 20, "variance": "learned_range" if learned else "fixed_large"})
    )
    classes = theirs.config.num_class_embeds or 0
    assert imported.card == image_card(3, 16, classes) and imported.architecture.network.attention_sizes == (8,)
    network = build_network(imported.architecture, imported.card)
    network.load_state_dict(imported.weights)
    assert_close(*outputs(network, theirs, (3, 16, 16), classes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"downsample_padding": 0}, "downsample_padding is 0, ours 1"),
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos is False, ours True"),
        ({"freq_shift": 1}, "freq_shift is 1, ours 0"),
        ({"norm_eps": 1e-6}, "norm_eps is 1e-06, ours 1e-05"),
        ({"center_input_sample": True}, "center_input_sample is True"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ({"add_attention": False}, "add_attention is False"),
        ({"norm_num_groups": 16}, "norm_num_groups is 16, ours 32"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups is None: the middle attention of ours"),
        ({"attn_norm_num_groups": 16}, "attn_norm_num_groups is 16"),
        ({"attention_head_dim": 8, "block_out_channels": (32, 64, 128)}, "ours have one number of heads"),
        ({"block_out_channels": (64, 96, 96)}, "block_out_channels is [64, 96, 96]"),
        ({"sample_size": (16, 16)}, "sample_size is [16, 16], not one number"),
        ({"sample_size": None}, "sample_size is None, not one number"),
        ({"time_embedding_dim": 64}, "time_embedding_dim is 64, ours 4 x 32"),
        ({"up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")}, "ours attend at the same levels"),
        ({"out_channels": 6}, "out_channels is 6 for 3 in_channels, which contradicts --learn_sigma False"),
    ],
)
def test_foreign_settings_that_ours_have_not(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    foreign(tmp_path, **changes)
    with pytest.raises(UserError) as refusal:
        import_unet2d(tmp_path, PROCESS_FLAGS)
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}/config.json: networks of this project cannot be this UNet2DModel: ")
    assert reason in message and ";" not in message and "\n" not in message


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal_of(folder: Path, flags: str | None) -> str:
    with pytest.raises(UserError) as refusal:
        import_unet2d(folder, flags)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_foreign_folder_needs_its_process(tmp_path: Path) -> None:
    foreign(tmp_path)
    assert "does not say which process it was trained for" in refusal_of(tmp_path, None)
    assert refusal_of(tmp_path, f"{PROCESS_FLAGS} --num_channels 32").startswith("--num_channels: the folder's config")
    assert refusal_of(tmp_path, "--noise_schedule sqrt").startswith("--noise_schedule sqrt: choose")


def test_damaged_foreign_folders(tmp_path: Path) -> None:
    config, weights = tmp_path / "config.json", tmp_path / "diffusion_pytorch_model.safetensors"
    foreign(tmp_path)
    edit(config, num_class_embeds=6)
    assert "class_embedding.weight is [5, 128], not [6, 128]" in refusal_of(tmp_path, PROCESS_FLAGS)
    edit(config, num_class_embeds=None)
    assert "not the weights of its config.json: unknown: class_embedding" in refusal_of(tmp_path, PROCESS_FLAGS)
    edit(config, block_out_channels="wide")
    assert "a setting has the wrong type" in refusal_of(tmp_path, PROCESS_FLAGS)
    config.write_text('{"_class_name": "UNet2DModel"}')
    assert "'sample_size' is missing" in refusal_of(tmp_path, PROCESS_FLAGS)
    config.write_text('{"_class_name": "UNet2D')
    assert "config.json: not valid JSON" in refusal_of(tmp_path, PROCESS_FLAGS)
    config.write_text("[]")
    assert "config.json: must hold a dictionary" in refusal_of(tmp_path, PROCESS_FLAGS)
    foreign(tmp_path)
    edit(config, _class_name="UNet2DConditionModel")
    assert "_class_name is 'UNet2DConditionModel'" in refusal_of(tmp_path, PROCESS_FLAGS)
    foreign(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "truncated, damaged" in refusal_of(tmp_path, PROCESS_FLAGS)
    weights.unlink()
    assert f"{weights}: missing" in refusal_of(tmp_path, PROCESS_FLAGS)
    config.unlink()
    assert f"{config}: missing" in refusal_of(tmp_path, PROCESS_FLAGS)


def test_our_description_must_agree_with_the_folder(tmp_path: Path) -> None:
    model_folder(tmp_path / "model", *built(*CASES["only the middle attends"]))
    out = tmp_path / "out"
    export_unet2d(tmp_path / "model", out, Weights.EMA)
    assert "describes the model already; leave the flags out" in refusal_of(out, PROCESS_FLAGS)
    edit(out / "config.json", layers_per_block=2)
    assert refusal_of(out, None) == f"{out}/iddpm.json: layers_per_block is 1, but 2 in config.json"
    edit(out / "iddpm.json", card={})
    assert refusal_of(out, None) == f"{out}/iddpm.json: not a description that iddpm export wrote"
    with pytest.raises(UserError, match="exists already"):
        export_unet2d(tmp_path / "model", out, Weights.EMA)
