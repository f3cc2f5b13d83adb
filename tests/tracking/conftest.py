"""What the tracking tests share: a project of their own, and a look into MLflow that passes our code by."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from iddpm.tracking import Pipeline, RunRecord, tracking_uri
from iddpm.tracking.record import METRICS_FILE
from iddpm.training.metrics_log import MetricsLog


@pytest.fixture
def new_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a project that nobody has tracked yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "my project"
    root.mkdir()
    return root


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without a row: creating them takes most of a second."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}")
    return path


@pytest.fixture
def root(new_root: Path, empty_database: Path) -> Path:
    """The root of a project whose database exists and holds nothing."""
    shutil.copy(empty_database, new_root)
    return new_root


@pytest.fixture
def dead_server() -> Iterator[str]:
    """An address that refuses connections for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://user:secret@127.0.0.1:{bound.getsockname()[1]}"


def child_environment(**changes: str) -> dict[str, str]:
    """For a process that is to import what this one can, and to find the commands installed beside Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": path, **changes}


@contextmanager
def mlflow_process(*arguments: str, health: str, cwd: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `mlflow ARGUMENTS` on a free port of this machine until its page `health` answers; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", *arguments, "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with (cwd / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment, cwd=cwd, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120  # a busy machine
        while not _answers(f"{address}/{health}"):
            alive = server.poll() is None and time.monotonic() < deadline
            assert alive, (cwd / "server.log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def pipeline(*stages: str) -> Pipeline:
    return Pipeline(key=uuid.uuid4().hex, name="pipeline of today", stages=stages or ("train@digits",))


def record(of: Pipeline | None = None, stage: str = "train", name: str = "digits") -> RunRecord:
    return RunRecord(stage=stage, name=name, pipeline=of or pipeline())


def append_row(run_dir: Path, step: int, metrics: dict[str, float]) -> None:
    MetricsLog(run_dir / METRICS_FILE).append(step, metrics)


def cut_back(run_dir: Path, step: int) -> None:
    MetricsLog(run_dir / METRICS_FILE).cut_back(step)


def all_runs(root: Path) -> list[Run]:
    client = MlflowClient(tracking_uri=tracking_uri(root))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments))


def stage_run(root: Path, address: str = "train@digits") -> Run:
    (run,) = [run for run in all_runs(root) if run.info.run_name == address]
    return run


def parent_run(root: Path) -> Run:
    (run,) = [run for run in all_runs(root) if run.info.run_name == "pipeline of today"]
    return run


def curve(root: Path, metric: str, address: str = "train@digits") -> list[tuple[int, float]]:
    """Every row MLflow holds of one metric, by step."""
    client = MlflowClient(tracking_uri=tracking_uri(root))
    rows = client.get_metric_history(stage_run(root, address).info.run_id, metric)
    return sorted((row.step, row.value) for row in rows)
