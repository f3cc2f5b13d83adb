"""Training loops, checkpoints, and the Ray launcher."""

from iddpm.training.build import build_network, build_process
from iddpm.training.checkpoint import Checkpoint, open_checkpoint
from iddpm.training.device import resolve_device
from iddpm.training.run import WorkFolder, train

__all__ = [
    "Checkpoint",
    "WorkFolder",
    "build_network",
    "build_process",
    "open_checkpoint",
    "resolve_device",
    "train",
]
