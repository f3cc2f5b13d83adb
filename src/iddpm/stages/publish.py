"""Finished models beyond the pipeline: into the MLflow registry, and from there or from a folder into pictures."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iddpm.checks import load_params
from iddpm.diffusion import Sampler
from iddpm.errors import UserError
from iddpm.evaluation.grid import image_grid
from iddpm.params import Cascade, Sampling, SurrogateSampling
from iddpm.stages.lineage import trace
from iddpm.stages.measurements import current_evaluation, sample_entry
from iddpm.stages.models import Images, Labels
from iddpm.stages.results import gather_results
from iddpm.stages.single_model import SingleModel, served_defaults
from iddpm.tracking import Package, copy_model, predict, register, register_results
from iddpm.training.checkpoint import open_checkpoint


class Registered(NamedTuple):
    """What was done, and what could not be: lines for the user."""

    done: list[str]
    left_out: list[str]


def register_model(root: Path, model: str, name: str, alias: str, evaluation: str | None, metric: str | None) -> str:
    """Register runs/models/MODEL with the scores and protocol of an evaluation, and its lineage; its version.

    It is served with the settings of the sampling that was evaluated.
    """
    path = f"runs/models/{model}"
    checkpoint = open_checkpoint(root / path)  # a damaged model must not be published
    scored = _scored(root, model, evaluation)
    package = Package("model", partial(copy_model, checkpoint.path), served_defaults(checkpoint, scored.sampling))
    lineage = trace(root, {"model": (path, checkpoint)})
    return str(register(package, name, alias, scored.scores, scored.protocol, lineage, root, metric).version)


def register_everything(root: Path, name: str) -> Registered:
    """Register every finished model and cascade with all its scores as versions of `name`.

    UserError when there is nothing to register; what is missing or outdated is left out and told.
    """
    results, problems, unfinished = gather_results(root)
    if not results:
        raise UserError("\n".join(problems) or "params.yaml: no models, which could be registered")
    return Registered(register_results(results, name, root, unfinished), problems)


class _Scored(NamedTuple):
    """Scores of a model, and the part of the protocol that two models must share to be compared.

    `sampling` is what was scored, where the model made it alone.
    """

    scores: dict[str, float]
    protocol: dict[str, Any]
    sampling: Sampling | None


def _scored(root: Path, model: str, evaluation: str | None) -> _Scored:
    """Of a cascade they are its upsampler's; the protocol names the samples that it was given."""
    if evaluation is None:
        return _Scored({}, {}, None)
    params = load_params(root / "params.yaml")
    if evaluation not in params.evaluations:
        raise UserError(f"--evaluation {evaluation}: not in evaluations ({', '.join(params.evaluations)})")
    entry = sample_entry(params, params.evaluations[evaluation].samples)
    scored = entry.upsampler if isinstance(entry, Cascade) else entry.model
    if scored != model:
        raise UserError(f"--evaluation {evaluation}: scores model {scored}, not {model}")
    if isinstance(entry, Sampling) and entry.checkpoint is not None:
        raise UserError(f"--evaluation {evaluation}: scores a snapshot of {model}, not the finished model")
    evaluated = current_evaluation(root, params, evaluation)
    made_by = evaluated.about["samples"]["params"]
    shared = dict(evaluated.about["protocol"])
    shared["sampling"] = {
        key: value for key, value in made_by.items() if key not in ("model", "upsampler", "surrogate")
    }
    return _Scored(evaluated.scores, shared, None if isinstance(entry, Cascade | SurrogateSampling) else entry)


def draw_to_file(
    root: Path,
    model: str,
    out: Path,
    count: int,
    label: int | None,
    asked: Mapping[str, str | int | float],
) -> None:
    """Draw from a model folder, or from the registry when `model` is models:/NAME@ALIAS.

    `asked` has those of steps, sampler, eta and seed that the model's own shall not be. A folder is drawn from on the
    device of params.yaml; a model of the registry chooses its device itself.
    """
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"{out}: name a .png picture or an .npz file of samples")
    labels = None if label is None else np.full(count, label, dtype=np.int64)
    if asked.get("sampler") == Sampler.ANCESTRAL:
        asked = {"eta": 0.0} | dict(asked)  # what belongs to the model's own ddim goes with it
    if model.startswith("models:/"):
        images = _draw_registered(root, model, labels, count, asked)
    else:
        device = load_params(root / "params.yaml").compute.device
        images = SingleModel(Path(model), device).draw(labels, count, **asked)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        np.savez(out, arr_0=images)
    else:
        image_grid(images, out)


def _draw_registered(
    root: Path, model: str, labels: Labels | None, count: int, asked: Mapping[str, str | int | float]
) -> Images:
    import pandas as pd

    rows = pd.DataFrame({"label": np.full(count, -1, dtype=np.int64) if labels is None else labels})
    images: Images = predict(model, rows, asked, root)
    return images
