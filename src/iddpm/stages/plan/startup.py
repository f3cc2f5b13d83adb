"""What a stage takes before and after its work, measured with the smallest stages there are."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iddpm.errors import UserError
from iddpm.params import Params
from iddpm.stages.run import ENTRY_POINTS

CURVES = (
    "from pathlib import Path; from iddpm.evaluation.figures import GAN_CURVES, training_curves; "
    "training_curves([{'step': step} | dict.fromkeys(GAN_CURVES, 1 / step) for step in range(1, 20)], GAN_CURVES, "
    "Path(folder, 'curves'))"
)
ON_THE_WAY = {
    "surrogate": f"import iddpm.training.gan; {CURVES}",
    "evaluate": "import matplotlib.figure, torchmetrics.image.kid, torchmetrics.image.inception, sklearn.calibration",
    "likelihood": "import matplotlib.figure",
    "gradient-noise": "import matplotlib.figure",
    "report": CURVES,
}
"""What stages do besides their work, beyond importing the module of their own."""
OF_THE_DIGITS = "import sklearn.datasets"
"""What a shard stage of the digits does so."""
TIMED = """
import os, sys, time
import iddpm.stages.run, iddpm.stages.shard, mlflow
folder = sys.argv[1]
for statements in sys.argv[2:]:
    if os.fork() == 0:  # so that one does not find what another has imported
        began = time.perf_counter()
        exec(statements)
        print(time.perf_counter() - began, flush=True)
        os._exit(0)
    os.wait()
"""
SMALLEST = {
    "datasets": {"digits": {"source": "digits"}},
    "models": {
        "smallest": {
            "dataset": "digits",
            "network": {"width": 8, "channel_mult": [1], "blocks": 1, "heads": 1},
            "diffusion": {"timesteps": 2},
            "training": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3},
        }
    },
}
"""A shard stage and a training with next to no work."""


def startup_seconds(kinds: Iterable[str], root: Path) -> dict[str, float]:
    """For each kind of stage: the wall time of such a stage without its work."""
    wanted = [kind for kind in dict.fromkeys(kinds) if kind != "train"]
    with TemporaryDirectory() as folder:
        project = Path(folder)
        for name in ("dvc.yaml", "src"):
            (project / name).symlink_to((root / name).resolve())
        params: dict[str, Any] = {name: {} for name, field in Params.model_fields.items() if field.is_required()}
        (project / "params.yaml").write_text(json.dumps(params | SMALLEST))
        _stage(project, "shard", "digits")  # makes the store of MLflow
        shard, train = _stage(project, "shard", "digits"), _stage(project, "train", "smallest")
        added = [f"import iddpm.stages.{ENTRY_POINTS[kind][0]}; {ON_THE_WAY.get(kind, 'pass')}" for kind in wanted]
        printed = _run([sys.executable, "-c", TIMED, folder, OF_THE_DIGITS, *added], root)
    digits, *seconds = map(float, printed.split())
    return {"train": train} | {kind: shard - digits + more for kind, more in zip(wanted, seconds, strict=True)}


def _stage(project: Path, kind: str, name: str) -> float:
    began = time.perf_counter()
    _run([sys.executable, "-m", "iddpm.cli", "stage", kind, name], project)
    return time.perf_counter() - began


def _run(command: list[str], folder: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_TRACKING", "IDDPM_"))}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"--measure: a stage without work failed: {last}")
    return done.stdout
