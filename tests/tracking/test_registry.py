"""Published models: loadable by alias, free of pickle, and an alias that only a better model takes over."""

import hashlib
import json
import sys
import tempfile
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from iddpm.errors import UserError
from iddpm.tracking import Lineage, Package, copy_model, deliver, load, register, tracking_uri
from tests.tracking.conftest import (
    all_runs,
    append_row,
    child_environment,
    curve,
    mlflow_process,
    record,
    stage_run,
)

STAND_IN = Path(__file__).with_name("stand_in_model.py")
DEFAULTS = {"steps": "100", "sampler": "ancestral", "eta": 0.0, "clip": True, "seed": 0}
PROTOCOL = {"samples": 1000, "sampler": "ancestral", "features": {"name": "raw", "size": 64}}

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One project for all tests of this module; each publishes under a name of its own."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield tmp_path_factory.mktemp("registry") / "my project"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """The model that the stand-in draws with: it knows the size of an image and nothing else."""
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    (model_dir / "checkpoint.json").write_text('{"size": 4}')
    return model_dir


def package(model_dir: Path, **changes: Any) -> Package:
    return Package("model", partial(copy_model, model_dir), DEFAULTS, **changes)


def stand_in(model_dir: Path) -> Package:
    return package(model_dir, served_model=STAND_IN)


def publish(
    root: Path,
    model_dir: Path,
    name: str,
    scores: dict[str, float],
    metric: str | None = "kid",
    protocol: dict[str, Any] = PROTOCOL,
) -> str:
    lineage = Lineage({"git commit": "abc", "dvc.lock": "123"})
    version = register(stand_in(model_dir), name, "champion", scores, protocol, lineage, root, metric)
    return str(version.version)


def champion(root: Path, name: str) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri(root))
    return str(client.get_model_version_by_alias(name, "champion").version)


def draw(root: Path, reference: str, **params: Any) -> Any:
    return load(reference, root).predict(pd.DataFrame({"label": [3, -1]}), params=params)


def test_a_published_model_is_loaded_by_alias_and_draws(root: Path, model_dir: Path) -> None:
    assert publish(root, model_dir, "draws", {"kid": 0.5}) == "1"
    images = draw(root, "draws", seed=7)
    assert images.dtype == np.uint8 and images.shape == (2, 4, 4, 1)
    for reference in ("draws@champion", "models:/draws@champion", "models:/draws/1"):
        assert (draw(root, reference, seed=7) == images).all()
    assert (draw(root, "draws", seed=8) != images).any()
    with pytest.raises(MlflowException, match=r"steps.*25\.5"):
        draw(root, "draws", steps=25.5)


def test_nothing_published_is_pickled(tmp_path: Path, model_dir: Path) -> None:
    alone = tmp_path / "project"  # where a model was loaded, Python keeps its bytecode beside it
    publish(alone, model_dir, "files", {"kid": 0.5})
    files = [path for path in (alone / "mlruns").rglob("*") if path.is_file()]
    assert {"MLmodel", "stand_in_model.py", "errors.py", "checkpoint.json"} <= {path.name for path in files}
    texts = {".py", ".json", ".yaml", ".txt", ".typed", ".html", ".css", ".md"}  # the report's templates among them
    assert {path.suffix for path in files} <= {"", *texts}
    assert not [path for path in files if path.read_bytes().startswith(b"\x80")]  # pickle's first byte
    requirements = next(path for path in files if path.name == "requirements.txt").read_text()
    assert "torch==" in requirements and "+" not in requirements


def test_a_version_tells_its_scores_protocol_and_lineage(root: Path, model_dir: Path) -> None:
    scores, lineage = {"kid": 0.1}, Lineage({"git": "abc"})
    version = register(stand_in(model_dir), "tags", "champion", scores, PROTOCOL, lineage, root, None)
    assert version.tags["score.kid"] == "0.1" and version.tags["git"] == "abc"
    assert json.loads(version.tags["protocol"]) == PROTOCOL
    assert version.aliases == ["champion"]


def test_a_version_names_the_run_that_made_its_model(root: Path, model_dir: Path) -> None:
    """The newest that left these very weights: neither another's, nor one that MLflow does not have."""

    def made(content: str) -> tuple[str, str]:
        (model_dir / "manifest.json").write_text(content)
        run_dir, running = root / "work" / "train" / content, record(name="traced")
        running.ended("FINISHED", {}, ((str(model_dir / "manifest.json"), ""),)).write(run_dir)
        deliver(run_dir, root)
        (run,) = [run for run in all_runs(root) if run.data.tags.get("iddpm.run_key") == running.key]
        return run.info.run_id, hashlib.sha256(content.encode()).hexdigest()

    first, sha256 = made("first")
    made("second")
    made_by = {"base": ("train@traced", sha256), "upsampler": ("train@traced", "0" * 64), "surrogate": ("x@y", sha256)}
    version = register(stand_in(model_dir), "traced", "champion", {}, {}, Lineage({}, made_by), root, None)
    assert {key: value for key, value in version.tags.items() if key.endswith("run_id")} == {"base_run_id": first}


def test_weights_are_copied_once_and_not_through_the_systems_folder(
    root: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the store; before that they are links in the project."""
    elsewhere = model_dir.with_name("system")
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    weights = model_dir / "ema.safetensors"
    weights.write_bytes(b"weights")
    seen = []

    def write(to: Path) -> None:
        copy_model(model_dir, to)
        seen.append((to, weights.stat().st_nlink, list(elsewhere.rglob("*.safetensors"))))

    linked = Package("model", write, DEFAULTS, STAND_IN)
    version = register(linked, "copied", "champion", {}, {}, Lineage({}), root, None)
    ((to, links, strays),) = seen
    assert to.is_relative_to(root / "work") and not to.exists() and links == 2 and not strays
    (stored,) = (root / "mlruns" / version.run_id).rglob("ema.safetensors")
    assert stored.read_bytes() == b"weights" and stored.stat().st_nlink == 1 == weights.stat().st_nlink
    assert load("copied", root).metadata.model_size_bytes > 7


@pytest.mark.parametrize(
    ("metric", "old", "new", "moves"),
    [
        ("kid", 0.5, 0.4, True),
        ("kid", 0.5, 0.5, False),
        ("recall", 0.5, 0.6, True),
        ("recall", 0.5, 0.4, False),
    ],
)
def test_only_a_better_model_takes_the_alias(
    root: Path, model_dir: Path, metric: str, old: float, new: float, moves: bool
) -> None:
    name = f"better-{metric}-{moves}"
    publish(root, model_dir, name, {metric: old}, metric)
    if moves:
        publish(root, model_dir, name, {metric: new}, metric)
    else:
        refusal = rf"stays version 1: its {metric} 0.5 is as good as or better.*version 2 is registered"
        with pytest.raises(UserError, match=refusal):
            publish(root, model_dir, name, {metric: new}, metric)
    assert champion(root, name) == ("2" if moves else "1")
    assert load(f"{name}/2", root)


def test_scores_of_different_protocols_are_not_compared(root: Path, model_dir: Path) -> None:
    publish(root, model_dir, "protocols", {"kid": 0.5})
    with pytest.raises(UserError, match=r"differently \(samples 1000 there, 50 here\)"):
        publish(root, model_dir, "protocols", {"kid": 0.1}, protocol={**PROTOCOL, "samples": 50})
    with pytest.raises(UserError, match=r"it has no frechet_distance"):
        publish(root, model_dir, "protocols", {"frechet_distance": 1.0}, "frechet_distance")
    with pytest.raises(UserError, match=r"name the metric that decides"):
        publish(root, model_dir, "protocols", {"kid": 0.1}, None)
    assert champion(root, "protocols") == "1"


def test_impossible_requests_are_refused_before_anything_is_published(root: Path, model_dir: Path) -> None:
    with pytest.raises(UserError, match="metric loss: choose one of frechet_distance"):
        publish(root, model_dir, "refused", {"loss": 1.0}, "loss")
    with pytest.raises(UserError, match="scored by kid only"):
        publish(root, model_dir, "refused", {"kid": 1.0}, "frechet_distance")
    for name in ("a/b", "o'brien", "a:b", "a@b", " a", "..", "", "x" * 201):
        with pytest.raises(UserError, match=rf"^registered model {name!r}: take at most 200 letters") as error:
            publish(root, model_dir, name, {"kid": 1.0})
        assert len(str(error.value).splitlines()) == 1
    for alias in ("a/b", "latest", "v1", ""):
        with pytest.raises(UserError, match=rf"^alias '{alias}': "):
            register(stand_in(model_dir), "refused", alias, {}, {}, Lineage({}), root, None)
    assert "register refused" not in {run.info.run_name for run in all_runs(root)}
    with pytest.raises(UserError, match="refused"):
        load("refused", root)


def test_the_served_model_asks_for_the_images_of_each_row(
    root: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    class SingleModel:
        def __init__(self, folder: Path) -> None:
            self.name = folder.name

        def draw(self, labels: Any, count: int, sampler: str, **settings: Any) -> Any:
            listed = None if labels is None else labels.tolist()
            asked.append((self.name, listed, count, sampler, settings))
            if sampler == "euler":
                raise UserError("sampler euler: choose ancestral or ddim")
            return np.zeros((count, 1, 1, 1), np.uint8)

    module = ModuleType("iddpm.stages.single_model")
    module.SingleModel = SingleModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    register(package(model_dir), "served", "champion", {}, PROTOCOL, Lineage({}), root, None)
    model = load("served", root)
    assert model.predict(pd.DataFrame({"label": [3, -1]})).shape == (2, 1, 1, 1)
    changes = {"steps": "25", "seed": 5, "eta": 0.5, "clip": False}
    model.predict(pd.DataFrame({"label": [-1] * 3}), params={"sampler": "ddim"} | changes)
    own = {key: value for key, value in DEFAULTS.items() if key != "sampler"}
    assert asked == [("model", [3, -1], 2, "ancestral", own), ("model", None, 3, "ddim", changes)]
    with pytest.raises(MlflowException, match="choose ancestral or ddim") as refusal:
        model.predict(pd.DataFrame({"label": [1]}), params={"sampler": "euler"})
    assert refusal.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match=r"missing inputs.*label"):
        model.predict(pd.DataFrame(index=range(3)))


def test_the_real_served_model_names_a_damaged_model(root: Path, model_dir: Path) -> None:
    register(package(model_dir), "real", "champion", {}, PROTOCOL, Lineage({}), root, None)
    with pytest.raises(UserError, match="no checkpoint here"):
        load("real", root)


def test_mlflow_serves_a_published_model(root: Path, model_dir: Path, tmp_path: Path) -> None:
    publish(root, model_dir, "http", {"kid": 0.5})
    environment = child_environment(MLFLOW_TRACKING_URI=tracking_uri(root))
    del environment["PYTHONPATH"]  # the server finds our code with the model
    serve = ("models", "serve", "-m", "models:/http@champion", "--env-manager", "local")
    with mlflow_process(*serve, health="ping", cwd=tmp_path, environment=environment) as address:
        images = invoke(address, {"dataframe_records": [{"label": 3}, {"label": -1}], "params": {"seed": 7}})
        assert (np.array(images["predictions"]) == draw(root, "http", seed=7)).all()
        with pytest.raises(urllib.error.HTTPError, match="400"):
            invoke(address, {"dataframe_records": [{}, {}]})


def test_a_tracking_server_holds_runs_and_models(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = ("--backend-store-uri", f"sqlite:///{tmp_path}/server.db")
    files = ("--artifacts-destination", str(tmp_path / "artifacts"))
    server = ("server", "--workers", "1", *runs, *files)
    environment = child_environment()
    with mlflow_process(*server, health="health", cwd=tmp_path, environment=environment) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        project, run_dir = tmp_path / "project", tmp_path / "project/work/train/abc"
        running = record()
        running.write(run_dir)
        for step in range(1100):
            append_row(run_dir, step, {"loss": step})
        deliver(run_dir, project)
        append_row(run_dir, 1100, {"loss": 1100})
        running.ended("FINISHED", {}, ((str(model_dir), "model"),)).write(run_dir)
        deliver(run_dir, project)
        assert curve(project, "loss") == [(step, step) for step in range(1101)]
        assert stage_run(project).info.status == "FINISHED"
        publish(project, model_dir, "remote", {"kid": 0.5})
        assert draw(project, "remote").shape == (2, 4, 4, 1)
        assert not (project / "mlflow.db").exists() and not (project / "mlruns").exists()


def invoke(address: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
