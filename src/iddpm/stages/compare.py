"""Scores side by side, when they were measured alike."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from iddpm.errors import UserError
from iddpm.stages.context import fingerprint, flatten
from iddpm.stages.evaluate import PROTOCOL, SCORES
from iddpm.stages.evaluated import (
    Evaluated,
    Json,
    all_but_sampling_seeds,
    all_but_seeds,
    chain,
    sampling_seeds,
    training_seeds,
    trainings,
)
from iddpm.stages.seeds import SPREADS, means_over_seeds, told_apart
from iddpm.tracking import HIGHER_IS_BETTER

MODELS = "runs/models/"
MODEL_KEY = re.compile(rf"(samples\.)*(model|upsampler|inputs\.{MODELS}.*)")
"""Of what made samples, in a cascade at any stage: what tells of trained models alone."""


class _Part(BaseModel):
    """Of protocol.json: what is read of it here, whatever else it holds."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Images(_Part):
    images: int


class _Shared(_Images):
    reference: _Images


class _Sampling(_Part):
    seed: int | None = None


class _Made(_Part):
    params: _Sampling = _Sampling()
    inputs: dict[str, Any] = {}
    base: "_Made | None" = None


class _About(_Part):
    protocol: _Shared
    distance: str
    samples: _Made
    samples_sha256: str
    intervals: dict[str, tuple[float, float]]


class _Checkpoint(_Part):
    """Likewise of checkpoint.json."""

    kind: str
    params: dict[str, Any]


class _Scores(RootModel[dict[str, float]]):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def compare(root: Path, first: str, second: str, seeds: bool = False) -> str:
    """A table of two evaluations, each a name, the folder of an `iddpm evaluate`, or several with commas between.

    Several are sampling seeds of one thing: they may differ in their seed alone, and stand as their mean; with
    `seeds` so do those of several trainings, and samples that do not tell how they were made. Trainings whose
    models are still there must differ in their seed alone, too; below the table stand the evaluations of which that
    is not known, and why. Brackets are 95 % intervals: of one set of samples as protocol.json has them, of a mean
    over seeds Student's t, by the spread of both sides where they are means of one kind. The second is better or
    worse where they do not overlap, of means over the same seeds by the differences seed by seed. UserError says in
    which keys the protocols differ.
    """
    sides = [[read_evaluation(root, name) for name in _names(side)] for side in (first, second)]
    untold = {name: why for group in sides for name, why in _refuse_other_samples(root, group, seeds).items()}
    everyone = [evaluated for group in sides for evaluated in group]
    for other in everyone[1:]:
        refuse_other_protocol(everyone[0], other)
    one, two = means_over_seeds([(side[0].name, side) for side in sides], lambda one: _training_seeds(root, one))
    shared = [name for name in one.scores if name in two.scores]
    rows = [("", first, second, "difference")]
    rows += [_row(name, one, two) for name in shared]
    about = everyone[0].about
    against = f"{about['protocol']['images']} images against {about['protocol']['reference']['images']}"
    lines = [f"{against}, distance: {about['distance']}.", *_legend(one, two), "", *_aligned(rows)]
    return "\n".join(lines + _left_out(everyone, shared) + _at_your_word(untold))


def _names(side: str) -> list[str]:
    names = [name.strip() for name in side.split(",")]
    if not all(names):
        raise UserError(f"{side}: a name is missing at a comma; several evaluations are written A0,A1,A2")
    return names


def read_evaluation(root: Path, name: str) -> Evaluated:
    """An evaluation of the pipeline at `root`, one in the folder of another project, or one of `iddpm evaluate`."""
    folder = _folder(root, name)
    scores = folder / SCORES
    if not scores.is_file():  # the pipeline's lie in runs/metrics of the folder's own project
        scores = folder.parent.parent / "metrics" / f"{folder.name}.json"
    try:
        return Evaluated(name, _read(scores, _Scores), _read(folder / PROTOCOL, _About))
    except FileNotFoundError as error:
        raise UserError(
            f"{name}: no evaluation ({error.filename} is missing); name one that has run, or a folder that iddpm "
            "evaluate wrote"
        ) from None


def _folder(root: Path, name: str) -> Path:
    folder = Path(name) if (Path(name) / PROTOCOL).is_file() else root / "runs" / "evaluations" / name
    return folder.resolve()


def _read(path: Path, form: type[BaseModel], mend: str = "evaluate again") -> dict[str, Any]:
    """A JSON file of this form, as it is; UserError names it when it is of another."""
    content = path.read_bytes()
    try:
        form.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UserError(f"{path}: damaged ({where + ': ' if where else ''}{problem['msg']}); {mend}") from None
    found: dict[str, Any] = json.loads(content)
    return found


def refuse_other_protocol(one: Evaluated, other: Evaluated) -> None:
    """UserError with a line for each key in which two protocols differ."""
    ours, theirs = one.protocol, other.protocol
    differing = [key for key in sorted(ours | theirs) if ours.get(key) != theirs.get(key)]
    if differing:
        lines = [f"  {key}: {_shown(ours.get(key))} and {_shown(theirs.get(key))}" for key in differing]
        raise UserError("\n".join([f"{one.name} and {other.name} were measured differently:", *lines]))


def _refuse_other_samples(root: Path, group: Sequence[Evaluated], seeds: bool) -> dict[str, str]:
    """Members of one side are samplings, or with `seeds` trainings, that differ in their seed alone, as far as known.

    What trained a model is known where it was trained here and still lies in runs/models; returned are the names of
    those of which it is not known, and why.
    """
    if len(group) < 2:
        return {}
    names = ",".join(evaluated.name for evaluated in group)
    if not group[0].sampling and not seeds:
        raise UserError(
            f"{group[0].name}: does not say how its samples were made; if {names} are seeds of one sampling, say so "
            "by --seeds"
        )
    _refuse_differing([(one, all_but_sampling_seeds(one.made)) for one in group], other_models=seeds)
    untold = {}
    if seeds and (not group[0].sampling or len({trainings(one.made) for one in group}) > 1):
        models = [(one, _trained_models(root, one)) for one in group]
        known = [(one, all_but_seeds(one.made, found)) for one, found in models if not isinstance(found, str)]
        _refuse_differing(known, other_models=False)
        untold = {one.name: found for one, found in models if isinstance(found, str)}
    if len({evaluated.about["samples_sha256"] for evaluated in group}) < len(group):
        raise UserError(f"{names}: the same images twice")
    if group[0].sampling and len({(trainings(one.made), *sampling_seeds(one.made)) for one in group}) < len(group):
        raise UserError(f"{names}: the same seed twice")
    return untold


def _refuse_differing(made_by: Sequence[tuple[Evaluated, Json]], other_models: bool) -> None:
    """UserError names the first key of what made two samples that differs, unless it is of models and may."""
    flat = [(one, flatten(made)) for one, made in made_by]
    for other, theirs in flat[1:]:
        one, ours = flat[0]
        differing = [key for key in sorted(ours | theirs) if ours.get(key) != theirs.get(key)]
        trained = all(MODEL_KEY.fullmatch(key) for key in differing)
        if differing and not (trained and other_models):
            key = differing[0]
            hint = "; if they are of trainings that differ in their seed alone, say so by --seeds" if trained else ""
            raise UserError(
                f"{one.name},{other.name}: not seeds of one sampling: {key} is {_shown(ours.get(key))} and "
                f"{_shown(theirs.get(key))}{hint}"
            )


def _training_seeds(root: Path, one: Evaluated) -> list[Any] | None:
    found = _trained_models(root, one)
    return None if isinstance(found, str) else training_seeds(one.made, found)


def _trained_models(root: Path, one: Evaluated) -> dict[str, Json] | str:
    """checkpoint.json of every model that drew the samples, by name; or why it is not known what trained them."""
    stages = chain(one.made)
    wanted = [(path, of) for stage in stages for path, of in stage.get("inputs", {}).items() if path.startswith(MODELS)]
    found: dict[str, Json] = {}
    for path, sha256 in wanted:
        folders = [project / path for project in (_folder(root, one.name).parents[2], root)]
        folder = next((each for each in folders if each.is_dir() and fingerprint(each) == sha256), None)
        if folder is None:
            return f"{path} is gone or no longer what it was"
        about = _read(folder / "checkpoint.json", _Checkpoint, "train again")
        found[path.split("/")[2]] = about
        if about["kind"] == "mixture":
            wanted += [(MODELS + about["params"][part], of) for part, of in about["parts_sha256"].items()]
        elif not about["params"].get("training"):
            return f"{path} was not trained here"
    needed = {stage.get("params", {}).get(key) for stage in stages for key in ("model", "upsampler")} - {None}
    return found if needed and needed <= found.keys() else "its samples do not tell how they were made"


def _legend(one: Evaluated, two: Evaluated) -> list[str]:
    lines = ["In brackets 95 % intervals; the bias of a distance of finitely many images is not in them."]
    if one.seeds or two.seeds:
        lines.insert(0, "Of several seeds: the mean, and sd, their standard deviation.")
    if one.beside_shift:
        lines.append("Nor is what the common seeds do to both sides alike: the brackets are for the difference only.")
        return [*lines, "Better or worse: by the differences seed by seed."]
    if one.spreads and all(two.spreads.get(score) == spread for score, spread in one.spreads.items()):
        lines.append("Those of means are by the standard deviations of both sides, taken as independent.")
    elif one.seeds or two.seeds:
        lines.append("Those of a mean are by the standard deviation of its own seeds.")
    return [*lines, "Better or worse: where the intervals do not overlap."]


def _row(name: str, one: Evaluated, two: Evaluated) -> tuple[str, str, str, str]:
    shown = [_value(side, name) for side in (one, two)]
    difference, apart, verdict = two.scores[name] - one.scores[name], told_apart(one, two, name), ""
    if apart is False:
        verdict = " not told apart"
    elif apart and name in HIGHER_IS_BETTER:
        verdict = " better" if (difference > 0) == HIGHER_IS_BETTER[name] else " worse"
    return name, shown[0], shown[1], f"{difference:+.4g}{verdict}"


def _value(side: Evaluated, name: str) -> str:
    parts = [f"{side.scores[name]:.4g}"]
    if name in side.deviations:
        parts.append(f"sd {side.deviations[name]:.2g}")
    if interval := side.intervals.get(name):
        parts.append(f"[{interval[0]:.4g}, {interval[1]:.4g}]")
    return " ".join(parts)


def _left_out(everyone: Sequence[Evaluated], shared: Sequence[str]) -> list[str]:
    others = sorted({name for evaluated in everyone for name in evaluated.scores} - {*shared, *SPREADS})
    return ["", f"not scored on both sides: {', '.join(others)}"] if others else []


def _at_your_word(untold: Mapping[str, str]) -> list[str]:
    lines = [f"taken as a seed at your word: {name}, since {why}" for name, why in untold.items()]
    return ["", *lines] if lines else []


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
