"""What became of a flow run: artifacts for the UI, and the run's final state."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from pipelines.plan import Graph

REPORT = Path("runs/report")


class Result(NamedTuple):
    state: State[Any]
    seconds: float


Results = dict[str, Result]  # of the stages that were reached, in the order they ended


def outcome_of(result: Result | None) -> str:
    if result is None or result.state.name in ("NotReady", "Cancelled"):
        return "not run"
    return str(result.state.name).lower()


def publish(graph: Graph, results: Results) -> None:
    """Artifacts for the UI: what happened to each stage, and the report if this run brought it up to date."""
    rows = [
        {"stage": stage, "state": outcome_of(result), "seconds": round(result.seconds, 1) if result else None}
        for stage in graph
        for result in [results.get(stage)]
    ]
    create_table_artifact(rows, key="stages", description="What happened to each stage")
    if "report" not in results or not results["report"].state.is_completed():
        return
    if (scores := REPORT / "scores.csv").exists():
        with scores.open(newline="") as file:
            create_table_artifact(list(csv.DictReader(file)), key="scores", description=str(scores))
    if (report := REPORT / "report.md").exists():
        create_markdown_artifact(report.read_text(), key="report", description=str(report))


def summary(
    graph: Graph, results: Results, last_lines: Mapping[str, Iterable[str]], registration: State[Any] | None
) -> State[None]:
    """The flow's own final state; a failure names the failed stages, and their last lines are logged.

    The registration's message, if any, comes last: where stages failed, it only says what is missing for that.
    """
    outcomes = Counter(outcome_of(results.get(stage)) for stage in graph)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    failed = {stage: result.state.message for stage, result in results.items() if result.state.is_failed()}
    for stage in failed:
        get_run_logger().error("\n    ".join([f"{stage} failed:", *last_lines.get(stage, ())]))
    said = [f"{stage} failed: {why}" for stage, why in failed.items()]
    if registration is not None and registration.is_failed():
        said.append(f"register failed: {registration.message}")
    elif registration is not None and registration.message:
        counts += f"; {registration.message}"
    return Failed(message=f"{'; '.join(said)} ({counts})") if said else Completed(message=counts)
