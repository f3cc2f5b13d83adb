"""Checkpoints are directories that are either whole or ignored.

weights are NAME.safetensors, anything else that resuming needs is state.pt (read with weights_only),
checkpoint.json describes what it is, manifest.json holds the sha256 of every other file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from iddpm.errors import UserError

FORMAT = 2
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint directory."""

    path: Path
    about: dict[str, Any]

    def weights(self, name: str) -> Weights:
        """One set of weights ("model", "ema", ...) on the CPU."""
        file = self.path / f"{name}.safetensors"
        if not file.exists():
            raise UserError(f"{file}: missing; this checkpoint has {sorted(self.weight_names())}")
        return load_file(file)

    def weight_names(self) -> list[str]:
        return [file.stem for file in self.path.glob("*.safetensors")]

    def state(self) -> dict[str, Any]:
        """Optimizer, timestep sampler and meters, as they were saved."""
        state: dict[str, Any] = torch.load(self.path / "state.pt", map_location="cpu", weights_only=True)
        return state


def architecture_of(about: dict[str, Any]) -> dict[str, Any]:
    """Of a checkpoint.json, {} of an SNGAN; the parts of a mixture have one process and one kind of images."""
    architecture: dict[str, Any] = about.get("architectures", {}).get("middle") or about.get("architecture", {})
    return architecture


def write_checkpoint(
    path: Path, about: dict[str, Any], weights: dict[str, Weights], state: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint directory so that it appears under its name only when everything is on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, tensors in weights.items():
            contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(contiguous, temporary / f"{name}.safetensors")
        if state is not None:
            torch.save(state, temporary / "state.pt")
        (temporary / "checkpoint.json").write_text(json.dumps({"format": FORMAT} | about, indent=2) + "\n")
        manifest = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        _sync(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError | RuntimeError):  # each library has its own for a full disk
            raise UserError(f"{path}: could not be written ({error}); what was there before is untouched") from None
        raise


def open_checkpoint(path: Path) -> Checkpoint:
    """Verify a checkpoint directory against its manifest; UserError names the damaged or missing file."""
    try:
        manifest: dict[str, str] = json.loads((path / "manifest.json").read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no checkpoint here (manifest.json is missing)") from None
    except ValueError:
        raise UserError(f"{path}/manifest.json: damaged") from None
    for name, sha256 in manifest.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file}: missing")
        if _sha256(file) != sha256:
            raise UserError(f"{file}: damaged (sha256 differs from the manifest)")
    about = json.loads((path / "checkpoint.json").read_text())
    if about["format"] != FORMAT:
        raise UserError(f"{path}/checkpoint.json: format {about['format']}, this version reads {FORMAT}")
    return Checkpoint(path, about)


def save_step(root: Path, step: int, about: dict[str, Any], weights: dict[str, Weights], state: dict[str, Any]) -> None:
    """Add the checkpoint of a step under `root`, then drop old ones, never below two that verify."""
    for left_by_a_kill in root.glob(".step-*.tmp"):
        shutil.rmtree(left_by_a_kill)
    write_checkpoint(root / f"step-{step:09d}", about | {"step": step}, weights, state)
    valid = 0
    for path in _steps_newest_first(root):
        if valid >= 2:
            shutil.rmtree(path)
            continue
        try:
            open_checkpoint(path)
            valid += 1
        except UserError:
            pass


def newest_checkpoint(root: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint under `root` that verifies; `report` is told of each one passed over and why."""
    for path in _steps_newest_first(root):
        try:
            return open_checkpoint(path)
        except UserError as error:
            report(f"passed over a damaged checkpoint: {error}")
    return None


def _steps_newest_first(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"), reverse=True)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
