"""Weights in improved-diffusion's .pt files: a dictionary of tensors under the names our networks use too."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iddpm.data.sources import Card
from iddpm.errors import UserError
from iddpm.exchange.fit import empty_weights, misfit, probable_flags, shapes
from iddpm.params import Architecture
from iddpm.training.checkpoint import Weights


def read_pt(path: Path, architecture: Architecture, card: Card) -> Weights:
    """The float32 weights of a .pt file for the network of `architecture` on the images of `card`.

    Nothing in the file is executed. UserError when it cannot be read, holds anything but weights, or holds those of
    another network: it then names the first differences and the flags that are probably wrong.
    """
    stored = _plain_weights(path, _load(path))
    expected = shapes(empty_weights(architecture, card))
    if difference := misfit(shapes(stored), expected):
        flags = probable_flags(shapes(stored), expected, architecture.size or card.size)
        hint = f"; the file speaks for {flags}" if flags else ""
        raise UserError(f"{path}: not the weights of this network: {difference}{hint}")
    return {name: stored[name].float() for name in expected}


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    mapped = zipfile.is_zipfile(path)  # every version of torch since 1.6 writes an archive, unless told otherwise
    try:
        if mapped and (damaged := zipfile.ZipFile(path).testzip()):  # a mapped file's checksums are not looked at
            raise UserError(f"{path}: damaged (the checksum of {damaged} is wrong); fetch it again")
        with warnings.catch_warnings():  # about pickles it does not know, which it then refuses
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:  # the reader meets a damaged file with whatever its content leads to
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise UserError(f"{path}: holds Python objects, not only weights; they are never executed here") from None
        raise UserError(f"{path}: truncated, damaged, or no checkpoint at all") from None


def _plain_weights(path: Path, stored: Any) -> Weights:
    if not isinstance(stored, dict) or not stored:
        raise UserError(f"{path}: holds {type(stored).__name__}, not weights by name")
    for name, tensor in stored.items():
        if not isinstance(tensor, Tensor):
            raise UserError(
                f"{path}: {name!r} is {type(tensor).__name__}, not a tensor; is this an optimizer's state, "
                "or are the weights one level deeper?"
            )
        if not tensor.is_floating_point():
            raise UserError(f"{path}: {name!r} holds {tensor.dtype}, not floating-point weights")
    return stored
