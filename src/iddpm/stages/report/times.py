"""Times of trainings and samplings, and their ratios, unless the machine decided them."""

from dataclasses import dataclass
from statistics import fmean

from iddpm.stages.evaluated import Evaluated
from iddpm.stages.report.blocks import number
from iddpm.stages.report.gather import Results
from iddpm.stages.report.scores import quoted

UNSTEADY = 1.25
"""Ratio of the paces of one row's seeds beyond which they tell of the machine: the work is the same."""


@dataclass(frozen=True)
class Times:
    """What each seed of a row took: seconds by the step or image, of which it took so many."""

    what: str
    unit: str
    paces: list[float]
    count: int = 1

    @property
    def seconds(self) -> float:
        """The mean over the seeds."""
        return fmean(self.paces) * self.count

    @property
    def unsteady(self) -> bool:
        return max(self.paces) > UNSTEADY * min(self.paces)

    def __str__(self) -> str:
        """With the range of paces."""
        return f"{self.what} ({seeds_range(self.paces)} {self.unit})"


def seeds_range(values: list[float]) -> str:
    """The least and the most."""
    return f"{number(min(values), 3)} to {number(max(values), 3)}"


def training_times(results: Results, one: Evaluated) -> Times | None:
    """Of the model's training up to its checkpoint; None where a pace is not known."""
    paces: list[float] = []
    for network in dict.fromkeys(each.network for each in one.sets):
        pace = results.times.get(f"runs/models/{network}", {}).get("seconds_per_step")
        if pace is None:
            return None
        paces.append(pace)
    steps = one.sampling.get("checkpoint") or results.models[one.network]["params"]["training"]["steps"]
    return Times(f"training of {quoted(one)}", "s a step", paces, steps)


def sampling_times(one: Evaluated) -> Times:
    """In a cascade of all its stages."""
    return Times(f"sampling of {quoted(one)}", "s an image", [each.seconds_per_image for each in one.sets])


def ratio(over: Times, under: Times) -> tuple[str, list[str]] | None:
    """Of the means, and as a remark what it is at least and at most by single seeds; None if one is unsteady."""
    if over.unsteady or under.unsteady:
        return None
    seconds = [[pace * times.count for pace in times.paces] for times in (over, under)]
    ends = [min(seconds[0]) / max(seconds[1]), max(seconds[0]) / min(seconds[1])]
    single = over == under or max(len(over.paces), len(under.paces)) == 1
    return number(over.seconds / under.seconds, 3), [] if single else [f"seeds {seeds_range(ends)}"]
