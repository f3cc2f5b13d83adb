"""What a pipeline will take, before it runs: parameters, arithmetic, memory, time and disk of every stage."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iddpm.checks import contradictions, load_params
from iddpm.errors import UserError
from iddpm.params import Params
from iddpm.stages.plan.demands import demands_of
from iddpm.stages.plan.known import Demand
from iddpm.stages.plan.machines import Gpus, Machine, ThisMachine
from iddpm.stages.plan.schedule import critical_path, side_by_side
from iddpm.stages.plan.table import cut_to_width, duration, power, quantity, size, wrapped

__all__ = ["Gpus", "Plan", "plan"]

EXPLANATIONS = (
    "work: steps x images of a training, images x network evaluations of a sampling or likelihood, samples + reference "
    "images of an evaluation, snapshots x batches x images of gradient noise. madds: multiply-adds of one forward pass "
    "of one image.",
    "FLOP: a multiply-add counts as two, a training step as three forward passes. memory: of one worker at its peak, "
    "without a kernel's scratch memory. disk: outputs; DVC's cache holds them once more unless its file system can "
    "share blocks.",
)
HEADER = ["stage", "parameters", "madds", "work", "FLOP", "memory", "disk"]


@dataclass(frozen=True)
class Plan:
    """The demands of every stage, and its seconds on a machine."""

    demands: list[Demand]
    seconds: dict[str, float]
    machine: Machine
    notes: list[str]

    @property
    def gpu_seconds(self) -> float:
        return sum(self.seconds[demand.address] * demand.workers for demand in self.demands)

    @property
    def path(self) -> list[str]:
        return critical_path(self.demands, self.seconds)

    @property
    def path_seconds(self) -> float:
        return sum(self.seconds[address] for address in self.path)

    @property
    def wall_seconds(self) -> float:
        """Side by side on the machine's GPUs; one stage after another where it has no such number."""
        if self.machine.gpus is None:
            return sum(self.seconds.values())
        return side_by_side(self.demands, self.seconds, self.machine.gpus)


def plan(
    root: Path,
    path: Path,
    *,
    gpus: Gpus | None = None,
    workers: int | None = None,
    images: Sequence[str] = (),
    as_json: bool = False,
) -> str:
    """The plan of a parameter file on GPUs, or on this machine as measured, as a table or as JSON.

    `workers` stands for compute.workers; `images` are texts FOLDER=IMAGES or FOLDER=TRAIN,TEST for image folders.
    UserError for any other text, and when a training needs more GPUs than there are.
    """
    params = _with_workers(load_params(path), workers, path)
    if gpus is not None and params.compute.workers > gpus.count:
        raise UserError(
            f"compute.workers: {params.compute.workers} workers of a training need a GPU each, --gpus is {gpus.count}; "
            "raise it, or give --workers"
        )
    demands, notes = demands_of(params, root, dict(map(_told, images)))
    machine = gpus or ThisMachine(demands, params.compute.device, root)
    seconds = {demand.address: machine.seconds(demand) for demand in demands}
    found = Plan(demands, seconds, machine, notes)
    return json.dumps(_as_json(found), indent=2) if as_json else "\n".join(_as_table(found))


def _told(text: str) -> tuple[str, tuple[int, ...]]:
    """A folder of images, and how many there are."""
    folder, _, numbers = text.partition("=")
    counts = tuple(int(number) if number.isdecimal() else 0 for number in numbers.split(","))
    if not (folder and 1 <= len(counts) <= 2 and all(counts)):
        raise UserError(f"--images {text}: give a folder of data/raw/images as FOLDER=IMAGES or FOLDER=TRAIN,TEST")
    return folder, counts


def _with_workers(params: Params, workers: int | None, path: Path) -> Params:
    if workers is None:
        return params
    changed = params.model_copy(update={"compute": params.compute.model_copy(update={"workers": workers})})
    if problems := list(contradictions(changed)):
        raise UserError("\n".join(f"{path}: with --workers {workers}: {problem}" for problem in problems))
    return changed


def _as_table(found: Plan) -> list[str]:
    on_gpus = found.machine.gpus is not None
    rows = [[*HEADER, *(("GPU time", "time") if on_gpus else ("time",))]]
    for demand in found.demands:
        taken = found.seconds[demand.address]
        times = [taken * demand.workers, taken] if on_gpus else [taken]
        rows.append([demand.address, *_cells(demand), *map(duration, times)])
    totals = [found.gpu_seconds, found.wall_seconds] if on_gpus else [found.wall_seconds]
    flops, disk = (sum(getattr(demand, name) for demand in found.demands) for name in ("flops", "disk"))
    memory = max(sum(demand.memory.values()) for demand in found.demands)
    rows.append(["total", "", "", "", power(flops), size(memory), size(disk), *map(duration, totals)])
    return [
        *cut_to_width(rows),
        "",
        *(line for paragraph in (*_sentences(found), *EXPLANATIONS, *found.notes) for line in wrapped(paragraph)),
    ]


def _cells(demand: Demand) -> list[str]:
    return [
        quantity(demand.parameters),
        quantity(demand.multiply_adds),
        demand.work or "-",
        power(demand.flops),
        size(sum(demand.memory.values())),
        size(demand.disk),
    ]


def _sentences(found: Plan) -> list[str]:
    """What the numbers mean, and the totals in words."""
    machine, wall = found.machine, duration(found.wall_seconds)
    paper = sum(demand.paper_flops for demand in found.demands)
    running = sum(demand.running_disk for demand in found.demands)
    host = max(found.demands, key=lambda demand: demand.host_memory)
    if machine.gpus is None:
        how = f"Time: {machine.description}; {wall} for one stage after another, as dvc repro runs them."
    else:
        how = (
            f"Time: {machine.description}; a training takes one for each worker. All stages side by side: {wall}; "
            f"one after another: {duration(sum(found.seconds.values()))}. Only arithmetic counts: not reading images, "
            "not the start of a stage, not what runs on CPUs alone (shard, import, mix, report)."
        )
    return [
        how,
        f"Longest chain, {duration(found.path_seconds)} however many stages run at once: {' -> '.join(found.path)}.",
        f"Training compute as the paper counts it (multiply-adds x 2 x 3 x images): {power(paper)} FLOP. "
        f"What stages keep in work/ to resume from takes {size(running)} more disk until they end.",
        f"Host memory, besides what is on a GPU: at most {size(host.host_memory)}, in {host.address}.",
    ]


def _as_json(found: Plan) -> dict[str, Any]:
    stages = []
    for demand in found.demands:
        stage = {name: value for name, value in asdict(demand).items() if name != "operations"}
        stage |= {"flops": demand.flops, "memory_total": sum(demand.memory.values())}
        stages.append(stage | {"seconds": found.seconds[demand.address]})
    return {
        "machine": found.machine.as_json(),
        "stages": stages,
        "total": {
            "flops": sum(demand.flops for demand in found.demands),
            "paper_flops": sum(demand.paper_flops for demand in found.demands),
            "gpu_seconds": found.gpu_seconds if found.machine.gpus is not None else None,
            "seconds_one_after_another": sum(found.seconds.values()),
            "seconds": found.wall_seconds,
            "memory": max(sum(demand.memory.values()) for demand in found.demands),
            "host_memory": max(demand.host_memory for demand in found.demands),
            "disk": sum(demand.disk for demand in found.demands),
            "running_disk": sum(demand.running_disk for demand in found.demands),
        },
        "critical_path": {"stages": found.path, "seconds": found.path_seconds},
        "notes": found.notes,
    }
