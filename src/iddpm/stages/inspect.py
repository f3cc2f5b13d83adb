"""What the networks of a parameter file cost, before anything is trained: in total, or block by block."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from iddpm.checks import load_params
from iddpm.data import Card, known_card
from iddpm.errors import UserError
from iddpm.exchange import architecture_from_flags
from iddpm.nets import BlockCount, count_blocks
from iddpm.params import Architecture, Params, SnganSurrogate
from iddpm.training.build import build_gan, count_network

GROUPS = ("models", "surrogates", "imports")
MULTIPLY_ADDS = (
    "G multiply-adds: 10^9 multiply-adds of one forward pass of one image; the paper calls them FLOPs, "
    "a floating point operation count is twice that."
)
ALL_NUMBERS = (
    "all numbers: the parameters and a frozen T x width table of time embeddings, which is computed here; "
    "the coursework's M are 2^20 of them."
)


@dataclass(frozen=True)
class NetworkCount:
    """One network: where the parameters declare it, its images [channels, size, size], and its blocks."""

    path: str
    image: tuple[int, int, int]
    time_table: int | None
    """Numbers in a T x width table of time embeddings; None for a GAN."""
    blocks: list[BlockCount]

    @property
    def parameters(self) -> int:
        return sum(block.parameters for block in self.blocks)

    @property
    def multiply_adds(self) -> int:
        return sum(block.multiply_adds for block in self.blocks)

    @property
    def all_numbers(self) -> int | None:
        return None if self.time_table is None else self.parameters + self.time_table

    def as_json(self) -> dict[str, Any]:
        totals = {name: getattr(self, name) for name in ("parameters", "multiply_adds", "all_numbers")}
        return asdict(self) | totals


def inspect(root: Path, name: str | None, preset: str | None, *, as_json: bool = False) -> str:
    """A table of all networks of params.yaml (or of a preset), or the blocks of those of entry `name`."""
    path = root / "params.yaml"
    if preset is not None:
        path = Path(preset) if preset.endswith((".yaml", ".yml")) else root / "presets" / f"{preset}.yaml"
    params = load_params(path)
    known = [entry for group in GROUPS for entry in getattr(params, group)]
    if name in params.mixtures:
        mixture = params.mixtures[name]
        raise UserError(
            f"{path}: mixtures.{name}: has no network of its own; inspect {mixture.middle} and {mixture.ends}"
        )
    if name is not None and name not in known:
        raise UserError(f"{path}: {name!r} is not in {', '.join(GROUPS)} ({', '.join(known) or 'which are empty'})")
    counts = list(_count(params, known if name is None else [name]))
    if as_json:
        return json.dumps([count.as_json() for count in counts], indent=2)
    if name is None:
        return "\n".join([*_totals(counts), "", MULTIPLY_ADDS, ALL_NUMBERS])
    return "\n".join([*(line for count in counts for line in (*_breakdown(count), "")), MULTIPLY_ADDS])


def _count(params: Params, names: list[str]) -> Iterator[NetworkCount]:
    for name, model in params.models.items():
        if name in names:
            yield count_unet(f"models.{name}", model, known_card(params.datasets[model.dataset]))
    for name, surrogate in params.surrogates.items():
        if name in names:
            card = known_card(params.datasets[surrogate.dataset])
            if isinstance(surrogate, SnganSurrogate):
                yield from count_gan(f"surrogates.{name}", surrogate, card)
            else:
                yield count_unet(f"surrogates.{name}", surrogate, card)
    for name, entry in params.imports.items():
        if name in names:
            yield count_unet(f"imports.{name}", *architecture_from_flags(entry.flags))


def count_unet(path: str, architecture: Architecture, card: Card) -> NetworkCount:
    """The U-Net of a dataset."""
    time_table = architecture.diffusion.timesteps * architecture.network.width
    size = architecture.size or card.size
    return NetworkCount(path, (card.channels, size, size), time_table, count_network(architecture, card))


def count_gan(path: str, surrogate: SnganSurrogate, card: Card) -> tuple[NetworkCount, NetworkCount]:
    """Generator and discriminator for a dataset."""
    with torch.device("meta"):  # shapes without memory or arithmetic
        networks = build_gan(surrogate, card)
        counts = [count_blocks(network, card.size, card.channels) for network in networks]
    image = card.channels, card.size, card.size
    generator, discriminator = counts
    return (
        NetworkCount(f"{path} (generator)", image, None, generator),
        NetworkCount(f"{path} (discriminator)", image, None, discriminator),
    )


def _totals(counts: list[NetworkCount]) -> list[str]:
    rows = [["network", "image", "parameters", "G multiply-adds", "all numbers", "/ 2^20"]]
    for count in counts:
        numbers = count.all_numbers
        table = ["-", "-"] if numbers is None else [f"{numbers:,}", f"{numbers / 2**20:.2f}"]
        rows.append(
            [count.path, _shape(count.image), f"{count.parameters:,}", f"{count.multiply_adds / 1e9:,.4f}", *table]
        )
    return aligned(rows)


def _breakdown(count: NetworkCount) -> list[str]:
    rows = [["block", "output", "parameters", "G multiply-adds", "share"]]
    lines = [(block.name, block.output_shape, block.parameters, block.multiply_adds) for block in count.blocks]
    for name, shape, parameters, multiply_adds in [*lines, ("total", (), count.parameters, count.multiply_adds)]:
        share = f"{multiply_adds / count.multiply_adds:.1%}"
        rows.append([name, _shape(shape), f"{parameters:,}", f"{multiply_adds / 1e9:,.4f}", share])
    return [f"{count.path}: images {_shape(count.image)}", *aligned(rows)]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in cells)
        for cells in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    ]
