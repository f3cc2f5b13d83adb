"""One Prefect flow over DVC's graph: a task per stage, independent stages side by side.

`python -m pipelines.flow` runs it, on a temporary server unless PREFECT_API_URL names one; the deployment in
prefect.yaml runs it from the Prefect UI. Both work on the repository whose root is the current directory.
"""

import argparse
import csv
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack, contextmanager, nullcontext
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
from prefect import flow, get_client, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectConcurrentFuture
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from pipelines.plan import Graph, Refused, gpu_shares, prepare_parameters, stage_graph
from pipelines.stages import Stages, Stopped

GPU_GROUPS = {"surrogate", "train", "sample", "surrogate-sample", "cascade", "reconstruct", "likelihood", "evaluate"}
GPU_LIMIT = "gpu"
LEASE_SECONDS = 60  # a slot whose flow was killed -9 is free again after this
POLL_SECONDS = 3.0
REPORT = Path("runs/report")


class Result(NamedTuple):
    state: State[Any]
    seconds: float


Results = dict[str, Result]  # of the stages that were reached, in the order they ended


@flow(name="pipeline")
def pipeline(
    preset: str | None = None,
    force: bool = False,
    overrides: Mapping[str, Any] = {},
    targets: Sequence[str] = [],
    gpus: Annotated[int, Field(ge=0)] = 0,
    max_workers: Annotated[int, Field(ge=1)] = 2,
    keep_going: bool = True,
) -> State[None]:
    """Bring the stages of dvc.yaml up to date; those whose inputs did not change are skipped.

    Args:
        preset: Name of a file in presets/ that replaces params.yaml first. Empty: keep params.yaml as it is.
        force: Let the preset replace a params.yaml whose changes are in no commit.
        overrides: Values to write into params.yaml by their dotted key, for example
            {"models.digits.training.learning_rate": 0.0005}.
        targets: Stages (train@digits) or whole groups (train) to bring up to date, with all they depend on.
            Empty: every stage.
        gpus: How many stages may use a GPU at the same time; the visible GPUs are shared out evenly among
            them. 0: no limit, for a machine without GPUs.
        max_workers: How many stages may run at the same time.
        keep_going: After a failure, still run the stages that do not depend on it.
    """
    try:
        shares = gpu_shares(gpus)
        prepare_parameters(preset, force, overrides)
        graph = stage_graph(targets)
    except Refused as refusal:
        return Failed(message=str(refusal))
    if gpus:
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, gpus)
    stages = Stages()
    try:
        results = run_graph(graph, stages, shares, max_workers, keep_going)
        cancelled = stages.stopping
    finally:
        stages.stop()
    publish(graph, results)
    return Cancelled(message="Cancelled by the user.") if cancelled else summary(graph, results, stages.last_lines)


def run_graph(
    graph: Graph, stages: Stages, shares: list[dict[str, str]], max_workers: int, keep_going: bool
) -> Results:
    """Run each stage once all it depends on have ended; GPU stages each take one of `shares`, if any."""
    identity = {"IDDPM_PIPELINE_KEY": str(runtime.flow_run.id), "IDDPM_PIPELINE_NAME": runtime.flow_run.name}
    order, ready, limited = TopologicalSorter(graph), list[str](), bool(shares)
    order.prepare()
    futures: dict[str, PrefectConcurrentFuture[Any]] = {}
    running: dict[Any, tuple[str, float, dict[str, str] | None]] = {}
    results: Results = {}
    going = True
    while order.is_active() and (running or going):
        ready += order.get_ready()
        for stage in tuple(ready) if going else ():
            on_gpu = limited and stage.split("@")[0] in GPU_GROUPS
            if len(running) == max_workers or (on_gpu and not shares):
                continue
            ready.remove(stage)
            share = shares.pop(0) if on_gpu else None
            future = run_stage.submit(
                stage,
                stages,
                identity | (share or {}),
                on_gpu,
                return_state=False,
                wait_for=[futures[up] for up in graph[stage]],
            )
            assert isinstance(future, PrefectConcurrentFuture)
            futures[stage] = future
            running[future.wrapped_future] = stage, time.monotonic(), share
        for done in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
            stage, start, share = running.pop(done)
            futures[stage].wait()
            results[stage] = Result(futures[stage].state, time.monotonic() - start)
            shares += [] if share is None else [share]
            order.done(stage)
            going = going and (keep_going or not results[stage].state.is_failed())
        if not stages.stopping and cancel_requested():
            going = False
            stages.stop()
    return results


@task(task_run_name="{stage}", cache_policy=NO_CACHE)
def run_stage(stage: str, stages: Stages, env: Mapping[str, str], on_gpu: bool) -> State[None]:
    """`dvc repro` of one stage. The name of its state says what dvc did: Executed, Cached or Restored."""
    logger = get_run_logger()
    outcome = "Executed"

    def log(line: str) -> None:
        nonlocal outcome
        logger.info(line)
        if line.endswith(f"'{stage}' didn't change, skipping"):
            outcome = "Cached"
        elif line.startswith(f"Stage '{stage}' is cached - skipping run"):
            outcome = "Restored"

    try:
        with gpu_slot(stages) if on_gpu else nullcontext():
            code = stages.run(stage, env, log)
    except Stopped:
        return Cancelled(message="Ended with the flow.")
    if code:  # the stage's last word and dvc's
        return Failed(message=" | ".join(list(stages.last_lines[stage])[-2:]))
    return Completed(name=outcome)


@contextmanager
def gpu_slot(stages: Stages) -> Iterator[None]:
    """Hold a slot that other flow runs respect too. Waiting for one ends when the flow does."""
    if PREFECT_API_URL.value() is None:  # a temporary server: nobody would take back the slot of a killed flow
        yield
        return
    with ExitStack() as held:
        while not stages.stopping:
            slot = concurrency(
                GPU_LIMIT,
                timeout_seconds=POLL_SECONDS,
                lease_duration=LEASE_SECONDS,
                strict=True,
                raise_on_lease_renewal_failure=False,  # a server that is away must not end a training
            )
            try:
                held.enter_context(slot)
            except TimeoutError:
                continue
            yield
            return
        raise Stopped


def cancel_requested() -> bool:
    """Whether this run was cancelled in the UI. For a run started by hand no worker would tell it."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(runtime.flow_run.id).state
    except httpx.HTTPError:
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


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


def summary(graph: Graph, results: Results, last_lines: Mapping[str, Iterable[str]]) -> State[None]:
    """The flow's own final state; a failure names the failed stages, and their last lines are logged."""
    outcomes = Counter(outcome_of(results.get(stage)) for stage in graph)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    failed = {stage: result.state.message for stage, result in results.items() if result.state.is_failed()}
    for stage in failed:
        get_run_logger().error("\n    ".join([f"{stage} failed:", *last_lines.get(stage, ())]))
    if not failed:
        return Completed(message=counts)
    return Failed(message="; ".join(f"{stage} failed: {why}" for stage, why in failed.items()) + f" ({counts})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow here and now; the exit status is 0 only if it completed."""
    about = {name: field["description"] for name, field in pipeline.parameters.properties.items()}
    parser = argparse.ArgumentParser(prog="python -m pipelines.flow")
    parser.add_argument("--preset", help=about["preset"])
    parser.add_argument("--force", action="store_true", help=about["force"])
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="A value to write into params.yaml by its dotted key; may be repeated.",
    )
    parser.add_argument("--target", dest="targets", action="append", default=[], metavar="STAGE", help=about["targets"])
    parser.add_argument("--gpus", type=int, default=0, help=about["gpus"])
    parser.add_argument("--max-workers", type=int, default=2, help=about["max_workers"])
    options = vars(parser.parse_args(arguments))
    if wrong := [text for text in options["overrides"] if "=" not in text]:
        parser.error(f"--set {wrong[0]}: write KEY=VALUE")
    options["overrides"] = dict(text.split("=", 1) for text in options["overrides"])
    # A temporary server must outlive Ctrl-C, to record it, and end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            client.hello()
    except httpx.HTTPError as error:
        parser.exit(1, f"PREFECT_API_URL={PREFECT_API_URL.value()}: {error}\n")
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        state = pipeline(**options, return_state=True)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
