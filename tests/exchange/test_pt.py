"""improved-diffusion's checkpoints: read, refused, written."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from iddpm.data.sources import Card
from iddpm.errors import UserError
from iddpm.exchange import architecture_from_flags, export_pt, import_pt, read_pt
from iddpm.exchange.flags import image_card
from iddpm.params import Architecture, Weights
from iddpm.training.build import build_network
from iddpm.training.checkpoint import open_checkpoint
from tests.golden.conftest import golden_files

from .conftest import TINY_FLAGS, assert_same, model_folder, tiny_pt


def golden_architecture(config: dict) -> tuple[Architecture, Card]:
    size, classes = config["image_size"], config.get("num_classes") or 0
    learned = config["out_channels"] == 2 * config["in_channels"]
    network = {
        "width": config["model_channels"],
        "channel_mult": config["channel_mult"],
        "blocks": config["num_res_blocks"],
        "attention_sizes": [size // factor for factor in config["attention_resolutions"]],
        "heads": config["num_heads"],
        "scale_shift": config["use_scale_shift_norm"],
        "conditioning": "class" if classes else "none",
    }
    diffusion = {"timesteps": 1000, "variance": "learned_range" if learned else "fixed_large"}
    upsampling = {"low_size": 1} if config["super_res"] else None
    architecture = {"network": network, "diffusion": diffusion, "upsampling": upsampling}
    return Architecture.model_validate_json(json.dumps(architecture)), image_card(config["in_channels"], size, classes)


@pytest.mark.parametrize("path", golden_files("unet_*.npz"), ids=lambda path: path.stem)
def test_imported_weights_give_the_golden_output(path: Path, tmp_path: Path) -> None:
    with np.load(path) as npz:
        arrays = {key: torch.from_numpy(npz[key]) for key in npz.files if key != "config"}
        architecture, card = golden_architecture(json.loads(str(npz["config"])))
    stored = {key[2:]: tensor for key, tensor in arrays.items() if key.startswith("w/")}
    torch.save(stored, tmp_path / "golden.pt")
    network = build_network(architecture, card).eval()
    network.load_state_dict(read_pt(tmp_path / "golden.pt", architecture, card))
    extra = {"low_res": arrays["low_res"]} if "low_res" in arrays else {}
    with torch.inference_mode():
        out = network(arrays["x"], arrays["t"], arrays.get("y"), **extra)
    assert ((out - arrays["out"]).norm() / arrays["out"].norm()).item() < 1e-5


def test_an_imported_model_folder(tmp_path: Path) -> None:
    stored = tiny_pt(tmp_path / "tiny.pt")
    import_pt(tmp_path / "tiny.pt", TINY_FLAGS).write(tmp_path / "model", {"flags": TINY_FLAGS})
    checkpoint = open_checkpoint(tmp_path / "model")
    assert_same(checkpoint.weights("ema"), stored)
    architecture, card = architecture_from_flags(TINY_FLAGS)
    assert Architecture.model_validate_json(json.dumps(checkpoint.about["architecture"])) == architecture
    assert Card(**checkpoint.about["card"]) == card
    assert (checkpoint.about["kind"], checkpoint.about["params"]) == ("diffusion", {"flags": TINY_FLAGS})


@pytest.mark.parametrize("how", ["half", "bfloat16", "views of one tensor", "before torch 1.6", "ordered"])
def test_ways_to_store_the_same_weights(how: str, tmp_path: Path) -> None:
    stored = tiny_pt(tmp_path / "tiny.pt")
    if how in ("half", "bfloat16"):
        stored = {name: tensor.to(getattr(torch, how)) for name, tensor in stored.items()}
    if how == "views of one tensor":  # as the public code leaves weights trained in half precision
        flat = torch.cat([tensor.flatten() for tensor in stored.values()])
        parts = flat.split([tensor.numel() for tensor in stored.values()])
        stored = {name: part.view_as(stored[name]) for name, part in zip(stored, parts, strict=True)}
    if how == "ordered":
        stored = build_network(*architecture_from_flags(TINY_FLAGS)).state_dict()
    torch.save(stored, tmp_path / "stored.pt", _use_new_zipfile_serialization=how != "before torch 1.6")
    import_pt(tmp_path / "stored.pt", TINY_FLAGS).write(tmp_path / "model", {})
    weights = open_checkpoint(tmp_path / "model").weights("ema")
    assert all(tensor.dtype is torch.float32 for tensor in weights.values())
    assert_same(weights, {name: tensor.float() for name, tensor in stored.items()})


class Code:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def refusal(path: Path, flags: str = TINY_FLAGS) -> str:
    with pytest.raises(UserError) as refused:
        import_pt(path, flags)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(container: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "code.pt", tmp_path / "mark"
    content = {"time_embed.0.weight": Code(mark)}
    if container == "torch":
        torch.save(content, path)
        assert "Python objects" in refusal(path)
    else:
        path.write_bytes(pickle.dumps(content))
        assert "no checkpoint at all" in refusal(path)
    assert not mark.exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    tiny_pt(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    middle = largest.header_offset + largest.file_size // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert f"damaged (the checksum of {largest.filename} is wrong)" in refusal(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert "truncated, damaged, or no checkpoint" in refusal(path)
    path.write_bytes(b"")
    assert "truncated, damaged, or no checkpoint" in refusal(path)
    path.write_text("<html>404</html>\n")
    assert "truncated, damaged, or no checkpoint" in refusal(path)
    path.unlink()
    assert "no such file" in refusal(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(3)], "holds list, not weights"),
        ({}, "holds dict, not weights"),
        ({"model": {"a": torch.zeros(3)}}, "'model' is dict, not a tensor"),
        ({"state": {}, "param_groups": []}, "is this an optimizer's state"),
        ({"a": torch.zeros(3, dtype=torch.int64)}, "'a' holds torch.int64"),
        ({"a": torch.zeros(3)}, "missing: time_embed.0.weight, time_embed.0.bias and"),
    ],
)
def test_other_content_is_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert message in refusal(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--learn_sigma True", "--learn_sigma True"),
        ("--class_cond True", "--class_cond True"),
        ("--num_channels 64", "--num_channels 64"),
        ("--num_res_blocks 2", "--num_res_blocks 2"),
        ("--use_scale_shift_norm False", "--use_scale_shift_norm False"),
        ("--attention_resolutions 8", "--attention_resolutions 8"),
        ("--attention_resolutions 1", "--attention_resolutions 1"),
        ("--image_size 64", "--image_size 64"),
        ("--image_size 256", "--image_size 256"),
    ],
)
def test_a_wrong_flag_is_named(flag: str, hint: str, tmp_path: Path) -> None:
    true, other = f"{TINY_FLAGS} {flag}", TINY_FLAGS
    tiny_pt(tmp_path / "true.pt", true)
    tiny_pt(tmp_path / "other.pt", other)
    message = refusal(tmp_path / "true.pt", other)
    assert "not the weights of this network: " in message and message.endswith(f"; the file speaks for {hint}")
    _, value = flag.split()
    opposite = {"True": "False", "False": "True", "64": "32", "256": "32", "2": "1", "8": "16,8", "1": "16,8"}[value]
    assert refusal(tmp_path / "other.pt", true).endswith(f"; the file speaks for {hint.split()[0]} {opposite}")
    import_pt(tmp_path / "true.pt", true)


def test_several_wrong_flags_are_named_together(tmp_path: Path) -> None:
    tiny_pt(tmp_path / "true.pt", f"{TINY_FLAGS} --class_cond True --learn_sigma True")
    message = refusal(tmp_path / "true.pt")
    assert message.endswith("the file speaks for --class_cond True, --learn_sigma True")
    assert "unknown: label_emb.weight; other shapes: out.2.weight is [6, 32, 3, 3], not [3, 32, 3, 3]" in message


def test_upsampler_and_ordinary_model_are_told_apart(tmp_path: Path) -> None:
    ordinary, upsampler = "--image_size 64 --num_channels 32", "--large_size 64 --small_size 16 --num_channels 32"
    tiny_pt(tmp_path / "ordinary.pt", ordinary)
    tiny_pt(tmp_path / "upsampler.pt", upsampler)
    assert refusal(tmp_path / "upsampler.pt", ordinary).endswith("speaks for --large_size and --small_size")
    assert refusal(tmp_path / "ordinary.pt", upsampler).endswith("speaks for --image_size in place of --large_size")


def test_missing_weights_without_a_wrong_flag(tmp_path: Path) -> None:
    stored = tiny_pt(tmp_path / "tiny.pt")
    for name in ("out.0.weight", "middle_block.0.in_layers.0.bias", "middle_block.1.norm.weight"):
        del stored[name]
    torch.save(stored, tmp_path / "tiny.pt")
    message = refusal(tmp_path / "tiny.pt")
    assert message.endswith("missing: middle_block.0.in_layers.0.bias, middle_block.1.norm.weight and 1 more")


@pytest.mark.parametrize("which", Weights)
@pytest.mark.parametrize(
    "flags",
    [
        f"{TINY_FLAGS} --learn_sigma True --class_cond True --num_heads 1",
        "--large_size 64 --small_size 16 --num_channels 32 --num_res_blocks 1",
    ],
)
def test_export_then_import_is_the_identity(flags: str, which: Weights, tmp_path: Path) -> None:
    architecture, card = architecture_from_flags(flags)
    written = model_folder(tmp_path / "model", architecture, card)
    printed = export_pt(tmp_path / "model", tmp_path / "out" / "exported.pt", which)
    imported = import_pt(tmp_path / "out" / "exported.pt", printed)
    assert_same(imported.weights, written["ema" if which is Weights.EMA else "model"])
    assert (imported.architecture, imported.card) == (architecture, card)
    stored = torch.load(tmp_path / "out" / "exported.pt", weights_only=True)
    assert list(stored) and all(type(tensor) is torch.Tensor for tensor in stored.values())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["exported.pt"]


def test_refused_exports_write_nothing(tmp_path: Path) -> None:
    architecture, card = architecture_from_flags(TINY_FLAGS)
    out = tmp_path / "out.pt"
    model_folder(tmp_path / "grey", architecture, Card(**(card.as_json() | {"channels": 1})))
    with pytest.raises(UserError, match="grey: improved-diffusion cannot express this model: its images have 3 channe"):
        export_pt(tmp_path / "grey", out, Weights.EMA)
    model_folder(tmp_path / "mixture", architecture, card, kind="mixture")
    with pytest.raises(UserError, match="mixture: holds a model of kind mixture"):
        export_pt(tmp_path / "mixture", out, Weights.EMA)
    with pytest.raises(UserError, match="no checkpoint here"):
        export_pt(tmp_path / "nowhere", out, Weights.EMA)
    assert not out.exists()
    model_folder(tmp_path / "sound", architecture, card)
    out.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export_pt(tmp_path / "sound", out, Weights.EMA)
    assert out.read_text() == "mine"


def test_an_imported_model_has_no_raw_weights_to_export(tmp_path: Path) -> None:
    tiny_pt(tmp_path / "tiny.pt")
    import_pt(tmp_path / "tiny.pt", TINY_FLAGS).write(tmp_path / "model", {})
    with pytest.raises(UserError, match=r"model\.safetensors: missing; this checkpoint has \['ema'\]"):
        export_pt(tmp_path / "model", tmp_path / "out.pt", Weights.RAW)
