"""What a flow run is going to do: the parameters it writes and the stages it runs."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from iddpm.presets import has_edits

PARAMETERS = Path("params.yaml")
WORK = Path("work")  # ignored by git and DVC
WRITTEN = WORK / "params-of-a-flow.yaml"  # params.yaml as a flow run last left it

Graph = dict[str, list[str]]  # stage -> the stages it depends on


class Refused(Exception):
    """The run cannot start; the message is one line for the user."""


def prepare_parameters(preset: str | None, force: bool, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Write and check params.yaml with the project's own commands; what it then holds.

    What an earlier flow run wrote may be replaced without `force`: the record of that run has it. So may what was a
    preset or committed before; hence overrides of such parameters are a flow's own too.
    """
    ours = not has_edits(Path()) or (WRITTEN.exists() and WRITTEN.read_bytes() == PARAMETERS.read_bytes())
    commands = [["preset", preset, *(["--force"] if force or ours else [])]] if preset else []
    if overrides:
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}
        commands.append(["set", *(f"{key}={value}" for key, value in values.items())])
    for command in [*commands, ["prune"]]:  # which checks first
        done = subprocess.run([sys.executable, "-m", "iddpm.cli", *command], capture_output=True, text=True)
        if done.returncode:
            raise Refused(done.stderr.strip() or f"iddpm {command[0]} exited with {done.returncode}")
        ours = ours or command[0] == "preset"
        if ours:
            shutil.copy(PARAMETERS, WRITTEN)
    return dict(yaml.safe_load(PARAMETERS.read_text()))


def stage_graph(targets: Sequence[str]) -> Graph:
    """DVC's own graph, cut down to `targets` and what they depend on."""
    try:
        with Repo(".") as repo:
            edges = repo.index.graph
            graph = {stage.addressing: sorted(up.addressing for up in edges[stage]) for stage in edges}
    except DvcException as error:
        raise Refused(" ".join(str(error).split())) from error
    wanted = set() if targets else set(graph)
    for target in targets:
        if not (found := {stage for stage in graph if target in (stage, stage.split("@")[0])}):
            raise Refused(f"targets: there is no stage {target!r}; there are {', '.join(sorted(graph))}")
        wanted |= found
    kept: set[str] = set()
    while wanted:
        kept.add(stage := wanted.pop())
        wanted |= set(graph[stage]) - kept
    order = TopologicalSorter({stage: graph[stage] for stage in sorted(kept)})
    return {stage: graph[stage] for stage in order.static_order()}
