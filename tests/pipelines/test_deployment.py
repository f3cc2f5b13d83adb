"""The deployments of the presets, started with parameters and scheduled as the Prefect UI does it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.deploy import deploy, kind
from tests.pipelines.conftest import PROJECT, Api, Toy, eventually

pytestmark = pytest.mark.tools


@contextmanager
def served(root: Path) -> Iterator[Api]:
    """pipelines/serve.sh until its worker is there; ended with Ctrl-C."""
    shutil.copytree(PROJECT / "pipelines", root / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables |= {"PREFECT_SERVER_API_PORT": port, "PREFECT_HOME": str(root / "home"), "CUDA_VISIBLE_DEVICES": "3"}
    variables |= {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (root / "serve.log").open("w+b") as log:
        script = subprocess.Popen(
            ["pipelines/serve.sh"], cwd=root, env=variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in eventually(120):
            text = (root / "serve.log").read_text()
            assert script.poll() is None, text
            if "Worker" in text and "started!" in text:
                break
        yield Api(f"http://127.0.0.1:{port}/api")
    finally:
        os.killpg(script.pid, signal.SIGINT)
        script.wait(60)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/api/health")


def assert_what_is_set_in_the_ui_is_kept(server: Api, deployment: str) -> None:
    """Deploying anew keeps parameters and schedules, and the server makes runs of the schedule."""
    hour = (datetime.now(UTC).hour + 12) % 24  # not during this test
    daily = [{"schedule": {"cron": f"0 {hour} * * *"}, "slug": "daily", "active": True}]
    server.ask("POST", f"deployments/{deployment}/schedules", json=daily)
    server.ask("PATCH", f"deployments/{deployment}", json={"parameters": {"targets": ["a"]}})
    with temporary_settings({PREFECT_API_URL: server.url}):
        assert deploy() == ["other", "tiny"]
    again = server.get("deployments/name/pipeline/tiny")
    assert again["id"] == deployment and again["parameters"] == {"targets": ["a"]}
    assert [schedule["slug"] for schedule in again["schedules"]] == ["daily"]
    upcoming = {"deployment_id": {"any_": [deployment]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    for _ in eventually():
        if server.post("flow_runs/filter", flow_runs=upcoming):
            break


def assert_a_retry_does_only_what_failed(server: Api, run: str) -> None:
    """Of a run in which train@a was done and `broken` was not, as the button of that name asks for it."""
    Path("mended").touch()
    server.post(f"flow_runs/{run}/set_state", state={"type": "SCHEDULED", "name": "AwaitingRetry"}, force=False)
    assert server.finished(run)["message"] == "1 cached, 1 executed"
    for _ in eventually():
        if server.task_states(run) == {"train@a": "Cached", "broken": "Executed", "register": "Registered"}:
            break


def test_runs_queues_and_is_cancelled_from_the_ui(tmp_path: Path, toy: Callable[..., Toy]) -> None:
    repository = toy(train_a=[], broken=["train_a"])
    (tmp_path / "presets").mkdir()
    preset = {"datasets": {"digits": {"source": "digits"}}, "imports": {}}
    for name in ("tiny", "other"):
        (tmp_path / "presets" / f"{name}.yaml").write_text(f"# The {name} one.\n" + yaml.safe_dump(preset))

    with served(tmp_path) as server:
        tiny, other = (server.get(f"deployments/name/pipeline/{name}") for name in ("tiny", "other"))
        assert tiny["parameters"] == {"preset": "tiny"} and tiny["tags"] == ["small"]
        assert tiny["description"].startswith("The tiny one.\n")
        assert "cpu_slots" in tiny["parameter_openapi_schema"]["properties"]

        parameters = {"overrides": {"models.digits.rate": 1e-05, "note": "x"}, "targets": ["train"], "gpus": 1}
        repository.parameters(seconds=3.0)
        run = server.post(f"deployments/{tiny['id']}/create_flow_run", parameters=parameters)["id"]
        soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
        scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": soon}}
        later = server.post(f"deployments/{other['id']}/create_flow_run", state=scheduled)["id"]
        assert server.finished(run)["message"] == "1 executed"
        assert server.outcomes(run) == {"train@a": "executed"}
        assert (repository.record("a") or {})["env"]["CUDA_VISIBLE_DEVICES"] == "3"
        assert server.finished(later)["message"].startswith("broken failed: broken: out of luck")
        assert server.get(f"flow_runs/{run}")["end_time"] <= server.get(f"flow_runs/{later}")["start_time"]
        asked = (tmp_path / "cli.log").read_text().splitlines()
        assert asked == [
            "preset tiny", "set models.digits.rate=1e-05 note=x", "prune",
            "preset other --force", "prune", "register --name other",
        ]  # fmt: skip

        assert_a_retry_does_only_what_failed(server, later)
        assert_what_is_set_in_the_ui_is_kept(server, tiny["id"])

        repository.parameters(seconds=600)
        run = server.post(f"deployments/{other['id']}/create_flow_run", parameters={"preset": None, "gpus": 1})["id"]
        for _ in eventually():
            if repository.alive("a"):
                break
        server.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        for _ in eventually(20):
            if not repository.alive("a"):
                break
        assert (tmp_path / "a.checkpoint").exists()
        assert server.finished(run)["type"] == "CANCELLED"
        assert server.active_slots("3") == 0


def test_every_preset_has_a_tag_and_a_description() -> None:
    tags = {}
    for path in (PROJECT / "presets").glob("*.yaml"):
        text = path.read_text()
        assert text.startswith("# ")
        tags[path.stem] = kind(yaml.safe_load(text))
    assert all(tag == "small" for name, tag in tags.items() if name.endswith("-small"))
    assert {name: tags[name] for name in ("digits", "table2", "upsample_cond_500K")} == {
        "digits": "small", "table2": "full", "upsample_cond_500K": "import"
    }  # fmt: skip
