"""A cascade as one model, apart from the pipeline that trained it: a base model and its upsamplers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from iddpm.params import Cascade, Device, Sampling, SurrogateSampling
from iddpm.stages.draw import LowResolution, Start, draw_entry
from iddpm.stages.models import DiffusionModel, GanModel, Images, Labels
from iddpm.stages.request import adapt_entry, parse_entry, refuse_unfit, refuse_unknown
from iddpm.training.checkpoint import open_checkpoint

RECIPE = "cascade.json"
SURROGATE = "surrogate"
OWN_SEEDS = -1
"""The seed that leaves each stage its own."""

Entries = Sequence[Sampling | Cascade]
"""Of params.yaml: the sampling of the base model, then the cascades upon it."""


def stage_names(entries: Entries) -> list[str]:
    """base, upsampler, upsampler_2, ...: the folders of a cascade's models."""
    return ["base", *(f"upsampler_{place}" if place > 1 else "upsampler" for place in range(1, len(entries)))]


def request_defaults(entries: Entries) -> dict[str, str | int | float]:
    """What `CascadeModel.draw` takes besides labels and count, as the pipeline has it.

    steps, sampler and eta of the base model; the same and augmentation of an upsampler, as upsampler_steps, ...
    """
    defaults: dict[str, str | int | float] = {"seed": OWN_SEEDS}
    for prefix, entry in zip(_prefixes(entries), entries, strict=True):
        defaults |= {f"{prefix}steps": str(entry.steps), f"{prefix}sampler": entry.sampler.value}
        defaults[f"{prefix}eta"] = entry.eta
        if isinstance(entry, Cascade):
            defaults[f"{prefix}augmentation"] = entry.augmentation
    return defaults


def write_recipe(folder: Path, entries: Entries) -> None:
    """How the pipeline draws with the models of that folder."""
    stages = [entry.model_dump(mode="json") for entry in entries]
    (folder / RECIPE).write_text(json.dumps({"stages": stages}, indent=2) + "\n")


def _prefixes(entries: Entries) -> Iterator[str]:
    return ("" if name == "base" else f"{name}_" for name in stage_names(entries))


class _Part(NamedTuple):
    prefix: str
    entry: Sampling | Cascade
    model: DiffusionModel
    start: Start | None


class CascadeModel:
    """The models of a folder with a recipe: `base`, `upsampler`, ..., and the `surrogate` of the base if it has one."""

    def __init__(self, folder: Path, device: Device = Device.AUTO) -> None:
        base, *above = json.loads((folder / RECIPE).read_text())["stages"]
        sampling = parse_entry(SurrogateSampling if SURROGATE in base else Sampling, base)
        entries: Entries = [sampling, *(parse_entry(Cascade, stage) for stage in above)]
        self._settings = request_defaults(entries).keys()
        start = _open_start(folder / SURROGATE, sampling, device) if isinstance(sampling, SurrogateSampling) else None
        self._parts = [
            _Part(
                prefix, entry, DiffusionModel(folder / name, entry.weights, device), start if name == "base" else None
            )
            for name, prefix, entry in zip(stage_names(entries), _prefixes(entries), entries, strict=True)
        ]

    def draw(self, labels: Labels | None, count: int, seed: int = OWN_SEEDS, **asked: str | float) -> Images:
        """Images uint8 [count, H, W, C] of the last upsampler; labels of -1, or none, go round the classes.

        As the pipeline draws them, but for what is asked by the names of `request_defaults`. UserError names a label
        or setting that the models cannot meet.
        """
        refuse_unknown(asked, self._settings)
        parts = [self._adapted(part, seed, asked) for part in self._parts]
        chosen = parts[0].model.labels(count, labels)
        images: Images | None = None
        for part in parts:
            entry, low_res = part.entry, None
            if isinstance(entry, Cascade) and images is not None:
                low_res = LowResolution(images, entry.augmentation)
            images = draw_entry(entry, part.model, count, chosen, start=part.start, low_res=low_res).images
        assert images is not None
        return images

    def _adapted(self, part: _Part, seed: int, asked: Mapping[str, str | float]) -> _Part:
        """The stage with what a request wants otherwise, checked like an entry of params.yaml."""
        keys = [key for key in ("steps", "sampler", "eta", "augmentation") if f"{part.prefix}{key}" in asked]
        changes = {key: asked[f"{part.prefix}{key}"] for key in keys} | ({} if seed == OWN_SEEDS else {"seed": seed})
        entry = adapt_entry(part.entry, changes, part.prefix)
        refuse_unfit(entry, part.model, part.start, part.prefix)
        return part._replace(entry=entry)


def _open_start(folder: Path, sampling: SurrogateSampling, device: Device) -> Start:
    surrogate: GanModel | DiffusionModel
    if open_checkpoint(folder).about["kind"] == "sngan":
        surrogate = GanModel(folder, device)
    else:
        surrogate = DiffusionModel(folder, sampling.weights, device)
    steps = None if sampling.surrogate_steps is None else str(sampling.surrogate_steps)
    return Start(surrogate, sampling.t_mid, steps, sampling.handover)
