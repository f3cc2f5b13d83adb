"""The run directory: what a stage writes must survive whatever ends it."""

import math
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from iddpm.tracking.record import METRICS_FILE, Process, RunRecord, read_rows
from tests.tracking.conftest import append_row, pipeline, record


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    ended = record().ended("FINISHED", {"loss": 0.25, "kid": math.inf}, (("runs/grid.png", "figures"),))
    ended.write(tmp_path / "new" / "directory")
    assert RunRecord.read(tmp_path / "new" / "directory") == ended
    assert ended.ended_ms is not None and ended.ended_ms >= ended.started_ms


def test_a_resumed_run_keeps_its_key_and_forgets_its_end() -> None:
    killed = record().ended("KILLED")
    resumed = killed.resumed(pipeline("train@digits", "sample@digits"))
    assert (resumed.key, resumed.started_ms) == (killed.key, killed.started_ms)
    assert (resumed.status, resumed.ended_ms) == ("RUNNING", None)
    assert resumed.pipeline != killed.pipeline


def test_a_key_that_would_break_a_search_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        RunRecord(key="a' or '", stage="train", pipeline=pipeline())


def test_running_means_that_the_process_lives() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = Process(pid=child.pid, started_s=psutil.Process(child.pid).create_time())
        running = record().model_copy(update={"process": process})
        assert running.observed_status() == "RUNNING"
        another = process.model_copy(update={"started_s": process.started_s - 3600})
        assert running.model_copy(update={"process": another}).observed_status() == "KILLED"
        child.kill()
        child.wait()
    assert running.observed_status() == "KILLED"
    assert running.ended("FAILED").observed_status() == "FAILED"


def test_a_half_written_last_line_is_ignored(tmp_path: Path) -> None:
    append_row(tmp_path, 1, {"loss": math.inf})
    with (tmp_path / METRICS_FILE).open("a") as log:
        log.write('{"step": 2, "time_ms": 17')
    assert [(row["step"], row["loss"]) for row in read_rows(tmp_path)] == [(1, math.inf)]


def test_a_run_without_metrics_has_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(tmp_path)) == []
