"""Between this project's model folders and the files and folders of public code."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from iddpm.data.sources import Card
from iddpm.errors import UserError
from iddpm.exchange.flags import architecture_from_flags, diffusion_from_flags, flags_from_architecture
from iddpm.exchange.openai import read_pt
from iddpm.exchange.unet2d import architecture_from_config, config_from_architecture, from_unet2d, to_unet2d
from iddpm.params import Architecture, read_params
from iddpm.params import Weights as Which
from iddpm.training.checkpoint import Checkpoint, Weights, open_checkpoint, write_checkpoint

UNET2D_WEIGHTS = "diffusion_pytorch_model.safetensors"
UNET2D_CONFIG = "config.json"
OUR_CONFIG = "iddpm.json"
"""Beside an exported UNet2DModel: what its config.json cannot say."""


@dataclass(frozen=True)
class ImportedModel:
    """A model read from public files: its float32 weights and where they were read."""

    architecture: Architecture
    card: Card
    weights: Weights
    file: Path

    def write(self, folder: Path, params: dict[str, Any]) -> None:
        """As a finished model of this project, made as `params` says; its weights count as the averaged ones."""
        with open(self.file, "rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        about = {
            "kind": "diffusion",
            "params": params,
            "architecture": self.architecture.model_dump(mode="json"),
            "card": self.card.as_json(),
            "imported": {"file": self.file.name, "sha256": sha256},
        }
        write_checkpoint(folder, about, {"ema": self.weights})


def import_pt(path: Path, flags: str) -> ImportedModel:
    """Read an improved-diffusion checkpoint. UserError names a flag or what is wrong with the file."""
    architecture, card = architecture_from_flags(flags)
    return ImportedModel(architecture, card, read_pt(path, architecture, card), path)


def import_unet2d(folder: Path, flags: str | None) -> ImportedModel:
    """Read a UNet2DModel folder: one that we exported describes itself, another needs the flags of its process."""
    config_file, file = folder / UNET2D_CONFIG, folder / UNET2D_WEIGHTS
    config = _read_json(config_file)
    if (folder / OUR_CONFIG).exists():
        if flags is not None:
            raise UserError(f"{folder / OUR_CONFIG}: describes the model already; leave the flags out")
        architecture, card = _our_description(folder, config)
    elif flags is None:
        raise UserError(f"{folder}: does not say which process it was trained for: give its flags with --flags")
    else:
        diffusion = diffusion_from_flags(flags)
        with _named(config_file):
            architecture, card = architecture_from_config(config, diffusion)
    if not file.is_file():
        raise UserError(f"{file}: missing; diffusers' save_pretrained writes it (in one file, without a variant)")
    try:
        stored = load_file(file)
    except (SafetensorError, ValueError):
        raise UserError(f"{file}: truncated, damaged, or no safetensors file") from None
    with _named(file):
        return ImportedModel(architecture, card, from_unet2d(stored, architecture, card), file)


def export_pt(folder: Path, out: Path, which: Which) -> str:
    """Write a model folder's weights as an improved-diffusion checkpoint; the flags that go with it."""
    checkpoint, architecture, card = _open(folder)
    with _named(folder):
        flags = flags_from_architecture(architecture, card)
    weights = _weights(checkpoint, which)
    with _appearing(out) as temporary:
        torch.save(weights, temporary)
    return flags


def export_unet2d(folder: Path, out: Path, which: Which) -> None:
    """Write a model folder as a UNet2DModel folder, with our own description beside its config."""
    checkpoint, architecture, card = _open(folder)
    with _named(folder):
        config = config_from_architecture(architecture, card)
    weights = to_unet2d(_weights(checkpoint, which), architecture, card)
    ours = {"architecture": architecture.model_dump(mode="json"), "card": card.as_json()}
    with _appearing(out) as temporary:
        temporary.mkdir()
        for name, content in ((UNET2D_CONFIG, config), (OUR_CONFIG, ours)):
            (temporary / name).write_text(json.dumps(content, indent=2) + "\n")
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(contiguous, temporary / UNET2D_WEIGHTS, metadata={"format": "pt"})


def release_flags(presets: Path, name: str) -> str:
    """The flags of a released model, which stand in the preset of its name."""
    file = presets / f"{name}.yaml"
    imports = read_params(file).imports if file.is_file() else {}
    if name not in imports:
        known = sorted(path.stem for path in presets.glob("*.yaml") if path.stem in read_params(path).imports)
        raise UserError(f"--release {name}: choose {', '.join(known)}")
    return imports[name].flags


def _open(folder: Path) -> tuple[Checkpoint, Architecture, Card]:
    checkpoint = open_checkpoint(folder)
    about = checkpoint.about
    if about["kind"] != "diffusion":
        raise UserError(f"{folder}: holds a model of kind {about['kind']}; only diffusion models are exported")
    return checkpoint, Architecture.model_validate_json(json.dumps(about["architecture"])), Card(**about["card"])


def _weights(checkpoint: Checkpoint, which: Which) -> Weights:
    return checkpoint.weights("ema" if which is Which.EMA else "model")


def _our_description(folder: Path, config: dict[str, Any]) -> tuple[Architecture, Card]:
    file = folder / OUR_CONFIG
    ours = _read_json(file)
    try:
        architecture = Architecture.model_validate_json(json.dumps(ours["architecture"]))
        card = Card(**ours["card"])
    except (KeyError, TypeError, ValidationError):
        raise UserError(f"{file}: not a description that iddpm export wrote") from None
    with _named(file):
        for name, value in config_from_architecture(architecture, card).items():
            if config.get(name) != value:
                raise UserError(f"{name} is {value}, but {config.get(name)} in {UNET2D_CONFIG}")
    return architecture, card


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{file}: missing; a UNet2DModel folder holds it") from None
    except ValueError:
        raise UserError(f"{file}: not valid JSON") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: must hold a dictionary")
    return content


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever the user must be told inside is about `path`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


@contextlib.contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A temporary path that becomes `out`, which must not exist, when the block ends well."""
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.rename(out)
    except (SafetensorError, RuntimeError) as error:  # each library has its own for a full disk
        raise UserError(f"{out}: could not be written ({error})") from None
    finally:
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def refuse_existing(path: Path) -> None:
    """UserError when something is there: nothing of the user's is overwritten."""
    if path.exists():
        raise UserError(f"{path}: exists already; remove it or name another place")
