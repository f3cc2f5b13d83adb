"""A small project in a temporary folder, with the real dvc.yaml and sources, and tiny parameters."""

import io
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from iddpm.checks import load_params
from iddpm.cli import main
from iddpm.errors import UserError

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PEAK_KIB = r"""
import re
from pathlib import Path

def peak_kib():
    '''Of this process's memory; ru_maxrss would begin at that of the process which started it.'''
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""
"""At the head of scripts that measure."""
QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}
for key in [key for key in os.environ if key.startswith(("MLFLOW_TRACKING", "IDDPM_"))]:
    del os.environ[key]  # the developer's own server and settings
os.environ.update(QUIET)
# Commands in this process, which may have MLflow behind it already; those of their own set it themselves.
os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"
# A shell that runs us in the background has Ctrl-C ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two test processes share the cores; waiting OpenMP threads would take them from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that the processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("tools")}
    items.sort(key=lambda item: item.path not in slow)


TINY = """
datasets:
  digits: {source: digits, images_per_block: 64, images_per_shard: 300}
surrogates:
  sngan: {kind: sngan, dataset: digits, conditioning: class, steps: 2, critic_steps: 1, batch_size: 16,
          generator_width: 8, discriminator_width: 8, z_dim: 8, log_every: 1}
models:
  digits: &model
    dataset: digits
    network: {width: 8, channel_mult: [1, 2], blocks: 1, attention_sizes: [4], heads: 2, conditioning: class}
    diffusion: {timesteps: 20}
    training: &training {steps: 4, batch_size: 16, learning_rate: 1.0e-3, log_every: 2, checkpoint_every: 2}
imports: {}
mixtures: {}
samplings:
  ancestral: {model: digits, steps: 5, count: 20}
surrogate_samplings:
  sngan-10: {model: digits, surrogate: sngan, t_mid: 10, steps: 3, count: 20}
cascades: {}
reconstructions: {}
evaluations:
  ancestral: &evaluation
    {samples: ancestral, dataset: digits, features: pixels, kid_subset_size: 10, inception_splits: 2}
  sngan-10: {<<: *evaluation, samples: sngan-10}
likelihoods:
  digits: {model: digits, dataset: digits, images: 10}
gradient_noises: {}
report: {}
"""


def tiny_params() -> dict:
    return yaml.safe_load(TINY)


def write_tiny_params(folder: Path, changes: dict[str, Any]) -> Path:
    """params.yaml with the tiny parameters and some dotted keys changed; its path."""
    params = tiny_params()
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = params
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path


def assert_checked(folder: Path, changes: dict[str, Any], message: str | None) -> None:
    """The tiny parameters with these changes are sound, or refused in one line that holds the message."""
    path = write_tiny_params(folder, changes)
    if message is None:
        load_params(path)
    else:
        with pytest.raises(UserError) as error:
            load_params(path)
        assert message in str(error.value) and len(str(error.value).splitlines()) == 1


class Project:
    """A project folder and ways to run commands in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {key: value for key, value in os.environ.items() if key != "MLFLOW_LOGGING_LEVEL"}
        self.env["PATH"] = f"{BIN}{os.pathsep}{self.env['PATH']}"

    def write(self, params: dict) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def run(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(command, cwd=self.root, env=self.env | env, capture_output=True, text=True)
        if check and result.returncode:
            raise AssertionError(f"{command} exited with {result.returncode}:\n{result.stdout}\n{result.stderr}")
        return result

    def answer(self, *arguments: str) -> str:
        """What `iddpm` prints for these arguments, in this process, which has the imports behind it."""
        code, printed, said = self._main(arguments)
        assert code == 0, said
        return printed

    def mistake(self, *arguments: str) -> str:
        """What `iddpm` says to these arguments, in this process; it must exit with 1 or 2."""
        code, _, said = self._main(arguments)
        assert code in (1, 2)
        return said

    def _main(self, arguments: tuple[str, ...]) -> tuple[object, str, str]:
        """Exit code, output and error."""
        with (
            pytest.MonkeyPatch.context() as patch,
            mock.patch.dict(os.environ),
            redirect_stdout(io.StringIO()) as printed,
            redirect_stderr(io.StringIO()) as said,
        ):
            patch.chdir(self.root)
            patch.setattr(sys, "argv", ["iddpm", *arguments])
            patch.setattr("iddpm.cli._end_with_parent", lambda: None)  # this process shall not
            with pytest.raises(SystemExit) as ended:
                main()
        return ended.value.code, printed.getvalue(), said.getvalue()

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.root, env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


def make_project(root: Path) -> Project:
    root.mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "presets", root / "presets")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for source in ("digits", "photos", "cifar10", "images"):
        (root / "data" / "raw" / source).mkdir(parents=True)
    networks, no_weights = Path("data/raw/features"), shutil.ignore_patterns("*.pth")
    shutil.copytree(ROOT / networks, root / networks, ignore=no_weights)
    folders = (
        "metrics", "evaluations", "reconstructions", "likelihoods", "gradient-noise", "samples", "models", "surrogates",
        "times",
    )  # fmt: skip
    for folder in folders:
        (root / "runs" / folder).mkdir(parents=True)
        (root / "runs" / folder / ".gitkeep").touch()
    (root / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", root / ".dvc" / "config")
    made = Project(root)
    made.run("git", "init", "-q")
    made.write(tiny_params())
    return made
