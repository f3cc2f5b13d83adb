"""How long operations take: on GPUs of a stated rate, or on this machine as measured."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from iddpm.evaluation.features import FEATURE_NETWORKS
from iddpm.params import Device
from iddpm.stages.plan.known import Demand
from iddpm.stages.plan.measure import Stopwatch
from iddpm.stages.plan.startup import startup_seconds


class Machine(Protocol):
    """Where the pipeline would run. `gpus` is how many GPUs stages share; None where they run one after another."""

    @property
    def gpus(self) -> int | None: ...

    @property
    def description(self) -> str: ...

    def seconds(self, demand: Demand) -> float:
        """Wall time of a stage."""
        ...

    def as_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Gpus:
    """`count` GPUs of `tflops` 10^12 bfloat16 operations per second at their peak, of which a share is reached."""

    count: int
    tflops: float
    utilisation: float

    @property
    def gpus(self) -> int:
        return self.count

    @property
    def description(self) -> str:
        what = "1 GPU" if self.count == 1 else f"{self.count} GPUs"
        return f"{what} of {self.tflops:g} TFLOPS in bfloat16, {self.utilisation:.0%} of the peak reached"

    def seconds(self, demand: Demand) -> float:
        """Of the arithmetic alone: what a CPU does meanwhile, and starting the stage, is not counted."""
        rate = self.tflops * 1e12 * self.utilisation
        busy = sum(operation.flops * operation.slowdown * times for operation, times in demand.operations)
        return busy / (rate * max(1, demand.workers))

    def as_json(self) -> dict[str, Any]:
        return {"gpus": self.count, "tflops": self.tflops, "utilisation": self.utilisation}


class ThisMachine:
    """One process after another on this machine, whose operations and whose start of a stage are measured."""

    gpus = None

    def __init__(self, demands: Sequence[Demand], device: Device, root: Path) -> None:
        self._startup = startup_seconds([_kind(demand) for demand in demands], root)
        self._stopwatch = Stopwatch(device, root / FEATURE_NETWORKS)

    @property
    def description(self) -> str:
        device = self._stopwatch.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return f"this machine, measured: {device.type} ({name}), {torch.get_num_threads()} threads, in one process"

    def seconds(self, demand: Demand) -> float:
        """Of the whole stage, its start included."""
        work = sum(self._stopwatch.seconds(operation) * times for operation, times in demand.operations)
        return self._startup[_kind(demand)] + work

    def as_json(self) -> dict[str, Any]:
        device = self._stopwatch.device
        return {"device": device.type, "threads": torch.get_num_threads(), "startup_seconds": self._startup}


def _kind(demand: Demand) -> str:
    return demand.address.partition("@")[0]
