"""Training loops, checkpoints, and the Ray launcher."""

from iddpm.training.build import build_network, build_process, resolve_device
from iddpm.training.checkpoint import Checkpoint, open_checkpoint
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
