"""Slots: which stages may run at the same time, and on which GPUs of this machine."""

import os
import platform
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch.cuda import device_count

from pipelines.plan import Graph, Refused

GPU_GROUPS = {
    "surrogate", "train", "sample", "surrogate-sample", "cascade", "reconstruct", "likelihood", "gradient-noise",
    "evaluate",
}  # fmt: skip


class Demand(NamedTuple):
    """What a stage takes while it runs."""

    slots: int
    on_gpus: bool


def demands(graph: Graph, parameters: Mapping[str, Any], gpus: int, cpu_slots: int) -> dict[str, Demand]:
    """One slot for a stage, and one for each worker of a diffusion model's training.

    With RAY_ADDRESS the workers are on that cluster, and a slot for CPUs is all that their training takes here.
    Refused when a training asks for more than there are: it would wait for ever.
    """
    compute = parameters.get("compute", {})
    workers = compute.get("workers", 0)
    use_gpus = gpus > 0 and compute.get("device") != "cpu"
    needed = {}
    for stage in graph:
        on_workers = workers > 0 and _is_diffusion_training(stage, parameters)
        on_cluster = on_workers and bool(os.environ.get("RAY_ADDRESS"))
        on_gpus = use_gpus and stage.split("@")[0] in GPU_GROUPS and not on_cluster
        slots = workers if on_workers and not on_cluster else 1
        name, limit = ("gpus", gpus) if on_gpus else ("cpu_slots", cpu_slots)
        if slots > limit:
            raise Refused(
                f"compute.workers: {stage} takes a slot for each of its {slots} workers and the flow's {name} is "
                f"{limit}; lower the one or raise the other"
            )
        needed[stage] = Demand(slots, on_gpus)
    return needed


def _is_diffusion_training(stage: str, parameters: Mapping[str, Any]) -> bool:
    group, _, name = stage.partition("@")
    return group == "train" or (group == "surrogate" and parameters["surrogates"][name]["kind"] == "low_resolution")


def gpu_devices(gpus: int | None) -> list[str]:
    """The first `gpus` of the devices that this process may use, as CUDA_VISIBLE_DEVICES names them; None: all."""
    if gpus == 0:
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        devices = [device.strip() for device in visible.split(",") if device.strip()]
    else:
        devices = [str(device) for device in range(device_count())]
    if gpus is None:
        return devices[: device_count()]  # what is named need not be there
    if len(devices) < gpus:
        where = "this machine has" if visible is None else f"CUDA_VISIBLE_DEVICES={visible} names"
        raise Refused(f"gpus: {gpus} is more than the {len(devices)} that {where}")
    return devices[:gpus]


def limit_of(device: str) -> str:
    """The name of the Prefect concurrency limit, of one slot, that stands for a GPU of this machine."""
    return f"gpu-{platform.node()}-{device}"


class Slots:
    """The slots of one flow run.

    Whoever waits longest is served first and nobody overtakes, so that a training gets its many slots in the end
    however many small stages are ready.
    """

    def __init__(self, needed: Mapping[str, Demand], devices: list[str], cpu_slots: int) -> None:
        self._needed = needed
        self._free = {True: list(devices), False: [str(slot) for slot in range(cpu_slots)]}
        self._taken: dict[str, list[str]] = {}
        self._waiting: dict[bool, deque[str]] = {True: deque(), False: deque()}

    def enqueue(self, stages: Iterable[str]) -> None:
        for stage in stages:
            self._waiting[self._needed[stage].on_gpus].append(stage)

    def admitted(self) -> Iterator[tuple[str, list[str]]]:
        """The stages that may start now, each with the GPUs it takes."""
        for on_gpus, waiting in self._waiting.items():
            free = self._free[on_gpus]
            while waiting and (count := self._needed[waiting[0]].slots) <= len(free):
                stage = waiting.popleft()
                self._taken[stage], free[:count] = free[:count], []
                yield stage, self._taken[stage] if on_gpus else []

    def release(self, stage: str) -> None:
        self._free[self._needed[stage].on_gpus] += self._taken.pop(stage)
