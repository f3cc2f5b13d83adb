"""The train stage: a model, and beside it how long its training took."""

import json
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from iddpm.data import open_source, write_shards
from iddpm.params import DigitsDataset, Source
from iddpm.stages import context
from iddpm.stages.context import Stage, StageInterrupted
from iddpm.stages.run import run_stage
from iddpm.training import WorkFolder
from iddpm.training.metrics_log import MetricsLog

from ..conftest import Project, make_project, tiny_params


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny model twice, with a snapshot of every second step."""
    project = make_project(tmp_path_factory.mktemp("train") / "project")
    dataset = DigitsDataset(source=Source.DIGITS)
    list(write_shards(open_source(dataset, Path("data/raw")), dataset, project.root / "data" / "shards" / "digits"))
    params = tiny_params() | {"compute": {"device": "cpu"}}
    model = params["models"]["digits"]
    model["training"] |= {"snapshot_every": 2, "log_every": 1}
    params["models"] |= {moment.__name__: model for moment in MOMENTS}
    project.write(params)
    return project


def interrupt(*_: object) -> Any:
    raise StageInterrupted(signal.SIGTERM)


def between_the_outputs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stage, "output_folder", interrupt)


def while_the_model_is_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MetricsLog, "export_csv", interrupt)


def after_the_model_was_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkFolder, "clear", interrupt)


MOMENTS = (between_the_outputs, while_the_model_is_written, after_the_model_was_written)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interruption_at_the_end_loses_nothing(
    sharded: Project, moment: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "Courier", lambda *_: nullcontext())  # tracking is tested elsewhere
    runs, name = sharded.root / "runs", moment.__name__
    if not (runs / "models" / "digits").exists():
        run_stage("train", "digits", sharded.root)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        moment(patch)
        run_stage("train", name, sharded.root)
    run_stage("train", name, sharded.root)
    expected = files(runs / "models" / "digits")
    assert files(runs / "models" / name) == expected
    assert {"metrics.csv", "snapshots/step-000000002/ema.safetensors"} <= expected.keys()
    time = json.loads((runs / "times" / "models" / f"{name}.json").read_text())
    assert time["seconds_per_step"] > 0 and time["record"]["stage"] == f"train@{name}"
    assert "data/shards/digits" in time["record"]["inputs"]
