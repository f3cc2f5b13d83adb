"""The log of a training's metrics."""

import json
from pathlib import Path

import pytest

from iddpm.training.metrics_log import MetricsLog


@pytest.mark.parametrize(
    ("rows", "pace"),
    [
        ([(10, 0), (20, 5_000), (30, 10_000), (35, 12_500)], 0.5),  # the last row comes sooner, at as many s a step
        ([(10, 0), (20, 5_000), (30, 9_000_000), (40, 9_005_000)], 0.5),  # resumed hours later
        ([(10, 0), (20, 9_000_000), (30, 9_005_000)], 0.5),
        ([(10, 0), (20, 5_000)], None),  # these may hold a pause, as hours do
        ([(50, 0), (100, 3_600_000)], None),
        ([(10, 0)], None),
        ([], None),
    ],
)
def test_a_pause_between_rows_does_not_count(tmp_path: Path, rows: list[tuple[int, int]], pace: float | None) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.path.write_text("".join(json.dumps({"step": step, "time_ms": time}) + "\n" for step, time in rows))
    assert log.seconds_per_step() == pace


def test_a_log_knows_its_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step, now in ((2, 100.0), (4, 101.0), (6, 102.0)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        log.append(step, {"loss": 1.0})
    assert log.seconds_per_step() == 0.5
