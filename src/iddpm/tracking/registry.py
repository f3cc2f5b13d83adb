"""Publishing a finished model: weights and code without pickle, a scored version, a guarded alias."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import iddpm
from iddpm.errors import UserError
from iddpm.tracking.connection import (
    connect,
    prepare_environment,
    short_reason,
    shown_uri,
    tracking_lock,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

SERVED_MODEL = Path(__file__).with_name("served_model.py")
REQUIREMENTS = (
    "torch", "numpy", "scipy", "safetensors", "pydantic", "pydantic_core", "webdataset", "Pillow",
    "ruamel.yaml", "PyYAML", "filelock", "psutil",
)  # fmt: skip
"""Of the served code, as imported for drawing; pandas comes with mlflow."""

HIGHER_IS_BETTER = {
    "frechet_distance": False,
    "frechet_distance_infinity": False,
    "kid": False,
    "bits_per_dim": False,
    "label_accuracy": True,
    "precision": True,
    "recall": True,
    "coverage": True,
    "copies": False,
    "inception_score": True,
    "psnr": True,
    "ssim": True,
}

MANIFEST = "manifest.json"
RUNS_ASKED = 50
"""At most, for the one that made a part."""

Kind = Literal["model", "cascade"]
Defaults = Mapping[str, str | int | float]
"""The parameters that `predict` takes, and what they are where a request leaves them out."""

_NAME = r"[\w-]([\w. -]{0,198}[\w-])?"  # what every store, a search by it and models:/NAME can take
_ALIAS = r"(?!(?i:latest|v\d+)$)[\w-]{1,255}"  # as MLflow has it


@dataclass(frozen=True)
class Package:
    """What is served: `write` makes the folder with its weights, which the served code finds under its kind."""

    kind: Kind
    write: Callable[[Path], object]
    defaults: Defaults
    served_model: Path = SERVED_MODEL


@dataclass(frozen=True)
class Lineage:
    """Where a version comes from: its tags, and part -> what made it.

    That is a stage such as train@digits and the sha256 of the manifest it left, by which its run is found.
    """

    tags: Mapping[str, str]
    made_by: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def register(
    package: Package,
    name: str,
    alias: str,
    scores: Mapping[str, float],
    protocol: Mapping[str, Any],
    lineage: Lineage,
    root: Path,
    metric: str | None,
) -> "ModelVersion":
    """Publish a model as a new version of `name`, and give it `alias` if it deserves it.

    An alias that another version holds moves only if `metric`, measured with an equal `protocol`, is better.
    Otherwise UserError says why; the new version then stays registered without the alias.
    """
    refuse_name(name)
    if not re.fullmatch(_ALIAS, alias):
        raise UserError(f"alias {alias!r}: take letters, digits, _ and -, and neither 'latest' nor 'v1'")
    if metric is not None and metric not in HIGHER_IS_BETTER:
        raise UserError(f"metric {metric}: choose one of {', '.join(HIGHER_IS_BETTER)}")
    if metric is not None and metric not in scores:
        raise UserError(f"metric {metric}: the model is scored by {', '.join(scores) or 'nothing'} only")
    with mlflow_errors_as_user_errors(root):
        tags = {f"score.{score}": repr(value) for score, value in scores.items()}
        tags["protocol"] = json.dumps(protocol, sort_keys=True)
        version = publish(package, name, scores, lineage, tags, root)
        with tracking_lock(root):
            client, _ = connect(root)
            _promote(client, version, alias, scores, protocol, metric)
            return client.get_model_version(name, version.version)


def refuse_name(name: str) -> None:
    """UserError for one that a registered model cannot have."""
    if not re.fullmatch(_NAME, name):
        raise UserError(
            f"registered model {name!r}: take at most 200 letters, digits, '_', '-', '.' and spaces, the last two "
            "not first or last"
        )


def load(name_or_uri: str, root: Path) -> "PyFuncModel":
    """The model `NAME@ALIAS`, `NAME/VERSION` or `NAME` (its champion); a leading `models:/` is allowed."""
    name, _, version = name_or_uri.removeprefix("models:/").partition("/")
    name, _, alias = name.partition("@")
    with mlflow_errors_as_user_errors(root):
        with tracking_lock(root):
            client, _ = connect(root)
        from mlflow.artifacts import download_artifacts
        from mlflow.pyfunc import load_model

        version = version or client.get_model_version_by_alias(name, alias or "champion").version
        source = client.get_model_version_download_uri(name, version)
        path = download_artifacts(artifact_uri=source, tracking_uri=tracking_uri(root))
        model: PyFuncModel = load_model(path)
        return model


def predict(name_or_uri: str, rows: Any, params: Mapping[str, Any], root: Path) -> Any:
    """What the registered model answers to a table; UserError when it refuses the request."""
    model = load(name_or_uri, root)
    with mlflow_errors_as_user_errors(root):
        return model.predict(rows, params=dict(params))


def copy_model(folder: Path, to: Path) -> None:
    """A finished model as it is published: without the snapshots of its training; linked where it can be."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("snapshots"), copy_function=_link_or_copy)


def _link_or_copy(source: str, to: str) -> None:
    try:
        os.link(os.path.realpath(source), to)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, to)


@contextmanager
def mlflow_errors_as_user_errors(root: Path) -> Iterator[None]:
    prepare_environment()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{shown_uri(root)}: {short_reason(error)}") from error


def publish(
    package: Package,
    name: str,
    metrics: Mapping[str, float],
    lineage: Lineage,
    tags: Mapping[str, str],
    root: Path,
) -> "ModelVersion":
    """A run that holds files and metrics, and a registered version that points to it; both have the lineage."""
    with tracking_lock(root):
        client, experiment = connect(root)
    with tempfile.TemporaryDirectory(prefix="register-", dir=root / "work") as scratch:
        saved = Path(scratch) / "saved"
        _save(saved, package)
        origin = {**lineage.tags, **_run_ids(client, experiment, lineage.made_by, scratch)}
        run = client.create_run(experiment, tags=origin, run_name=f"register {name}").info
        client.log_artifacts(run.run_id, str(saved), "model")
    for metric, value in metrics.items():
        client.log_metric(run.run_id, metric, value)
    client.set_terminated(run.run_id)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id, {**origin, **tags})


def _run_ids(
    client: "MlflowClient", experiment: str, made_by: Mapping[str, tuple[str, str]], scratch: str
) -> dict[str, str]:
    """PART_run_id: the newest run of the stage that left this very manifest; none where MLflow has no such run."""
    found = {}
    for part, (address, manifest_sha256) in made_by.items():
        finished = f"attributes.run_name = '{address}' and attributes.status = 'FINISHED'"
        newest_first = ["attributes.start_time DESC"]
        for run in client.search_runs([experiment], finished, max_results=RUNS_ASKED, order_by=newest_first):
            files = [file.path for file in client.list_artifacts(run.info.run_id)]
            if MANIFEST in files:
                manifest = Path(client.download_artifacts(run.info.run_id, MANIFEST, scratch))
                if hashlib.sha256(manifest.read_bytes()).hexdigest() == manifest_sha256:
                    found[f"{part}_run_id"] = run.info.run_id
                    break
    return found


def _save(path: Path, package: Package) -> None:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.utils.file_utils import get_total_file_size

    types: dict[type, str] = {str: "string", bool: "boolean", int: "long", float: "double"}
    params = dict(package.defaults)
    signature = ModelSignature(
        inputs=Schema([ColSpec("long", "label")]),
        params=ParamSchema([ParamSpec(key, types[type(default)], default) for key, default in params.items()]),
    )
    weights = path.with_name(package.kind)
    weights.mkdir()  # empty: MLflow would copy what is in it through the system's folder for temporary files
    save_model(
        path,
        python_model=str(package.served_model),
        artifacts={package.kind: str(weights)},
        code_paths=[str(Path(iddpm.__file__).parent)],
        signature=signature,
        input_example=(pd.DataFrame({"label": [-1, -1]}), params),
        pip_requirements=[f"{name}=={_index_version(name)}" for name in REQUIREMENTS],
    )
    served = path / "artifacts" / package.kind
    served.rmdir()
    package.write(served)
    described = Model.load(str(path))
    described.model_size_bytes = get_total_file_size(path)
    described.save(str(path / "MLmodel"))


def _index_version(package: str) -> str:
    """The installed version without a build's suffix (torch 2.13.0+cpu), which no package index knows."""
    return installed_version(package).split("+")[0]


def _promote(
    client: "MlflowClient",
    new: "ModelVersion",
    alias: str,
    scores: Mapping[str, float],
    protocol: Mapping[str, Any],
    metric: str | None,
) -> None:
    holder = client.get_registered_model(new.name).aliases.get(alias)
    if holder is not None:
        old = client.get_model_version(new.name, holder)
        if objection := _objection(old, scores, protocol, metric):
            raise UserError(
                f"{new.name}@{alias} stays version {old.version}: {objection}; "
                f"version {new.version} is registered without the alias"
            )
    client.set_registered_model_alias(new.name, alias, new.version)


def _objection(
    old: "ModelVersion", scores: Mapping[str, float], protocol: Mapping[str, Any], metric: str | None
) -> str | None:
    """Why a model with these scores must not take the alias from version `old`."""
    if metric is None:
        return f"name the metric that decides ({', '.join(HIGHER_IS_BETTER)})"
    theirs, ours = json.loads(old.tags.get("protocol", "{}")), json.loads(json.dumps(protocol))
    if differing := [key for key in sorted(theirs | ours) if theirs.get(key) != ours.get(key)]:
        pairs = (f"{key} {theirs.get(key)} there, {ours.get(key)} here" for key in differing)
        return f"they were measured differently ({'; '.join(pairs)})"
    if f"score.{metric}" not in old.tags:
        return f"it has no {metric}"
    old_score, new_score = float(old.tags[f"score.{metric}"]), scores[metric]
    higher = HIGHER_IS_BETTER[metric]
    if new_score > old_score if higher else new_score < old_score:
        return None
    wish = "higher" if higher else "lower"
    return f"its {metric} {old_score:g} is as good as or better than {new_score:g} ({wish} is better)"
