"""Brings run directories to MLflow: as often as wanted, by whoever comes along, with the same result.

MLflow holds the truth about what has arrived: every delivery asks it first and sends only what is missing.
"""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iddpm.errors import UserError
from iddpm.tracking.connection import connect, short_reason, shown_uri, tracking_lock
from iddpm.tracking.record import METRICS_FILE, RECORD_FILE, RunRecord, Status, read_rows, record_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DELIVERED_FILE = "delivered"  # holds the digest of the record that was delivered completely
_RUN_KEY, _PIPELINE_KEY, _PARENT_RUN = "iddpm.run_key", "iddpm.pipeline_key", "mlflow.parentRunId"


def deliver(run_dir: Path, root: Path) -> None:
    """Bring MLflow up to date with `run_dir`. Raises what MLflow raises; call again to go on from there."""
    with tracking_lock(root):
        if (run_dir / RECORD_FILE).exists():  # else it was delivered and tidied up by another process
            _deliver(run_dir, root)


def deliver_pending(work: Path, root: Path) -> list[str]:
    """Deliver all run directories below `work` that MLflow does not know completely; the keys it now does.

    A run whose process died without a word is reported as KILLED, until its stage resumes. Directories of
    finished runs that hold nothing but what has been delivered are removed.
    Raises UserError, after having tried all, if some could not be delivered.
    """
    delivered, troubles = [], []
    depths = (work.glob("*/" * depth + RECORD_FILE) for depth in range(4))
    for run_dir in sorted(path.parent for path in chain.from_iterable(depths)):
        try:
            with tracking_lock(root):
                if (run_dir / RECORD_FILE).exists():
                    delivered += _deliver_and_tidy(run_dir, root)
        except Exception as error:
            troubles.append(f"{run_dir}: {short_reason(error)}")
    if troubles:
        raise UserError(f"{shown_uri(root)} did not take {len(troubles)} of the runs, such as {troubles[0]}")
    return delivered


def _deliver_and_tidy(run_dir: Path, root: Path) -> list[str]:
    record = RunRecord.read(run_dir)
    pending = not _is_delivered(run_dir)
    if pending:
        _deliver(run_dir, root)
    if not _is_delivered(run_dir):
        return []
    _tidy(run_dir, root, record)
    return [record.key] if pending else []


def _is_delivered(run_dir: Path) -> bool:
    marker = run_dir / DELIVERED_FILE
    return marker.exists() and marker.read_text() == record_digest(run_dir)


def _tidy(run_dir: Path, root: Path, record: RunRecord) -> None:
    """Remove the directory of a finished and delivered run unless it holds something else."""
    own = {run_dir / name for name in (RECORD_FILE, METRICS_FILE, DELIVERED_FILE)}
    sent = [(root / path).resolve() for path, _ in record.artifacts]
    files = [path for path in run_dir.rglob("*") if not path.is_dir()]
    if record.status == "FINISHED" and all(
        path in own or any(path.resolve().is_relative_to(artifact) for artifact in sent) for path in files
    ):
        shutil.rmtree(run_dir)


def _deliver(run_dir: Path, root: Path) -> None:
    digest, record = record_digest(run_dir), RunRecord.read(run_dir)
    if record.status != "RUNNING" and _is_delivered(run_dir):
        return
    status = record.observed_status()
    end_ms = record.ended_ms or _last_sign_of_life_ms(run_dir)
    client, experiment = connect(root)
    parent = _parent_run(client, experiment, record)
    run = _stage_run(client, experiment, record, parent.info.run_id, end_ms)
    _send_values(client, run, record, run_dir)
    if status != "RUNNING":
        _send_artifacts(client, run.info.run_id, record, root)
    _set_status(client, run, status, end_ms)
    _note_on_parent(client, parent, record.address, status, end_ms)
    if status != "RUNNING":
        (run_dir / DELIVERED_FILE).write_text(digest)


def _note_on_parent(client: "MlflowClient", parent: "Run", address: str, status: Status, end_ms: int) -> None:
    """Tell the parent what became of one stage; its own status follows from those of all."""
    own = {"RUNNING": "running", "FINISHED": "executed"}.get(status, "failed")
    states = {key: value for key, value in parent.data.tags.items() if key.startswith("stage.")}
    if states.get(_stage_tag(address)) != own:
        client.set_tag(parent.info.run_id, _stage_tag(address), own)
    words = {**states, _stage_tag(address): own}.values()
    whole: Status = "RUNNING" if "running" in words else "FAILED" if "failed" in words else "FINISHED"
    _set_status(client, parent, whole, max(end_ms, parent.info.end_time or 0))


def _last_sign_of_life_ms(run_dir: Path) -> int:
    files = (run_dir / RECORD_FILE, run_dir / METRICS_FILE)
    return int(max(path.stat().st_mtime for path in files if path.exists()) * 1000)


def _set_status(client: "MlflowClient", run: "Run", status: Status, end_ms: int) -> None:
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status, end_ms)
    elif run.info.status != status:
        client.update_run(run.info.run_id, status)


def _parent_run(client: "MlflowClient", experiment: str, record: RunRecord) -> "Run":
    pipeline = record.pipeline
    if run := _find(client, experiment, _PIPELINE_KEY, pipeline.key):
        return run
    tags = {_PIPELINE_KEY: pipeline.key} | {_stage_tag(address): "not executed" for address in pipeline.stages}
    return client.create_run(experiment, record.started_ms, tags, pipeline.name)


def _stage_run(client: "MlflowClient", experiment: str, record: RunRecord, parent_id: str, end_ms: int) -> "Run":
    from mlflow.entities import RunTag
    from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

    tags = {_valid_name(key): value[:MAX_TAG_VAL_LENGTH] for key, value in record.tags.items()}
    tags |= {_RUN_KEY: record.key, _PARENT_RUN: parent_id}
    run = _find(client, experiment, _RUN_KEY, record.key)
    if run is None:
        return client.create_run(experiment, record.started_ms, tags, record.address)
    former_parent = client.get_run(run.data.tags[_PARENT_RUN])
    if former_parent.info.run_id != parent_id and former_parent.info.lifecycle_stage == "active":
        # Another execution resumes what this one left unfinished, perhaps without a word (kill -9).
        _note_on_parent(client, former_parent, record.address, "KILLED", end_ms)
    changed = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
    client.log_batch(run.info.run_id, tags=changed, synchronous=True)
    return run


def _find(client: "MlflowClient", experiment: str, tag: str, value: str) -> "Run | None":
    runs = client.search_runs([experiment], f"tags.`{tag}` = '{value}'", max_results=1)
    return runs[0] if runs else None


def _send_values(client: "MlflowClient", run: "Run", record: RunRecord, run_dir: Path) -> None:
    """Send the parameters and metrics that MLflow does not hold yet; the client splits them into its batches.

    Rows go in order of their steps, and MLflow takes a batch completely or not at all. So the last step it
    holds of a metric says which rows of it are there, wherever an earlier delivery broke off; rows that a
    resumed stage computed again are the same and are not sent twice.
    """
    from mlflow.entities import Metric, Param
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    params = [
        Param(key, value[:MAX_PARAM_VAL_LENGTH]) for key, value in _flat(record.params) if key not in run.data.params
    ]
    held = {metric.key: metric.step for metric in run.data._metric_objs}  # `data.metrics` has no steps
    rows = list(read_rows(run_dir))
    end = {"step": rows[-1]["step"] if rows else 0, "time_ms": record.ended_ms or 0}
    metrics = []
    for row in [*rows, {**record.scores, **end}]:
        for name, value in row.items():
            key = _valid_name(name)
            if name not in end and row["step"] > held.get(key, -1):
                held[key] = row["step"]
                metrics.append(Metric(key, value, row["time_ms"], row["step"]))
    client.log_batch(run.info.run_id, metrics=metrics, params=params, synchronous=True)


def _send_artifacts(client: "MlflowClient", run_id: str, record: RunRecord, root: Path) -> None:
    for name, folder in record.artifacts:
        path = root / name
        if path.is_dir():
            client.log_artifacts(run_id, str(path), folder or None)
        elif path.exists():
            client.log_artifact(run_id, str(path), folder or None)


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield _valid_name(prefix + name), value if isinstance(value, str) else json.dumps(value)


def _stage_tag(address: str) -> str:
    return _valid_name(f"stage.{address}")


def _valid_name(name: str) -> str:
    """`name` in the characters that MLflow allows on every platform: train@digits becomes train.digits."""
    return re.sub(r"[^\w./ -]", "_", name.replace("@", "."))
