"""Stages that are interrupted go on after their last finished batch, and their results are the same bytes."""

import functools
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iddpm.stages.batches import KeptBatches
from iddpm.stages.models import DiffusionModel
from iddpm.stages.run import run_stage

from ..conftest import Project, make_project, tiny_params
from .test_interruptions import wait_for

BATCHES = 12


def batch(value: int) -> dict[str, Any]:
    return {"x": np.full(3, value)}


def refuse() -> dict[str, Any]:
    raise AssertionError("made although it was kept")


def test_a_batch_is_made_once(tmp_path: Path) -> None:
    first = KeptBatches(tmp_path)
    assert first.get(0, lambda: batch(1))["x"].tolist() == [1, 1, 1]
    again = KeptBatches(tmp_path)
    assert len(again) == 1 and again.get(0, refuse).keys() == {"x"}
    assert again.seconds == first.seconds > 0  # they add up over the runs
    again.get(3, lambda: batch(2))
    assert again.seconds > first.seconds
    again.clear()
    assert not (tmp_path / "batches").exists()


@pytest.mark.parametrize("keep", [0, 40, -30])
def test_a_damaged_batch_is_made_again(tmp_path: Path, keep: int, capsys: pytest.CaptureFixture[str]) -> None:
    batches = KeptBatches(tmp_path)
    batches.get(0, lambda: batch(1))
    file = tmp_path / "batches" / "000000000.npz"
    file.write_bytes(file.read_bytes()[:keep])
    assert batches.get(0, lambda: batch(2))["x"].tolist() == [2, 2, 2]
    assert "damaged" in capsys.readouterr().err
    assert batches.get(0, refuse)["x"].tolist() == [2, 2, 2]


def test_a_batch_that_was_cut_off_is_not_there(tmp_path: Path) -> None:
    batches = KeptBatches(tmp_path)
    (tmp_path / "batches" / "000000000.tmp").write_bytes(b"half")
    assert len(batches) == 0 and batches.get(0, lambda: batch(1))["x"].tolist() == [1, 1, 1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Models, and a sampling, a start from a surrogate and a likelihood of some seconds each, in many batches."""
    project = make_project(tmp_path_factory.mktemp("batches") / "project")
    params = tiny_params()
    params["models"]["digits"]["diffusion"]["timesteps"] = 400
    params["evaluations"] = {}
    slow = {"model": "digits", "count": 5 * BATCHES - 1, "batch_size": 5}
    params["samplings"] = {"s": slow | {"steps": 40}}
    params["surrogate_samplings"] = {"u": slow | {"surrogate": "sngan", "t_mid": 200, "steps": 40}}
    bound = {"model": "digits", "dataset": "digits", "batch_size": 5}
    params["likelihoods"] = {"l": bound | {"images": 5 * BATCHES - 1, "steps": 20}, "one": bound | {"images": 1}}
    project.write(params)
    for stage in ("shard digits", "train digits", "surrogate sngan"):
        run_stage(*stage.split(), project.root)
    return project


OUTPUTS = {
    "sample": ("s", "runs/samples/s/samples.npz"),
    "surrogate-sample": ("u", "runs/samples/u/samples.npz"),
    "likelihood": ("l", "runs/likelihoods/l/terms.csv"),
}


@pytest.fixture(scope="module")
def uninterrupted(trained: Project) -> Callable[[str], bytes]:
    """The output of a stage that runs from its beginning to its end."""

    @functools.cache
    def run(kind: str) -> bytes:
        name, output = OUTPUTS[kind]
        shutil.rmtree(trained.root / "work" / kind, ignore_errors=True)
        run_stage(kind, name, trained.root)
        return (trained.root / output).read_bytes()

    return run


@pytest.mark.tools
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "number"),
    [("sample", signal.SIGKILL), ("sample", signal.SIGTERM), ("surrogate-sample", signal.SIGKILL),
     ("likelihood", signal.SIGKILL), ("likelihood", signal.SIGINT)],
)  # fmt: skip
def test_an_interrupted_stage_goes_on(
    trained: Project,
    uninterrupted: Callable[[str], bytes],
    kind: str,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, output = OUTPUTS[kind]
    work = trained.root / "work" / kind
    shutil.rmtree(work, ignore_errors=True)
    process = trained.start("iddpm", "stage", kind, name)
    try:
        wait_for(lambda: len(list(work.glob("*/batches/*.npz"))) >= 2)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    finished = len(list(work.glob("*/batches/*.npz")))
    assert 2 <= finished < BATCHES
    if number is not signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "stopped; the same command goes on after the last finished batch" in said

    conditioned = DiffusionModel.denoiser  # asked for once for each batch
    asked: list[int] = []
    monkeypatch.setattr(
        DiffusionModel, "denoiser", lambda model, *labels: (asked.append(1), conditioned(model, *labels))[1]
    )
    run_stage(kind, name, trained.root)
    assert len(asked) == BATCHES - finished
    resumed = (trained.root / output).read_bytes()
    assert not list(work.glob("*/batches"))
    if "samples" in output:
        record = json.loads((trained.root / output).with_name("record.json").read_text())
        assert record["images_per_second"] == pytest.approx(59 / record["sampling_seconds"], rel=1e-2)
    assert resumed == uninterrupted(kind)


@pytest.mark.tools
def test_one_image_has_no_standard_error(trained: Project) -> None:
    run_stage("likelihood", "one", trained.root)
    scores = json.loads((trained.root / "runs/likelihoods/one/bits_per_dim.json").read_text())
    assert scores["bits_per_dim_standard_error"] is None and scores["bits_per_dim"] > 0


@pytest.mark.tools
def test_other_stages_say_that_they_start_again(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from iddpm.stages import shard

    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(shard, "open_source", interrupted)
    said: list[str] = []
    monkeypatch.setattr("iddpm.stages.run.say", said.append)
    with pytest.raises(SystemExit) as ending:
        run_stage("shard", "digits", trained.root)
    assert ending.value.code == 128 + signal.SIGTERM
    assert said == ["shard@digits: stopped; the same command starts it again"]
