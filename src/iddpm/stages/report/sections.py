"""Pictures, likelihoods, trainings, provenance."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from iddpm.data import Card
from iddpm.params import Architecture
from iddpm.stages.context import Stage
from iddpm.stages.evaluated import Json
from iddpm.stages.report.beside import objective_of
from iddpm.stages.report.blocks import Block, Cell, Code, Column, Fold, Picture, Pictures, Table, Text, hashed, number
from iddpm.stages.report.gather import Likelihood, Results
from iddpm.training.build import count_network
from iddpm.training.checkpoint import architecture_of

SHOWN_FIRST = 2
"""Pictures of a kind that are open at first: those of the best scores."""


def sample_pictures(stage: Stage, results: Results, file: str, folder: Path) -> list[Picture]:
    """runs/samples/NAME/FILE of every sampling that has it, those with the best scores first."""
    ranks: dict[str, str] = {}
    for group in results.groups:
        for one in group.ranked_sets:
            distance = f"{group.distance} {number(one.scores['frechet_distance'], 3)}"
            ranks.setdefault(one.about["record"]["params"]["samples"], distance)
    pictures = []
    for name in sorted(results.samples, key=lambda name: list(ranks).index(name) if name in ranks else len(ranks)):
        caption = ", ".join(filter(None, [f"`{name}`", ranks.get(name)]))
        pictures += taken_picture(stage, f"runs/samples/{name}/{file}", folder, caption)
    return pictures


def nearest_pictures(stage: Stage, results: Results, folder: Path) -> list[Picture]:
    """Of every evaluation, the best scores first."""
    return [
        picture
        for group in results.groups
        for one in group.ranked_sets
        for picture in taken_picture(
            stage, f"runs/evaluations/{one.name}/nearest.png", folder, f"`{one.name}`, {group.distance}"
        )
    ]


def taken_picture(stage: Stage, path: str, folder: Path, caption: str) -> list[Picture]:
    """A picture that another stage may have made, copied beside the page, with its SVG if it has one."""
    source = stage.root / path
    if not source.exists():
        return []
    target = folder / "-".join(path.split("/")[1:])
    shutil.copyfile(stage.input(path), target)
    if source.with_suffix(".svg").exists():
        shutil.copyfile(source.with_suffix(".svg"), target.with_suffix(".svg"))
    return [Picture.of(target, caption)]


def gallery(text: str, pictures: Sequence[Picture]) -> list[Block]:
    """The first pictures in the open, the others folded."""
    if not pictures:
        return []
    blocks: list[Block] = [Text(text), Pictures(list(pictures[:SHOWN_FIRST]))]
    others = list(pictures[SHOWN_FIRST:])
    return [*blocks, Fold(f"The others ({len(others)})", [Pictures(others)])] if others else blocks


def likelihood_blocks(stage: Stage, results: Results, folder: Path) -> list[Block]:
    """The table, bits/dim over checkpoints, and the terms of the bound."""
    if not results.likelihoods:
        return []
    pictures: dict[str, list[Picture]] = {"checkpoints": [], "terms": []}
    for kind, taken in pictures.items():
        for one in results.likelihoods:
            taken += taken_picture(stage, f"runs/likelihoods/{one.name}/{kind}.png", folder, f"`{one.name}`")
    blocks: list[Block] = [_likelihood_table(results.likelihoods)]
    blocks += gallery(
        "Bits/dim over training; a growing gap between train and test is overfitting.", pictures["checkpoints"]
    )
    blocks += [_checkpoints_table(one) for one in results.likelihoods if one.checkpoints]
    return blocks + gallery("Terms of the bound by timestep.", pictures["terms"])


def _likelihood_table(likelihoods: Sequence[Likelihood]) -> Table:
    gap = any("gap_bits_per_dim" in one.values for one in likelihoods)
    rows = []
    for one in likelihoods:
        values, protocol = one.values, one.protocol
        cells = [Cell(f"`{one.name}`"), Cell(one.model), Cell(one.dataset), Cell(protocol["split"])]
        cells += [Cell(number(protocol["images"])), Cell(one.terms), Cell(protocol["weights"])]
        cells.append(_with_error(values, "bits_per_dim"))
        if gap:
            cells += [_with_error(values, "train_bits_per_dim"), _with_error(values, "gap_bits_per_dim")]
        rows.append([*cells, Cell(f"{values['prior_bits_per_dim']:.2g}")])
    texts = ("likelihood", "model", "dataset", "split")
    columns = [*(Column(title, False) for title in texts), Column("images"), Column("terms"), Column("weights", False)]
    columns += [Column("bits/dim"), *([Column("of train"), Column("test minus train")] if gap else []), Column("prior")]
    return Table(columns, rows, "Bits per dimension with their standard error over images; one draw of noise a term.")


def _with_error(values: Json, key: str) -> Cell:
    if values.get(key) is None:
        return Cell("")
    error = values.get(f"{key}_standard_error")
    return Cell(number(values[key]), "" if error is None else f"± {number(error, 2)}")


def _checkpoints_table(likelihood: Likelihood) -> Fold:
    splits = list(dict.fromkeys(row["split"] for row in likelihood.checkpoints))
    cells: dict[int, dict[str, Cell]] = {}
    for row in likelihood.checkpoints:
        error = float(row["standard_error"])
        cell = Cell(number(float(row["bits_per_dim"])), "" if math.isnan(error) else f"± {number(error, 2)}")
        cells.setdefault(int(row["step"]), {})[row["split"]] = cell
    rows = [[Cell(f"{step:,}"), *(of.get(split, Cell("")) for split in splits)] for step, of in sorted(cells.items())]
    columns = [Column("training step", False), *(Column(f"{split}, bits/dim") for split in splits)]
    return Fold(f"Bits/dim of `{likelihood.name}` by checkpoint", [Table(columns, rows)])


def training_blocks(results: Results, compared: Sequence[Picture], each: Sequence[Picture]) -> list[Block]:
    """What was trained, and how it went."""
    blocks: list[Block] = [_training_table(results)] if results.models or results.surrogates else []
    if compared:
        return [*blocks, Pictures(list(compared)), Fold(f"Every training ({len(each)})", [Pictures(list(each))])]
    return [*blocks, *([Pictures(list(each))] if each else [])]


def _training_table(results: Results) -> Table:
    """A row for each model; multiply-adds where networks differ, and what a training step took."""
    abouts = {f"runs/models/{name}": about for name, about in results.models.items()}
    abouts |= {f"runs/surrogates/{name}": about for name, about in results.surrogates.items()}
    titles = ["model", "dataset", "objective", "T", "schedule", "variance", "steps", "batch", "learning rate", "EMA"]
    caption = ""
    rows = [_training_row(folder.rpartition("/")[2], about) for folder, about in abouts.items()]
    networks = [architecture_of(about) for about in abouts.values()]
    if len({json.dumps([one["network"], one.get("size")], sort_keys=True) for one in networks if one}) > 1:
        titles.append("10⁹ multiply-adds")
        caption = "Multiply-adds are those of a forward pass, in small print their ratio to the first row's. "
        billions = [
            counted_network(one, about["card"])[1] / 1e9 if one else None
            for one, about in zip(networks, abouts.values(), strict=True)
        ]
        rows = [[*row, cell] for row, cell in zip(rows, _compared(billions), strict=True)]
    paces = [results.times.get(folder, {}).get("seconds_per_step") for folder in abouts]
    if any(paces):
        titles.append("seconds per step")
        rows = [[*row, Cell(number(pace, 3) if pace else "")] for row, pace in zip(rows, paces, strict=True)]
        caption += "Seconds are as the trainings ran: those that ran side by side on one machine slowed each other."
    texts = ("model", "dataset", "objective", "schedule", "variance")
    return Table([Column(title, title not in texts) for title in titles], rows, caption.strip())


def _compared(values: Sequence[float | None]) -> list[Cell]:
    """Each with its ratio to the first that is known."""
    first = next(value for value in values if value)
    return [Cell(number(value, 3), f"× {number(value / first, 3)}") if value else Cell("") for value in values]


def counted_network(architecture: Json, card: Json) -> tuple[int, int]:
    """Of a checkpoint's model: its parameters, and the multiply-adds of a forward pass of one image."""
    blocks = count_network(Architecture.model_validate_json(json.dumps(architecture)), Card(**card))
    return sum(block.parameters for block in blocks), sum(block.multiply_adds for block in blocks)


def _training_row(name: str, about: Json) -> list[Cell]:
    params = about["params"]
    training = params.get("training") or {}
    diffusion = architecture_of(about).get("diffusion", {})
    kind = {"mixture": "mixture", "diffusion": "imported"}.get(about["kind"], about["kind"])
    values: list[Any] = [params.get("dataset", ""), objective_of(training) if training else kind]
    values += [diffusion.get(key, "") for key in ("timesteps", "schedule", "variance")]
    source = training or params  # an SNGAN's parameters are its training's
    values += [source.get(key, "") for key in ("steps", "batch_size", "learning_rate", "ema_decay")]
    return [Cell(f"`{name}`"), *(Cell(value if isinstance(value, str) else number(value)) for value in values)]


def provenance(stage: Stage, results: Results) -> list[Block]:
    """What made all this, from which data, with which parameters, and how long it took."""
    own = stage.record()
    versions = ", ".join(f"{name} {version}" for name, version in own["versions"].items())
    made = f"Page made at commit `{own['git_commit'] or 'none'}`, with {versions}."
    commits = [
        f"`{commit or 'none'}`" for commit in dict.fromkeys(record["git_commit"] for record in results.records())
    ]
    if commits:
        made += f" Its results were made at {', '.join(commits)}."
    blocks: list[Block] = [Text(made)]
    if results.cards:
        blocks.append(_datasets(stage, results.cards))
    blocks += [Fold("Seconds of each stage", [_seconds(results)])] if any(results.records()) else []
    described = {f"model `{name}`": about for name, about in results.models.items()}
    described |= {f"surrogate `{name}`": about for name, about in results.surrogates.items()}
    folds: list[Block] = [Fold(f"Parameters of {name}", [_parameters(about)]) for name, about in described.items()]
    return [*blocks, *([Fold("Parameters of the models", folds)] if len(folds) > SHOWN_FIRST else folds)]


def _parameters(about: Mapping[str, Any]) -> Code:
    return Code(yaml.safe_dump(about["params"], sort_keys=False, allow_unicode=True).rstrip())


def _datasets(stage: Stage, cards: Mapping[str, Json]) -> Table:
    rows = []
    for name, card in cards.items():
        counts = [number(card["counts"].get(split, 0)) for split in ("train", "test")]
        skipped = sum(card["skipped"].values())
        images = f"{card['size']}×{card['size']}, {card['channels']} channel{'s' if card['channels'] > 1 else ''}"
        hashes = [card["source_sha256"], stage.inputs[f"data/shards/{name}"]]
        cells = [Cell(f"`{name}`", card["source"])]
        cells.append(Cell(card["description"], f"{skipped:,} unreadable files skipped" if skipped else ""))
        cells += [Cell(text) for text in (images, str(card["classes"] or "none"), *counts)]
        rows.append([*cells, *map(hashed, hashes)])
    titles = ("dataset", "what", "images", "classes", "train", "test", "sha256 of the source", "of the shards' index")
    return Table([Column(title, title in ("classes", "train", "test")) for title in titles], rows)


def _seconds(results: Results) -> Table:
    rows = [
        [
            Cell(record["stage"]),
            Cell(number(record["seconds"])),
            hashed(record["git_commit"] or "none"),
        ]
        for record in results.records()
    ]
    columns = [Column("stage", False), Column("seconds"), Column("commit", False)]
    return Table(columns, rows, "Of a training that was resumed, since then.")
