"""From a stage's name to its module."""

import importlib
import sys
from pathlib import Path

from iddpm.stages.context import Stage, StageInterrupted, say

ENTRY_POINTS = {
    "shard": ("shard", "run"),
    "surrogate": ("train", "run_surrogate"),
    "train": ("train", "run"),
    "import": ("import_weights", "run"),
    "mix": ("mix", "run"),
    "sample": ("sample", "run"),
    "surrogate-sample": ("sample", "run"),
    "cascade": ("cascade", "run"),
    "reconstruct": ("reconstruct", "run"),
    "evaluate": ("evaluate", "run"),
    "likelihood": ("likelihood", "run"),
    "gradient-noise": ("gradient_noise", "run"),
    "report": ("report", "run"),
}
"""Stage -> module in iddpm.stages and function."""


GOES_ON = {
    "surrogate": "goes on from the last checkpoint",
    "train": "goes on from the last checkpoint",
    "sample": "goes on after the last finished batch",
    "surrogate-sample": "goes on after the last finished batch",
    "cascade": "goes on after the last finished batch",
    "reconstruct": "goes on after the last finished batch",
    "evaluate": "goes on after the last thousand images whose features are kept",
    "likelihood": "goes on after the last finished batch",
    "gradient-noise": "goes on after the last finished snapshot",
}
"""What the command of a stage does after an interruption; that of any other starts again."""


def run_stage(kind: str, name: str, root: Path) -> None:
    """Run one stage; exits with 128 + signal when it was interrupted."""
    stage = Stage(kind, name, root)
    try:
        _dispatch(stage)
    except StageInterrupted as interruption:
        say(f"{stage.address}: stopped; the same command {GOES_ON.get(kind, 'starts it again')}")
        sys.exit(128 + interruption.signum)


def _dispatch(stage: Stage) -> None:
    module, function = ENTRY_POINTS[stage.kind]
    # Only the one stage's imports: they cost more than a small stage's work.
    getattr(importlib.import_module(f"iddpm.stages.{module}"), function)(stage)
