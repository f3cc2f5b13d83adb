"""Publishing a finished model: weights and code without pickle, a scored version, a guarded alias."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
REQUIREMENTS = ("torch", "numpy", "safetensors", "pydantic", "webdataset", "ruamel.yaml")
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
}


def register(
    model_dir: Path,
    name: str,
    alias: str,
    scores: Mapping[str, float],
    protocol: Mapping[str, Any],
    lineage: Mapping[str, str],
    root: Path,
    metric: str | None,
    served_model: Path = SERVED_MODEL,
) -> "ModelVersion":
    """Publish the model in `model_dir` as a new version of `name`, and give it `alias` if it deserves it.

    An alias that another version holds moves only if `metric`, measured with an equal `protocol`, is better.
    Otherwise UserError says why; the new version then stays registered without the alias.
    """
    if not model_dir.is_dir():
        raise UserError(f"{model_dir}: no finished model is there")
    if metric is not None and metric not in HIGHER_IS_BETTER:
        raise UserError(f"metric {metric}: choose one of {', '.join(HIGHER_IS_BETTER)}")
    if metric is not None and metric not in scores:
        raise UserError(f"metric {metric}: the model is scored by {', '.join(scores) or 'nothing'} only")
    with _mlflow_errors_as_user_errors(root):
        version = _publish(model_dir, name, scores, protocol, lineage, root, served_model)
        with tracking_lock(root):
            client, _ = connect(root)
            _promote(client, version, alias, scores, protocol, metric)
            return client.get_model_version(name, version.version)


def load(name_or_uri: str, root: Path) -> "PyFuncModel":
    """The model `NAME@ALIAS`, `NAME/VERSION` or `NAME` (its champion); a leading `models:/` is allowed."""
    name, _, version = name_or_uri.removeprefix("models:/").partition("/")
    name, _, alias = name.partition("@")
    with _mlflow_errors_as_user_errors(root):
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
    with _mlflow_errors_as_user_errors(root):
        return model.predict(rows, params=dict(params))


@contextmanager
def _mlflow_errors_as_user_errors(root: Path) -> Iterator[None]:
    prepare_environment()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{shown_uri(root)}: {short_reason(error)}") from error


def _publish(
    model_dir: Path,
    name: str,
    scores: Mapping[str, float],
    protocol: Mapping[str, Any],
    lineage: Mapping[str, str],
    root: Path,
    served_model: Path,
) -> "ModelVersion":
    """A run that holds the model's files, and a registered version that points to it."""
    with tracking_lock(root):
        client, experiment = connect(root)
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "model"
        _save(files, model_dir, served_model)
        run = client.create_run(experiment, tags=dict(lineage), run_name=f"register {name}").info
        client.log_artifacts(run.run_id, str(files), "model")
    for score, value in scores.items():
        client.log_metric(run.run_id, score, value)
    client.set_terminated(run.run_id)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {**lineage, **{f"score.{score}": repr(value) for score, value in scores.items()}}
    tags["protocol"] = json.dumps(protocol, sort_keys=True)
    return client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id, tags)


def _save(path: Path, model_dir: Path, served_model: Path) -> None:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    params = {"steps": "100", "sampler": "ancestral", "seed": 0, "eta": 0.0}
    types = {"steps": "string", "sampler": "string", "seed": "long", "eta": "double"}
    signature = ModelSignature(
        inputs=Schema([ColSpec("long", "label")]),
        params=ParamSchema([ParamSpec(key, types[key], default) for key, default in params.items()]),
    )
    save_model(
        path,
        python_model=str(served_model),
        artifacts={"model": str(model_dir)},
        code_paths=[str(Path(iddpm.__file__).parent)],
        signature=signature,
        input_example=(pd.DataFrame({"label": [-1, -1]}), params),
        pip_requirements=[f"{name}=={_index_version(name)}" for name in REQUIREMENTS],
    )


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
