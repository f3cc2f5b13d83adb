"""When stages run: one after another, side by side within a number of GPUs, and the longest chain among them."""

import heapq
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from iddpm.stages.plan.known import Demand


def side_by_side(demands: Sequence[Demand], seconds: Mapping[str, float], gpus: int) -> float:
    """Seconds until all have ended, when each starts as soon as those before it are done and its GPUs are free.

    A stage that waits for GPUs does not hold up smaller ones behind it.
    """
    waiting, done, running = list(demands), set[str](), list[tuple[float, str, int]]()
    now = 0.0
    while waiting or running:
        for demand in tuple(waiting):
            if demand.workers <= gpus and done.issuperset(demand.needs):
                waiting.remove(demand)
                gpus -= demand.workers
                heapq.heappush(running, (now + seconds[demand.address], demand.address, demand.workers))
        now, ended, freed = heapq.heappop(running)
        done.add(ended)
        gpus += freed
    return now


def critical_path(demands: Sequence[Demand], seconds: Mapping[str, float]) -> list[str]:
    """The chain of stages that takes longest, which no number of GPUs makes shorter; `demands` in their order."""
    ends: dict[str, tuple[float, list[str]]] = {}
    for demand in _ordered(demands):
        before = max((ends[need] for need in demand.needs), key=lambda end: end[0], default=(0.0, list[str]()))
        ends[demand.address] = before[0] + seconds[demand.address], [*before[1], demand.address]
    return max(ends.values(), key=lambda end: (end[0], len(end[1])))[1]


def _ordered(demands: Sequence[Demand]) -> list[Demand]:
    by_address = {demand.address: demand for demand in demands}
    order = TopologicalSorter({demand.address: demand.needs for demand in demands}).static_order()
    return [by_address[address] for address in order]
