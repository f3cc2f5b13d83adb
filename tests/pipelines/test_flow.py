"""The flow on a real DVC repository and a real Prefect server."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path

import pytest
from prefect.concurrency.sync import concurrency

from pipelines.flow import pipeline
from pipelines.stages import Stages, Stopped
from tests.pipelines.conftest import PROJECT, Api, Toy, eventually, flow_run_id

pytestmark = pytest.mark.tools
MakeToy = Callable[..., Toy]


def test_runs_the_graph_in_order_and_then_nothing(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[], b=["a"], c=["a"], report=["b", "c"])
    (repository.root / "runs" / "report").mkdir(parents=True)
    (repository.root / "runs" / "report" / "scores.csv").write_text("model,fid\ndigits,1.5\n")
    (repository.root / "runs" / "report" / "report.md").write_text("# Results\n")

    first = pipeline(return_state=True)
    run = flow_run_id(first)
    assert first.is_completed() and first.message == "4 executed"
    assert server.outcomes(run) == dict.fromkeys(["a", "b", "c", "report"], "executed")
    a, b, c, report = (repository.record(stage) or {} for stage in ("a", "b", "c", "report"))
    assert a["end"] <= min(b["start"], c["start"]) and max(b["end"], c["end"]) <= report["start"]
    assert a["env"]["IDDPM_PIPELINE_KEY"] == run and a["env"]["IDDPM_PIPELINE_NAME"]
    lines = server.logs(run, until="report begins").splitlines()
    assert {"a begins", "a 50%", "a 100%"} <= set(lines)
    assert '"fid": "1.5"' in server.artifact(run, "scores") and server.artifact(run, "report") == "# Results\n"

    second = pipeline(return_state=True)
    assert second.is_completed() and second.message == "4 cached"
    (repository.root / "dvc.lock").unlink()
    third = pipeline(targets=["b"], return_state=True)
    assert third.message == "2 restored"


def test_a_failure_stops_only_what_depends_on_it(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[], broken=["a"], c=["a"], d=["broken", "c"], e=["d"])
    state = pipeline(return_state=True)
    run = flow_run_id(state)
    assert state.is_failed()
    assert state.message is not None and state.message.startswith("broken failed: broken: out of luck")
    assert server.outcomes(run) == {
        "a": "executed", "broken": "failed", "c": "executed", "d": "not run", "e": "not run"
    }  # fmt: skip
    assert "broken failed:\n" in server.logs(run, until="broken failed:")
    assert repository.record("d") is None


def test_the_first_failure_can_end_the_run(server: Api, toy: MakeToy) -> None:
    toy(broken=[], c=[])
    state = pipeline(keep_going=False, max_workers=1, return_state=True)
    assert state.is_failed()
    assert server.outcomes(flow_run_id(state)) == {"broken": "failed", "c": "not run"}


def test_gpu_stages_share_what_there_is(server: Api, toy: MakeToy, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = toy(seconds=1.0, train_x=[], surrogate_y=[], sample_z=[])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert pipeline(gpus=2, max_workers=3, return_state=True).is_completed()
    records = [repository.record(stage) or {} for stage in "xyz"]
    assert {record["env"]["CUDA_VISIBLE_DEVICES"] for record in records} == {"4,6", "5,7"}
    for one, other in combinations(records, 2):
        apart = one["end"] <= other["start"] or other["end"] <= one["start"]
        assert apart or one["env"]["CUDA_VISIBLE_DEVICES"] != other["env"]["CUDA_VISIBLE_DEVICES"]
    assert "CUDA_VISIBLE_DEVICES" in (pipeline(gpus=5, return_state=True).message or "")


def test_refuses_before_any_stage_runs(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[])
    refused = pipeline(preset="nonesuch", return_state=True)
    assert refused.is_failed() and refused.message == "iddpm: preset 'nonesuch': there is none of that name"
    unknown = pipeline(targets=["b"], return_state=True)
    assert unknown.message == "targets: there is no stage 'b'; there are a"
    assert repository.record("a") is None


def test_every_parameter_is_explained_in_the_ui() -> None:
    fields = pipeline.parameters.properties
    assert list(fields) == ["preset", "force", "overrides", "targets", "gpus", "max_workers", "keep_going"]
    assert all(field.get("description") for field in fields.values())


@contextmanager
def running_flow(root: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m pipelines.flow` as a user starts it, in a terminal of its own; its output goes to flow.log."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables |= {"PYTHONPATH": str(PROJECT), "PREFECT_HOME": str(root / "home"), **environment}
    command = [sys.executable, "-m", "pipelines.flow", *arguments]
    with (root / "flow.log").open("wb") as log:
        flow = subprocess.Popen(
            command, cwd=root, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield flow
    finally:
        with suppress(ProcessLookupError):
            os.killpg(flow.pid, signal.SIGKILL)
        flow.wait()


def latest_run(server: Api) -> str:
    return str(server.post("flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]["id"])


def slots(server: Api) -> int:
    return int(server.get("v2/concurrency_limits/gpu")["active_slots"])


@pytest.mark.parametrize("how", ["ctrl-c", "terminate", "cancel", "kill"])
def test_the_end_of_the_flow_is_the_end_of_its_stages(server: Api, toy: MakeToy, how: str) -> None:
    repository = toy(seconds=600, train_a=[])
    gpus = "0" if how == "kill" else "1"  # the slot of a killed flow is free only when its lease has run out
    with running_flow(repository.root, "--gpus", gpus, PREFECT_API_URL=server.url) as flow:
        for _ in eventually():
            if repository.alive("a"):
                break
        assert slots(server) == int(gpus)
        run = latest_run(server)
        if how == "ctrl-c":
            os.killpg(flow.pid, signal.SIGINT)
        elif how == "cancel":
            server.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        else:
            flow.send_signal(signal.SIGTERM if how == "terminate" else signal.SIGKILL)
        for _ in eventually(30):
            if not repository.alive("a"):
                break
        assert flow.wait(60) == {"ctrl-c": 130, "terminate": 143, "cancel": 1, "kill": -signal.SIGKILL}[how]
    assert (repository.root / "a.checkpoint").exists(), "the stage was not asked, but killed"
    for _ in eventually():  # a torn file would make dvc refuse all later runs
        if (repository.root / ".dvc" / "tmp" / "rwlock").read_text() == "{}":
            break
    assert slots(server) == 0
    if how != "kill":
        assert server.finished(run)["type"] == ("CANCELLED" if how == "cancel" else "CRASHED")


def test_a_stage_that_does_not_listen_is_killed(toy: MakeToy, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = toy(seconds=600, stubborn=[])
    monkeypatch.setattr("pipelines.stages.GRACE_SECONDS", 1.0)
    stages = Stages()
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(stages.run, "stubborn", {}, lambda line: None)
        for _ in eventually():
            if repository.alive("stubborn"):
                break
        stages.stop()
        assert isinstance(ending.exception(30), Stopped)
    for _ in eventually():
        if not repository.alive("stubborn"):
            break


def test_a_flow_that_waits_for_a_gpu_can_be_stopped(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[], train_waiting=["a"])
    assert pipeline(targets=["a"], gpus=1, return_state=True).is_completed()
    with concurrency("gpu"), running_flow(repository.root, "--gpus", "1", PREFECT_API_URL=server.url) as flow:
        for _ in eventually():
            begun = server.post("task_runs/filter", task_runs={"name": {"any_": ["train@waiting"]}})
            if begun and begun[0]["state_type"] == "RUNNING":
                break
        flow.send_signal(signal.SIGTERM)
        assert flow.wait(30) == 143
    assert repository.record("waiting") is None


def test_a_server_that_is_not_there_is_one_line(toy: MakeToy) -> None:
    repository = toy(a=[])
    with running_flow(repository.root, PREFECT_API_URL="http://127.0.0.1:9/api") as flow:
        assert flow.wait(60) == 1
    assert len((repository.root / "flow.log").read_text().splitlines()) == 1


def test_one_command_without_a_server(toy: MakeToy) -> None:
    repository = toy(a=[])
    arguments = ["--preset", "tiny", "--set", "models.digits.steps=10", "--set", "models.digits.name=x=y"]
    with running_flow(repository.root, *arguments) as flow:
        code = flow.wait(200)
    assert code == 0, (repository.root / "flow.log").read_text()
    assert repository.record("a")
    asked = (repository.root / "cli.log").read_text().splitlines()
    assert asked == ["preset tiny", "set models.digits.steps=10 models.digits.name=x=y", "prune"]
