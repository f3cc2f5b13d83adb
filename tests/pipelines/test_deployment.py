"""The deployment of prefect.yaml, started with parameters as the Prefect UI starts it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.pipelines.conftest import PROJECT, Api, Toy, eventually

pytestmark = pytest.mark.tools


@contextmanager
def served(root: Path) -> Iterator[Api]:
    """pipelines/serve.sh until its worker is there; ended with Ctrl-C."""
    shutil.copytree(PROJECT / "pipelines", root / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "prefect.yaml", root)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    variables |= {"PREFECT_SERVER_API_PORT": port, "PREFECT_HOME": str(root / "home")}
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


def test_runs_and_is_cancelled_from_the_ui(tmp_path: Path, toy: Callable[..., Toy]) -> None:
    repository = toy(train_a=[])
    with served(tmp_path) as server:
        deployment = server.get("deployments/name/pipeline/local")["id"]
        parameters = {"preset": "tiny", "overrides": {"models.digits.rate": 1e-05, "note": "x"}, "targets": ["train"]}
        run = server.post(f"deployments/{deployment}/create_flow_run", parameters=parameters)["id"]
        assert server.finished(run)["message"] == "1 executed"
        assert server.outcomes(run) == {"train@a": "executed"}
        asked = (tmp_path / "cli.log").read_text().splitlines()
        assert asked == ["preset tiny", "set models.digits.rate=1e-05 note=x", "prune"]

        repository.seconds(600)
        run = server.post(f"deployments/{deployment}/create_flow_run", parameters={"gpus": 1})["id"]
        for _ in eventually():
            if repository.alive("a"):
                break
        server.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        for _ in eventually(20):
            if not repository.alive("a"):
                break
        assert (tmp_path / "a.checkpoint").exists()
        assert server.finished(run)["type"] == "CANCELLED"
        assert server.get("v2/concurrency_limits/gpu")["active_slots"] == 0
