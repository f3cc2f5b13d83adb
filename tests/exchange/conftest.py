"""Small networks with weights that are nowhere zero, so that every one of them shows in the output."""

from pathlib import Path

import torch

from iddpm.data.sources import Card
from iddpm.exchange import architecture_from_flags
from iddpm.params import Architecture
from iddpm.training.build import build_network
from iddpm.training.checkpoint import Weights, write_checkpoint

TINY_FLAGS = "--image_size 32 --num_channels 32 --num_res_blocks 1 --diffusion_steps 20 --noise_schedule cosine"


def random_weights(architecture: Architecture, card: Card, seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    empty = build_network(architecture, card).state_dict()
    return {name: 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in empty.items()}


def tiny_pt(path: Path, flags: str = TINY_FLAGS) -> Weights:
    weights = random_weights(*architecture_from_flags(flags))
    torch.save(weights, path)
    return weights


def model_folder(path: Path, architecture: Architecture, card: Card, kind: str = "diffusion") -> dict[str, Weights]:
    """A finished model as training leaves it."""
    about = {"kind": kind, "params": {}, "architecture": architecture.model_dump(mode="json"), "card": card.as_json()}
    weights = {"ema": random_weights(architecture, card, 1), "model": random_weights(architecture, card, 2)}
    write_checkpoint(path, about, weights)
    return weights


def assert_same(actual: Weights, expected: Weights) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
