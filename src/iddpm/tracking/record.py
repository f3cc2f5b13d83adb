"""The run directory a stage writes: `run.json` says what runs, `metrics.jsonl` holds a training's curves.

A stage only ever writes such local files; `delivery` brings them to MLflow whenever that is possible.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import psutil  # type: ignore[import-untyped,unused-ignore]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iddpm.errors import UserError

RECORD_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_KEY = r"^[\w.-]+$"  # keys are quoted in MLflow's search expressions
_SAME_START_S = 5.0  # the start time of one process, read twice, moves when the system clock is corrected


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _new_key() -> str:
    return uuid.uuid4().hex


class Process(BaseModel):
    """A process of this machine; its start (seconds since the epoch) tells it from a later one of its pid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int = Field(default_factory=os.getpid)
    started_s: float = Field(default_factory=lambda: float(psutil.Process().create_time()))

    def lives(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(float(process.create_time()) - self.started_s) < _SAME_START_S
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


class Pipeline(BaseModel):
    """One execution of the whole graph: the parent of the runs of its stages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(pattern=_KEY, description="unique to this execution")
    name: str = Field(description="the parent run's name")
    stages: tuple[str, ...] = Field(description="addresses of all stages of the graph, such as train@digits")


class RunRecord(BaseModel):
    """What MLflow is told about one run of one stage, except its curves. Times are in ms since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    key: str = Field(default_factory=_new_key, pattern=_KEY, description="unique to this run, resumed or not")
    stage: str
    name: str = Field(default="", description="the entry it runs for; empty where there is none")
    pipeline: Pipeline
    params: dict[str, Any] = {}
    tags: dict[str, str] = {}
    started_ms: int = Field(default_factory=_now_ms)
    ended_ms: int | None = None
    status: Status = "RUNNING"
    scores: dict[str, float] = {}
    artifacts: tuple[tuple[str, str], ...] = Field(
        default=(), description="(path, absolute or from the root; folder in MLflow, empty for its top)"
    )
    process: Process = Field(default_factory=Process, description="the process that runs the stage")

    @property
    def address(self) -> str:
        return f"{self.stage}@{self.name}" if self.name else self.stage

    def observed_status(self) -> Status:
        """The status written, but KILLED where the process that should be running is gone."""
        return "KILLED" if self.status == "RUNNING" and not self.process.lives() else self.status

    def resumed(self, pipeline: Pipeline) -> Self:
        """The same run, taken up again by this process within another execution of the graph."""
        changes = {"pipeline": pipeline, "status": "RUNNING", "ended_ms": None, "process": Process()}
        return self.model_copy(update=changes)

    def ended(
        self,
        status: Literal["FINISHED", "FAILED", "KILLED"],
        scores: Mapping[str, float] | None = None,
        artifacts: tuple[tuple[str, str], ...] = (),
    ) -> Self:
        outcome = {"scores": dict(scores or {}), "artifacts": artifacts}
        return self.model_copy(update={"status": status, "ended_ms": _now_ms(), **outcome})

    def write(self, run_dir: Path) -> None:
        """Replace the record of `run_dir` in one step."""
        run_dir.mkdir(parents=True, exist_ok=True)
        unfinished = run_dir / f".{RECORD_FILE}.new"
        with unfinished.open("w") as file:
            file.write(self.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(run_dir / RECORD_FILE)

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Raises FileNotFoundError where there is no record, UserError where it is damaged."""
        try:
            return cls.model_validate_json((run_dir / RECORD_FILE).read_bytes())
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(key) for key in problem["loc"]) or "file"
            raise UserError(f"{run_dir / RECORD_FILE} is damaged: {where}: {problem['msg']}") from None


def record_digest(run_dir: Path) -> str:
    return hashlib.sha256((run_dir / RECORD_FILE).read_bytes()).hexdigest()


def read_rows(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The rows {"step", "time_ms", metric: value, ...} as written, without what a kill left half-written."""
    path = run_dir / METRICS_FILE
    if path.exists():
        with path.open("rb") as log:
            yield from filter(None, map(_parse, log))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
