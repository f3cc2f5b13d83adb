"""A small DVC repository to run the flow on, a Prefect server, and a look at both from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from pipelines.slots import limit_of

PROJECT = Path(__file__).parents[2]

# A stage: logs, runs for a while or until it is interrupted, and writes when it ran and what it saw.
STEP = """
import atexit, json, os, signal, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
name, seconds = sys.argv[1], float(sys.argv[2])
start = time.time()
open(f"{name}.pid", "w").write(str(os.getpid()))
atexit.register(os.remove, f"{name}.pid")
print(f"{name} begins")
print(f"{name} 50%\\r{name} 100%\\r")
try:
    time.sleep(seconds)
except KeyboardInterrupt:
    open(f"{name}.checkpoint", "w").close()
    sys.exit(f"{name}: interrupted")
if name.startswith("broken") and not os.path.exists("mended"):
    sys.exit(f"{name}: out of luck")
seen = {key: value for key, value in os.environ.items() if key.startswith(("IDDPM_", "CUDA_"))}
json.dump({"start": start, "end": time.time(), "env": seen}, open(f"{name}.json", "w"))
"""

# In place of the project's command line: what the flow asks of it is written to cli.log.
CLI = """
import sys
from pathlib import Path
print(*sys.argv[1:], file=open("cli.log", "a"))
if "nonesuch" in sys.argv:
    sys.exit("iddpm: preset 'nonesuch': there is none of that name")
if sys.argv[1] == "register":
    print("registers", *sorted(path.stem for path in Path().glob("*.json")))
    if "unregistrable" in sys.argv:
        sys.exit("iddpm: the tracking server is away\\nand more")
"""


class Toy:
    """The repository: `Toy(root, a=[], b=["a"])` has stages a and b, and b depends on a."""

    def __init__(self, root: Path, seconds: float = 0.0, **stages: list[str]) -> None:
        self.root = root
        (root / "iddpm").mkdir(parents=True)
        own = PROJECT / "src" / "iddpm"  # for what the flow imports; only its commands are toys
        (root / "iddpm" / "__init__.py").write_text(f"__path__.append({str(own)!r})\n")
        (root / "iddpm" / "cli.py").write_text(CLI)
        (root / "step.py").write_text(STEP)
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": dict(map(self._stage, stages.items()))}))
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        (root / ".dvc").mkdir()
        (root / ".dvc" / "config").touch()
        self.parameters(seconds=seconds)

    def _stage(self, item: tuple[str, list[str]]) -> tuple[str, dict[str, Any]]:
        """`train_x` stands for the entry x of a foreach group `train`."""
        (group, _, entry), depends_on = item[0].partition("_"), item[1]
        stage = {
            "cmd": f"{sys.executable} step.py {entry or group} ${{seconds}}",
            "deps": ["step.py"] + [f"{name.partition('_')[2] or name}.json" for name in depends_on],
            "outs": [f"{entry or group}.json"],
        }
        return (group, {"foreach": [entry], "do": stage}) if entry else (group, stage)

    def parameters(self, **parameters: Any) -> None:
        """Write params.yaml anew; `seconds` is how long every stage takes."""
        (self.root / "params.yaml").write_text(yaml.safe_dump({"seconds": 0.0} | parameters))

    def record(self, stage: str) -> dict[str, Any] | None:
        path = self.root / f"{stage}.json"
        return dict(json.loads(path.read_text())) if path.exists() else None

    def alive(self, stage: str) -> bool:
        """Whether the last process of that stage is still there."""
        with suppress(ProcessLookupError, FileNotFoundError, ValueError):  # ended, not begun, just beginning
            os.kill(int((self.root / f"{stage}.pid").read_text()), 0)
            return True
        return False


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Toy]]:
    """Makes the repository and works in it."""
    monkeypatch.chdir(tmp_path)
    yield lambda **stages: Toy(tmp_path, **stages)
    for pid in tmp_path.glob("*.pid"):  # a failed test may leave a stage behind
        with suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Api"]:
    """A Prefect server for all tests; flows called in this process use it too."""
    home = tmp_path_factory.mktemp("prefect")
    with temporary_settings({PREFECT_HOME: home}), prefect_test_harness(server_startup_timeout=120):
        yield Api(PREFECT_API_URL.value() or "")


class Api:
    """What the UI does, through the same API."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/", timeout=60)

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def post(self, path: str, **body: Any) -> Any:
        return self.ask("POST", path, json=body)

    def ask(self, method: str, path: str, **content: Any) -> Any:
        """Asked again while the database is busy or a kept connection was closed, as Prefect's own client does."""
        response = httpx.Response(503)
        for _ in eventually():
            with suppress(httpx.RemoteProtocolError):
                response = self._client.request(method, path, **content)
            if response.status_code != 503:
                break
        response.raise_for_status()
        return response.json() if response.content else None

    def logs(self, flow_run: str, until: str) -> str:
        """The logs of a run; Prefect sends them with a delay, so they are asked for until `until` is there."""
        query = {"flow_run_id": {"any_": [flow_run]}}
        text = ""
        for _ in eventually():
            rows = self.post("logs/filter", logs=query, sort="TIMESTAMP_ASC")
            text = "\n".join(row["message"] for row in rows)
            if until in text:
                break
        return text

    def artifact(self, flow_run: str, key: str) -> Any:
        query = {"flow_run_id": {"any_": [flow_run]}, "key": {"any_": [key]}}
        (artifact,) = self.post("artifacts/filter", artifacts=query)
        return artifact["data"]

    def outcomes(self, flow_run: str) -> dict[str, str]:
        return {row["stage"]: row["state"] for row in json.loads(self.artifact(flow_run, "stages"))}

    def task_states(self, flow_run: str) -> dict[str, str]:
        """The tasks of a run as its page shows them, a little late; of a retried run the latest."""
        query = {"id": {"any_": [flow_run]}}
        rows = self.post("task_runs/filter", flow_runs=query, sort="EXPECTED_START_TIME_ASC")
        return {row["name"]: row["state_name"] for row in rows}

    def active_slots(self, device: str) -> int:
        """How many flow runs hold this GPU."""
        return int(self.get(f"v2/concurrency_limits/{limit_of(device)}")["active_slots"])

    def finished(self, flow_run: str) -> dict[str, Any]:
        """The final state of a run, waited for."""
        state: dict[str, Any] = {}
        for _ in eventually(120):
            state = self.get(f"flow_runs/{flow_run}")["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
                break
        return state


def eventually(seconds: float = 60) -> Iterator[None]:
    """Tries, until the caller is content; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} s", pytrace=True)


def flow_run_id(state: State[Any]) -> str:
    return str(state.state_details.flow_run_id)
