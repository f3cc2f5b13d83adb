"""The flow on a real DVC repository and a real Prefect server."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import deepcopy
from itertools import combinations
from pathlib import Path

import pytest
from filelock import FileLock
from prefect import get_client
from prefect.concurrency.sync import concurrency

from pipelines.flow import pipeline
from pipelines.slots import limit_of
from pipelines.stages import Stages, Stopped, repro
from tests.conftest import Project, tiny_params
from tests.pipelines.conftest import PROJECT, Api, Toy, eventually, flow_run_id

pytestmark = pytest.mark.tools
MakeToy = Callable[..., Toy]
UNNAMED = "; not registered: params.yaml is no preset's; `iddpm register --name NAME` does it"
# of train@w and surrogate@x, with two workers each
TWO_TRAININGS = {"compute": {"workers": 2}, "surrogates": {"x": {"kind": "low_resolution"}}}


def test_runs_the_graph_in_order_and_then_nothing(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[], b=["a"], c=["a"], report=["b", "c"])
    (repository.root / "runs" / "report").mkdir(parents=True)
    (repository.root / "runs" / "report" / "scores.csv").write_text("model,fid\ndigits,1.5\n")
    (repository.root / "runs" / "report" / "report.md").write_text("# Results\n")

    first = pipeline(return_state=True)
    run = flow_run_id(first)
    assert first.is_completed() and first.message == "4 executed" + UNNAMED
    assert server.outcomes(run) == dict.fromkeys(["a", "b", "c", "report"], "executed")
    a, b, c, report = (repository.record(stage) or {} for stage in ("a", "b", "c", "report"))
    assert a["end"] <= min(b["start"], c["start"]) and max(b["end"], c["end"]) <= report["start"]
    assert a["env"]["IDDPM_PIPELINE_KEY"] == run and a["env"]["IDDPM_PIPELINE_NAME"]
    lines = server.logs(run, until="report begins").splitlines()
    assert {"a begins", "a 50%", "a 100%"} <= set(lines)
    assert '"fid": "1.5"' in server.artifact(run, "scores") and server.artifact(run, "report") == "# Results\n"

    second = pipeline(return_state=True)
    assert second.is_completed() and second.message == "4 cached" + UNNAMED
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
    state = pipeline(keep_going=False, cpu_slots=1, return_state=True)
    assert state.is_failed()
    assert server.outcomes(flow_run_id(state)) == {"broken": "failed", "c": "not run"}


def test_a_training_takes_a_gpu_for_each_worker(server: Api, toy: MakeToy, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = toy(train_w=[], surrogate_x=[], likelihood_y=[], sample_z=[])
    repository.parameters(seconds=1.0, **TWO_TRAININGS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert pipeline(gpus=3, cpu_slots=1, return_state=True).is_completed()
    records = [repository.record(stage) or {} for stage in "wxyz"]
    seen = [set(record["env"]["CUDA_VISIBLE_DEVICES"].split(",")) for record in records]
    assert [len(devices) for devices in seen] == [2, 2, 1, 1] and set.union(*seen) <= {"4", "5", "6"}
    for (one, its), (other, others) in combinations(zip(records, seen, strict=True), 2):
        apart = one["end"] <= other["start"] or other["end"] <= one["start"]
        assert apart or not its & others
    assert [server.active_slots(device) for device in "456"] == [0, 0, 0]


def test_a_training_on_cpus_takes_a_slot_for_each_worker(server: Api, toy: MakeToy) -> None:
    repository = toy(train_w=[], surrogate_x=[], sample_y=[])
    repository.parameters(seconds=1.0, **TWO_TRAININGS)
    assert pipeline(cpu_slots=3, return_state=True).is_completed()
    w, x, y = (repository.record(stage) or {} for stage in "wxy")
    assert w["end"] <= x["start"] or x["end"] <= w["start"], "four workers in three slots"
    assert y["start"] < max(w["end"], x["end"])
    assert "CUDA_VISIBLE_DEVICES" not in w["env"]


def test_refuses_before_any_stage_runs(server: Api, toy: MakeToy, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = toy(a=[], train_c=["a"])
    refused = pipeline(preset="nonesuch", return_state=True)
    assert refused.is_failed() and refused.message == "iddpm: preset 'nonesuch': there is none of that name"
    unknown = pipeline(targets=["b"], return_state=True)
    assert unknown.message == "targets: there is no stage 'b'; there are a, train@c"
    repository.parameters(compute={"workers": 4})
    too_large = pipeline(cpu_slots=3, return_state=True).message or ""
    assert too_large.startswith("compute.workers: train@c takes a slot for each of its 4 workers")
    assert "cpu_slots is 3" in too_large
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert "flow's gpus is 2" in (pipeline(gpus=2, return_state=True).message or "")
    missing = pipeline(gpus=3, return_state=True).message
    assert missing == "gpus: 3 is more than the 2 that CUDA_VISIBLE_DEVICES=0,1 names"
    assert repository.record("a") is None


def test_a_preset_replaces_what_a_flow_wrote_but_no_edits(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[])
    for edit in ("", "", "# by hand"):
        with (repository.root / "params.yaml").open("a") as parameters:
            parameters.write(edit)
        assert pipeline(preset="tiny", return_state=True).is_completed()
    asked = (repository.root / "cli.log").read_text().splitlines()
    assert [line for line in asked if "preset" in line] == ["preset tiny", "preset tiny --force", "preset tiny"]


def test_registers_what_is_complete(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[], broken=["a"], c=["broken"])
    failed = pipeline(preset="tiny", return_state=True)
    assert failed.is_failed() and (failed.message or "").startswith("broken failed: broken: out of luck")
    assert "registers a" in server.logs(flow_run_id(failed), until="registers a").splitlines()
    for _ in eventually():
        if server.task_states(flow_run_id(failed)).get("register") == "Registered":
            break
    before = (repository.root / "cli.log").read_text()
    for choice in (
        {"targets": ["a"]},
        {"targets": ["a"], "preset": "tiny"},
        {"preset": "tiny", "register_results": False},
        {"preset": "tiny", "overrides": {"seconds": 0}},
    ):
        pipeline(**choice, return_state=True)
    assert "register" not in (repository.root / "cli.log").read_text().removeprefix(before)


def test_a_trial_with_overrides_is_registered_if_asked(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[])
    trial = pipeline(preset="tiny", overrides={"seconds": 0}, return_state=True)
    assert trial.is_completed() and "not registered: a trial with overrides" in (trial.message or "")
    pipeline(preset="tiny", overrides={"seconds": 0}, register_results=True, return_state=True)
    asked = (repository.root / "cli.log").read_text().splitlines()
    assert [line for line in asked if line.startswith("register")] == ["register --name tiny"]


def test_a_failed_registration_fails_the_run_in_one_line(server: Api, toy: MakeToy) -> None:
    toy(a=[])
    state = pipeline(preset="unregistrable", return_state=True)
    assert state.is_failed()
    assert state.message == "register failed: iddpm: the tracking server is away (1 executed)"
    own = pipeline(return_state=True)
    assert own.is_completed() and own.message == "1 cached" + UNNAMED


def test_two_runs_in_one_folder_take_turns(server: Api, toy: MakeToy) -> None:
    repository = toy(a=[])
    (repository.root / "work").mkdir()
    lock = FileLock(repository.root / "work" / "pipeline.lock")
    with lock, running_flow(repository.root, PREFECT_API_URL=server.url) as flow:
        for _ in eventually():
            if "Waiting for another flow run" in (repository.root / "flow.log").read_text():
                break
        assert not (repository.root / "cli.log").exists() and repository.record("a") is None
        lock.release()
        assert flow.wait(60) == 0
    assert repository.record("a")


def test_a_second_run_does_only_what_failed(server: Api, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real stages and the real registry: the training of one of two models diverges."""
    unused: dict[str, object] = {"surrogates": {}, "surrogate_samplings": {}, "evaluations": {}, "likelihoods": {}}
    parameters = tiny_params() | unused
    parameters["models"]["steep"] = deepcopy(parameters["models"]["digits"])
    parameters["models"]["steep"]["training"] |= {"learning_rate": 1e30, "nonfinite_limit": 2}
    parameters["samplings"] = {"steep": {"model": "steep", "steps": 5, "count": 20}}
    project.write(parameters)
    shutil.copy(project.root / "params.yaml", project.root / "presets" / "pair.yaml")
    monkeypatch.chdir(project.root)

    first = pipeline(preset="pair", return_state=True)
    assert "train@steep failed: iddpm: training: 2 steps in a row had a non-finite gradient" in (first.message or "")
    assert server.outcomes(flow_run_id(first)) == {
        "shard@digits": "executed", "train@digits": "executed", "train@steep": "failed", "sample@steep": "not run",
        "report": "not run",
    }  # fmt: skip
    digits = "models:/pair@model-digits is version 1, "
    assert digits + "registered" in server.logs(flow_run_id(first), until=digits).splitlines()

    mended = {"models.steep.training.learning_rate": 1e-3}
    second = pipeline(preset="pair", overrides=mended, register_results=True, return_state=True)
    assert second.is_completed(), second.message
    assert server.outcomes(flow_run_id(second)) == {
        "shard@digits": "cached", "train@digits": "cached", "train@steep": "executed", "sample@steep": "executed",
        "report": "executed",
    }  # fmt: skip
    steep = "models:/pair@model-steep is version 2, registered"
    lines = server.logs(flow_run_id(second), until=steep).splitlines()
    assert digits + "already registered" in lines and steep in lines


def test_every_parameter_is_explained_in_the_ui() -> None:
    fields = pipeline.parameters.properties
    assert list(fields) == [
        "preset",
        "force",
        "overrides",
        "targets",
        "gpus",
        "cpu_slots",
        "keep_going",
        "register_results",
    ]
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


@pytest.mark.parametrize("how", ["ctrl-c", "terminate", "cancel", "kill"])
def test_the_end_of_the_flow_is_the_end_of_its_stages(server: Api, toy: MakeToy, how: str) -> None:
    repository = toy(seconds=600, train_a=[])
    gpus = "0" if how == "kill" else "1"  # the slot of a killed flow is free only when its lease has run out
    environment = {"PREFECT_API_URL": server.url, "CUDA_VISIBLE_DEVICES": how}
    with running_flow(repository.root, "--gpus", gpus, **environment) as flow:
        for _ in eventually():
            if repository.alive("a"):
                break
        assert how == "kill" or server.active_slots(how) == 1
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
    if how != "kill":
        assert server.active_slots(how) == 0
        assert server.finished(run)["type"] == ("CANCELLED" if how == "cancel" else "CRASHED")


def test_a_stage_that_does_not_listen_is_killed(toy: MakeToy, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = toy(seconds=600, stubborn=[])
    monkeypatch.setattr("pipelines.stages.GRACE_SECONDS", 1.0)
    stages = Stages()
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(stages.run, "stubborn", repro("stubborn"), {}, lambda line: None)
        for _ in eventually():
            if repository.alive("stubborn"):
                break
        stages.stop()
        assert isinstance(ending.exception(30), Stopped)
    for _ in eventually():
        if not repository.alive("stubborn"):
            break


def test_a_training_waits_for_all_its_gpus_and_takes_none(server: Api, toy: MakeToy) -> None:
    repository = toy(train_waiting=[])
    repository.parameters(compute={"workers": 2})
    environment = {"PREFECT_API_URL": server.url, "CUDA_VISIBLE_DEVICES": "free,busy"}
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(limit_of("busy"), 1)
    with concurrency(limit_of("busy")), running_flow(repository.root, "--gpus", "2", **environment) as flow:
        for _ in eventually():
            begun = server.post("task_runs/filter", task_runs={"name": {"any_": ["train@waiting"]}})
            if begun and begun[0]["state_type"] == "RUNNING":
                break
        for _ in range(20):  # it asks more than once meanwhile
            assert server.active_slots("free") == 0
            time.sleep(0.2)
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
    with running_flow(repository.root, *arguments, "--register") as flow:
        code = flow.wait(200)
    assert code == 0, (repository.root / "flow.log").read_text()
    assert repository.record("a")
    asked = (repository.root / "cli.log").read_text().splitlines()
    assert asked == [
        "preset tiny",
        "set models.digits.steps=10 models.digits.name=x=y",
        "prune",
        "register --name tiny",
    ]
