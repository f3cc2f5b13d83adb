"""What a flow run is going to do: the parameters it writes, the stages it runs, the GPUs they see."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

Graph = dict[str, set[str]]  # stage -> the stages it depends on


class Refused(Exception):
    """The run cannot start; the message is one line for the user."""


def prepare_parameters(preset: str | None, overrides: Mapping[str, Any]) -> None:
    """Write and check params.yaml with the project's own commands."""
    commands = [["preset", preset]] if preset else []
    if overrides:
        commands.append(["set", *(f"{key}={json.dumps(value)}" for key, value in overrides.items())])
    for command in [*commands, ["check"]]:
        done = subprocess.run([sys.executable, "-m", "iddpm.cli", *command], capture_output=True, text=True)
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise Refused(lines[-1] if lines else f"iddpm {command[0]} exited with {done.returncode}")


def stage_graph(targets: Sequence[str]) -> Graph:
    """DVC's own graph, cut down to `targets` and what they depend on."""
    try:
        with Repo(".") as repo:
            edges = repo.index.graph
            graph = {stage.addressing: {up.addressing for up in edges[stage]} for stage in edges}
    except DvcException as error:
        raise Refused(" ".join(str(error).split())) from error
    wanted = [] if targets else list(graph)
    for target in targets:
        if not (found := [stage for stage in graph if target in (stage, stage.split("@")[0])]):
            raise Refused(f"targets: there is no stage {target!r}; there are {', '.join(sorted(graph))}")
        wanted += found
    kept: Graph = {}
    while wanted:
        stage = wanted.pop()
        kept[stage] = graph[stage]
        wanted += graph[stage] - kept.keys()
    return {stage: kept[stage] for stage in TopologicalSorter(kept).static_order()}


def gpu_shares(gpus: int) -> list[dict[str, str]]:
    """For each of the stages that may use GPUs at once, the environment that shows it its share of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpus == 1:
        return [{}]
    devices = [str(device) for device in range(gpus)] if visible is None else visible.split(",")
    if len(devices) < gpus:
        raise Refused(f"gpus: {gpus} stages cannot share CUDA_VISIBLE_DEVICES={visible}")
    return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[slot::gpus])} for slot in range(gpus)]
