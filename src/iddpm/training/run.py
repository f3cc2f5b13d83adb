"""What every training shares: run step by step, log, checkpoint, stop on request, resume exactly."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from iddpm.training.checkpoint import Weights, newest_checkpoint, save_step, write_checkpoint
from iddpm.training.metrics_log import Meters, MetricsLog


@dataclass(frozen=True)
class WorkFolder:
    """A training's resume state: checkpoints, the metrics log and, at the end, the finished model."""

    path: Path

    @property
    def finished(self) -> Path:
        return self.path / "finished"

    @property
    def snapshots(self) -> Path:
        """Checkpoints to be kept with the finished model."""
        return self.path / "snapshots"

    @property
    def stop_request(self) -> Path:
        """A file whose appearance asks for a checkpoint and an early end."""
        return self.path / "stop"

    @property
    def error(self) -> Path:
        """The user's mistake that ended the training, if one did."""
        return self.path / "error"

    @property
    def metrics(self) -> MetricsLog:
        return MetricsLog(self.path / "metrics.jsonl")

    @property
    def messages(self) -> Path:
        """Lines for the user, from whichever process has something to say."""
        return self.path / "messages.log"

    def clear(self) -> None:
        """Drop the resume state of a training whose model is published; the metrics log stays."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        for path in (self.messages, self.stop_request, self.error, *self.path.glob("rendezvous-*")):
            path.unlink(missing_ok=True)

    def report(self, message: str) -> None:
        """Say something to the user."""
        with open(self.messages, "a") as stream:
            stream.write(message + "\n")


class Trainee(Protocol):
    """Anything trained in steps. Whatever its next step depends on is in weights() and state()."""

    meters: Meters

    def training_step(self, step: int) -> None:
        """Do step number `step`, counted from 0."""

    def learning_rate(self, step: int) -> float: ...

    def about(self) -> dict[str, Any]:
        """For checkpoint.json: what this is, full parameters, dataset card."""

    def weights(self) -> dict[str, Weights]: ...

    def state(self) -> dict[str, Any]:
        """The rest, loadable with weights_only."""

    def load(self, weights: Callable[[str], Weights], state: dict[str, Any]) -> None: ...


def train(
    trainee: Trainee,
    work: WorkFolder,
    *,
    steps: int,
    log_every: int,
    checkpoint_every: int,
    snapshot_every: int | None = None,
) -> bool:
    """Train from the newest checkpoint to the end (True: the model is in work.finished) or a requested stop.

    Every `snapshot_every` steps a checkpoint is also put into work.snapshots.
    Called by every worker of the process group, if there is one; only rank 0 writes.
    """
    step = _resume(trainee, work)
    while step < steps:
        if _stop_requested(work):
            _save(trainee, work, step)
            return False
        trainee.training_step(step)
        step += 1
        if step % log_every == 0 or step == steps:
            trainee.meters.reduce()
            if _is_first_rank():
                work.metrics.append(step, trainee.meters.means() | {"learning_rate": trainee.learning_rate(step - 1)})
            trainee.meters.reset()
        if snapshot_every and step % snapshot_every == 0 and _is_first_rank():
            path = work.snapshots / f"step-{step:09d}"
            write_checkpoint(path, trainee.about() | {"step": step}, trainee.weights(), trainee.state())
        if step % checkpoint_every == 0 and step < steps:
            _save(trainee, work, step)
    if _is_first_rank():
        write_checkpoint(work.finished, trainee.about() | {"step": step}, trainee.weights())
    return True


def _is_first_rank() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _stop_requested(work: WorkFolder) -> bool:
    """Whether rank 0 has seen a request; all workers stop at the same step."""
    seen = _is_first_rank() and work.stop_request.exists()
    if not dist.is_initialized():
        return seen
    flag = torch.tensor(float(seen), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(flag)
    return bool(flag.item())


def _save(trainee: Trainee, work: WorkFolder, step: int) -> None:
    trainee.meters.reduce()
    if _is_first_rank():
        state = {"trainee": trainee.state(), "meters": trainee.meters.state_dict()}
        save_step(work.path, step, trainee.about(), trainee.weights(), state)
    if dist.is_initialized():
        dist.barrier()


def _resume(trainee: Trainee, work: WorkFolder) -> int:
    report = work.report if _is_first_rank() else lambda message: None
    checkpoint = newest_checkpoint(work.path, report)
    step = 0
    if checkpoint is not None:
        state = checkpoint.state()
        step = checkpoint.about["step"]
        trainee.load(checkpoint.weights, state["trainee"])
        trainee.meters.load_state_dict(state["meters"])
        if not _is_first_rank():  # the sums of all workers went to rank 0
            trainee.meters.reset()
        report(f"resumed at step {step}")
    if _is_first_rank():
        work.metrics.cut_back(step)
    return step
