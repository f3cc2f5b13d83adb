"""Deliveries to a real MLflow store: everything arrives once, whatever happens in between."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from iddpm.errors import UserError
from iddpm.tracking import RunRecord, deliver, deliver_pending, tracking_uri
from tests.tracking.conftest import (
    all_runs,
    append_row,
    child_environment,
    curve,
    cut_back,
    parent_run,
    pipeline,
    record,
    stage_run,
)

CHILD = """
import json, os, sys
from pathlib import Path
from iddpm.tracking import *
root, run_dir, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
RunRecord.read(run_dir).resumed(RunRecord.read(run_dir).pipeline).write(run_dir)
with (run_dir / "metrics.jsonl").open("a", buffering=1) as log:
    for step in range(1, last + 1):
        log.write(json.dumps({"step": step, "time_ms": step, "loss": 1 / step}) + "\\n")
    deliver(run_dir, root)
    log.write('{"step": 99, "ti')
    log.flush()
os.kill(os.getpid(), 9)
"""

pytestmark = pytest.mark.tools


def test_a_finished_run_arrives_with_all_it_has(root: Path) -> None:
    run_dir = root / "work/train/abc"
    (root / "runs").mkdir()
    (root / "runs/grid.png").write_bytes(b"picture")
    (root / "runs/figures").mkdir()
    (root / "runs/figures/curve.svg").write_bytes(b"curve")
    params = {
        "model": {"width": 8, "attention": [2, 4]},
        "note": "x" * 7000,
        "many": {str(i): i for i in range(250)},
    }
    running = record(pipeline("train@digits", "sample@digits")).model_copy(
        update={"params": params, "tags": {"git commit": "abc", "hash@data": "y" * 9000}}
    )
    running.write(run_dir)
    for step in range(1200):
        append_row(run_dir, step, {"loss": step / 2, "eval loss": -step})
    artifacts = (("runs/grid.png", "pictures"), ("runs/figures", ""), ("runs/absent.png", ""))
    running.ended("FINISHED", {"final": 0.5}, artifacts).write(run_dir)
    deliver(run_dir, root)

    run, parent = stage_run(root), parent_run(root)
    assert (run.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert run.info.start_time == running.started_ms <= run.info.end_time
    assert run.data.params["model.width"] == "8" and run.data.params["model.attention"] == "[2, 4]"
    assert len(run.data.params) == 253 and run.data.params["note"] == "x" * 6000
    assert run.data.tags["git commit"] == "abc" and run.data.tags["hash.data"] == "y" * 8000
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.tags["stage.train.digits"] == "executed"
    assert parent.data.tags["stage.sample.digits"] == "not executed"
    assert run.data.metrics["final"] == 0.5
    assert curve(root, "loss") == [(step, step / 2) for step in range(1200)]
    assert curve(root, "eval loss") == [(step, -step) for step in range(1200)]
    mlflow = MlflowClient(tracking_uri=tracking_uri(root))
    assert {file.path for file in mlflow.list_artifacts(run.info.run_id)} == {"pictures", "curve.svg"}
    assert run.info.artifact_uri.startswith((root / "mlruns").as_uri())


def test_one_row_per_step_after_kill_cut_back_and_resume(root: Path) -> None:
    run_dir = root / "work/train/abc"
    record().write(run_dir)
    dies = subprocess.run([sys.executable, "-c", CHILD, root, run_dir, "30"], env=child_environment())
    assert dies.returncode == -signal.SIGKILL
    assert stage_run(root).info.status == "RUNNING"
    assert deliver_pending(root / "work", root) == [RunRecord.read(run_dir).key]
    assert (stage_run(root).info.status, parent_run(root).info.status) == ("KILLED", "FAILED")
    assert parent_run(root).data.tags["stage.train.digits"] == "failed"
    assert deliver_pending(root / "work", root) == []

    resumed = RunRecord.read(run_dir).resumed(RunRecord.read(run_dir).pipeline)
    resumed.write(run_dir)
    cut_back(run_dir, 20)
    for step in range(21, 41):
        append_row(run_dir, step, {"loss": 1 / step})
        if step == 25:  # behind what MLflow holds
            deliver(run_dir, root)
            assert (stage_run(root).info.status, parent_run(root).info.status) == ("RUNNING", "RUNNING")
    resumed.ended("FINISHED", {"loss": 1 / 40}).write(run_dir)
    deliver(run_dir, root)
    deliver(run_dir, root)
    assert curve(root, "loss") == [(step, 1 / step) for step in range(1, 41)]
    assert (stage_run(root).info.status, parent_run(root).info.status) == ("FINISHED", "FINISHED")


def test_a_delivery_that_broke_off_within_a_row_is_completed(root: Path) -> None:
    run_dir = root / "work/train/abc"
    record().write(run_dir)
    append_row(run_dir, 1, {"loss": 1, "grad": 10})
    deliver(run_dir, root)
    for step in (2, 3, 2, 3):  # begun again without cutting back
        append_row(run_dir, step, {"loss": step, "grad": 10 * step})
    client = MlflowClient(tracking_uri=tracking_uri(root))
    client.log_batch(stage_run(root).info.run_id, [Metric("loss", 2, 0, 2)])  # all that arrived
    deliver(run_dir, root)
    assert curve(root, "loss") == [(1, 1), (2, 2), (3, 3)]
    assert curve(root, "grad") == [(1, 10), (2, 20), (3, 30)]


def test_two_stages_at_once_in_a_new_project_share_one_parent(new_root: Path) -> None:
    root = new_root
    both = pipeline("sample@ddim", "sample@ancestral")
    children = []
    for name in ("ddim", "ancestral"):
        run_dir = root / "work/sample" / name
        record(both, "sample", name).ended("FINISHED", {"kid": 0.5}).write(run_dir)
        code = "import sys, pathlib, iddpm.tracking as t; t.deliver(*map(pathlib.Path, sys.argv[1:]))"
        command = [sys.executable, "-c", code, run_dir, root]
        children.append(subprocess.Popen(command, env=child_environment()))
    assert [child.wait(60) for child in children] == [0, 0]
    assert len(all_runs(root)) == 3
    parent = parent_run(root)
    assert parent.info.status == "FINISHED"
    for name in ("ddim", "ancestral"):
        assert parent.data.tags[f"stage.sample.{name}"] == "executed"
        run = stage_run(root, f"sample@{name}")
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_failed_stage_fails_the_pipeline_whatever_comes_after(root: Path) -> None:
    both = pipeline("train@digits", "report")
    record(both).ended("FAILED").write(root / "work/train/a")
    record(both, "report", "").ended("FINISHED").write(root / "work/report/b")
    assert len(deliver_pending(root / "work", root)) == 2
    tags = parent_run(root).data.tags
    assert (tags["stage.train.digits"], tags["stage.report"]) == ("failed", "executed")
    assert (stage_run(root).info.status, parent_run(root).info.status) == ("FAILED", "FAILED")
    assert stage_run(root, "report").info.status == "FINISHED"


@pytest.mark.parametrize("word", ["its end was told", "kill -9"])
def test_a_run_resumed_by_another_pipeline_moves_there(root: Path, word: str) -> None:
    run_dir = root / "work/train/abc"
    interrupted = record() if word == "kill -9" else record().ended("KILLED")
    interrupted.write(run_dir)
    deliver(run_dir, root)
    later = pipeline().model_copy(update={"name": "pipeline of tomorrow"})
    interrupted.resumed(later).ended("FINISHED").write(run_dir)
    deliver(run_dir, root)
    (new_parent,) = [run for run in all_runs(root) if run.info.run_name == later.name]
    assert stage_run(root).data.tags["mlflow.parentRunId"] == new_parent.info.run_id
    assert (parent_run(root).info.status, new_parent.info.status) == ("FAILED", "FINISHED")


def test_only_directories_with_nothing_left_to_say_are_removed(root: Path) -> None:
    work = root / "work"
    for name, status in (("spent", "FINISHED"), ("checkpoints", "FINISHED"), ("failed", "FAILED")):
        run = record(name=name)
        artifacts = ((f"work/train/{name}/grid.png", ""),)
        run.ended(status, artifacts=artifacts).write(work / "train" / name)  # type: ignore[arg-type]
        append_row(work / "train" / name, 1, {"loss": 1})
    (work / "train/spent/grid.png").write_bytes(b"picture")
    (work / "train/checkpoints/step_3").mkdir()
    (work / "train/checkpoints/step_3/model.safetensors").write_bytes(b"weights")
    record(name="running").write(work / "train/running")
    assert len(deliver_pending(work, root)) == 3
    assert {path.name for path in (work / "train").iterdir()} == {"checkpoints", "failed", "running"}
    assert stage_run(root, "train@running").info.status == "RUNNING"
    assert deliver_pending(work, root) == []


def test_a_damaged_record_is_named_and_keeps_no_other_from_arriving(root: Path) -> None:
    record().ended("FINISHED").write(root / "work/train/b")
    (root / "work/train/a").mkdir()
    (root / "work/train/a/run.json").write_text("{")
    with pytest.raises(UserError, match=r"did not take 1 of the runs, such as .*train/a.*damaged.*JSON"):
        deliver_pending(root / "work", root)
    assert stage_run(root).info.status == "FINISHED"


def test_the_users_server_is_used_instead_of_the_embedded_one(new_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = new_root
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/elsewhere.db")
    record().ended("FINISHED").write(root / "work/train/abc")
    deliver(root / "work/train/abc", root)
    assert stage_run(root).info.status == "FINISHED"
    assert not (root / "mlflow.db").exists()


def test_a_stage_does_not_pay_for_the_import_of_mlflow() -> None:
    code = "import sys, json, iddpm.tracking; print(json.dumps('mlflow' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), stdout=subprocess.PIPE)
    assert json.loads(done.stdout) is False
