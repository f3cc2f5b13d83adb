"""One Prefect flow over DVC's graph: a task per stage, independent stages side by side.

`python -m pipelines.flow` runs it, on a temporary server unless PREFECT_API_URL names one; the deployments of
pipelines.deploy run it from the Prefect UI. Both work on the repository whose root is the current directory.
"""

import argparse
import platform
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack, contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

import httpx
from filelock import FileLock, Timeout
from prefect import flow, get_client, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectConcurrentFuture
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from iddpm.presets import chosen_preset
from pipelines.outcomes import Result, Results, publish, summary
from pipelines.plan import WORK, Graph, Refused, prepare_parameters, stage_graph
from pipelines.slots import Slots, demands, gpu_devices, limit_of
from pipelines.stages import Stages, Stopped, repro

LEASE_SECONDS = 60  # a slot whose flow was killed -9 is free again after this
POLL_SECONDS = 3.0


@flow(name="pipeline")
def pipeline(
    preset: str | None = None,
    force: bool = False,
    overrides: Mapping[str, Any] = {},
    targets: Sequence[str] = [],
    gpus: Annotated[int, Field(ge=0)] | None = None,
    cpu_slots: Annotated[int, Field(ge=1)] = 2,
    keep_going: bool = True,
    register_results: bool | None = None,
) -> State[None]:
    """Bring the stages of dvc.yaml up to date; those whose inputs did not change are skipped.

    Args:
        preset: Name of a file in presets/ that replaces params.yaml first. Empty: keep params.yaml as it is.
        force: Let the preset replace a params.yaml whose changes are in no commit.
        overrides: Values to write into params.yaml by their dotted key, for example
            {"models.digits.training.learning_rate": 0.0005}.
        targets: Stages (train@digits) or whole groups (train) to bring up to date, with all they depend on.
            Empty: every stage.
        gpus: How many GPUs of the machine the stages may take: one each, a training one for each of its
            compute.workers. Empty: all that are visible. 0: stages on GPUs, if any, are limited by cpu_slots only.
        cpu_slots: How many stages without a GPU of their own may run at the same time. A training on Ray workers
            counts as many as it has workers.
        keep_going: After a failure, still run the stages that do not depend on it.
        register_results: At the end, register every finished model and cascade with all its scores in MLflow, under the
            preset's name. Empty: yes, but not with overrides, which make a trial. Never done when there are targets,
            or when params.yaml is no preset's.
    """
    stages = Stages()
    with alone_in_checkout() as alone:
        if not alone:
            return Cancelled(message="Cancelled by the user.")
        get_run_logger().info("Works in %s on %s", Path.cwd(), platform.node())
        try:
            devices = gpu_devices(gpus)
            parameters = prepare_parameters(preset, force, overrides)
            graph = stage_graph(targets)
            slots = Slots(demands(graph, parameters, len(devices), cpu_slots), devices, cpu_slots)
        except Refused as refusal:
            return Failed(message=str(refusal))
        with get_client(sync_client=True) as client:
            for device in devices:
                client.upsert_global_concurrency_limit_by_name(limit_of(device), 1)
        try:
            results = run_graph(graph, stages, slots, keep_going)
            trial = bool(overrides) and register_results is None
            wanted = register_results is not False and not targets and not stages.stopping
            registration = register(preset, trial, stages) if wanted else None
            cancelled = stages.stopping
        finally:
            stages.stop()
        publish(graph, results)
    if cancelled:
        return Cancelled(message="Cancelled by the user.")
    return summary(graph, results, stages.last_lines, registration)


@contextmanager
def alone_in_checkout() -> Iterator[bool]:
    """Wait until no other flow run works in this folder, for they all write its params.yaml. False: cancelled."""
    WORK.mkdir(exist_ok=True)
    lock = FileLock(WORK / "pipeline.lock")
    waiting = False
    while not (waiting and cancel_requested()):
        try:
            with lock.acquire(timeout=POLL_SECONDS):
                yield True
                return
        except Timeout:
            if not waiting:
                get_run_logger().info("Waiting for another flow run in %s to end.", Path.cwd())
            waiting = True
    yield False


def run_graph(graph: Graph, stages: Stages, slots: Slots, keep_going: bool) -> Results:
    """Run each stage once all it depends on have ended and its slots are free."""
    identity = {"IDDPM_PIPELINE_KEY": str(runtime.flow_run.id), "IDDPM_PIPELINE_NAME": runtime.flow_run.name}
    order = TopologicalSorter(graph)
    order.prepare()
    futures: dict[str, PrefectConcurrentFuture[Any]] = {}
    running: dict[Any, tuple[str, float]] = {}
    results: Results = {}
    going = True
    while order.is_active() and (running or going):
        slots.enqueue(order.get_ready())
        for stage, devices in slots.admitted() if going else ():
            future = run_stage.submit(stage, stages, identity, devices, wait_for=[futures[up] for up in graph[stage]])
            assert isinstance(future, PrefectConcurrentFuture)
            futures[stage] = future
            running[future.wrapped_future] = stage, time.monotonic()
        for done in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
            stage, start = running.pop(done)
            futures[stage].wait()
            results[stage] = Result(futures[stage].state, time.monotonic() - start)
            slots.release(stage)
            order.done(stage)
            going = going and (keep_going or not results[stage].state.is_failed())
        if not stages.stopping and cancel_requested():
            going = False
            stages.stop()
    return results


def register(preset: str | None, trial: bool, stages: Stages) -> State[Any]:
    """Register what the stages left, unless it is a trial's; the state says why not, if not."""
    name = preset or chosen_preset(Path())
    if name is None:
        return Completed(message="not registered: params.yaml is no preset's; `iddpm register --name NAME` does it")
    if trial:
        return Completed(
            message="not registered: a trial with overrides; register_results, or `iddpm register --name NAME`, does it"
        )
    future = run_register.submit(name, stages)
    assert isinstance(future, PrefectConcurrentFuture)
    while not wait([future.wrapped_future], POLL_SECONDS).done:
        if not stages.stopping and cancel_requested():
            stages.stop()
    future.wait()
    return future.state


@task(task_run_name="{stage}", cache_policy=NO_CACHE)
def run_stage(stage: str, stages: Stages, env: Mapping[str, str], devices: Sequence[str]) -> State[None]:
    """`dvc repro` of one stage. The name of its state says what dvc did: Executed, Cached or Restored."""
    logger = get_run_logger()
    outcome = "Executed"
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}

    def log(line: str) -> None:
        nonlocal outcome
        logger.info(line)
        if line.endswith(f"'{stage}' didn't change, skipping"):
            outcome = "Cached"
        elif line.startswith(f"Stage '{stage}' is cached - skipping run"):
            outcome = "Restored"

    try:
        with held(devices, stages):
            code = stages.run(stage, repro(stage), {**env, **visible}, log)
    except Stopped:
        return Cancelled(message="Ended with the flow.")
    if code:  # the stage's last word and dvc's
        return Failed(message=" | ".join(list(stages.last_lines[stage])[-2:]))
    return Completed(name=outcome)


@task(name="register", task_run_name="register", cache_policy=NO_CACHE)
def run_register(name: str, stages: Stages) -> State[None]:
    """`iddpm register`: what is complete becomes versions of the registered model, unless it is one already."""
    logger = get_run_logger()
    lines: list[str] = []

    def log(line: str) -> None:
        logger.info(line)
        lines.append(line)

    try:
        code = stages.run("register", [sys.executable, "-m", "iddpm.cli", "register", "--name", name], {}, log)
    except Stopped:
        return Cancelled(message="Ended with the flow.")
    if code:
        said = next((line for line in lines if line.startswith("iddpm: ")), f"exited with {code}")
        return Failed(message=said)
    return Completed(name="Registered")


@contextmanager
def held(devices: Sequence[str], stages: Stages) -> Iterator[None]:
    """Hold these GPUs, all or none, so that other flow runs on this machine respect it.

    Waiting for them ends when the flow does.
    """
    # without a server of its own, nobody would take back the slot of a killed flow
    if not devices or PREFECT_API_URL.value() is None:
        yield
        return
    with ExitStack() as stack:
        while not stages.stopping:
            slots = concurrency(
                [limit_of(device) for device in devices],
                timeout_seconds=POLL_SECONDS,
                lease_duration=LEASE_SECONDS,
                strict=True,
                raise_on_lease_renewal_failure=False,  # a server that is away must not end a training
            )
            try:
                stack.enter_context(slots)
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
    parser.add_argument("--gpus", type=int, help=about["gpus"])
    parser.add_argument("--cpu-slots", type=int, default=2, help=about["cpu_slots"])
    parser.add_argument(
        "--register",
        dest="register_results",
        action=argparse.BooleanOptionalAction,
        help="Register the results, or not; by default yes, but not with --set.",
    )
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
