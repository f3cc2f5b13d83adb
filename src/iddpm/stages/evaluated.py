"""What an evaluation found, and several that are sampling seeds of one thing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from iddpm.params import FREE_AMONG_SEEDS
from iddpm.stages.context import flatten

Json = dict[str, Any]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: its scores, and in `about` (protocol.json) all that defines them.

    Or the mean over `seeds`: `about` is that of the first but for the intervals, which are of the mean.
    """

    name: str
    scores: dict[str, float]
    about: Json
    seeds: tuple["Evaluated", ...] = ()

    @property
    def protocol(self) -> Json:
        """What another evaluation must share to be compared, as dotted keys."""
        return flatten(self.about["protocol"])

    @property
    def intervals(self) -> dict[str, Interval]:
        """At 95 %, of the scores that have one."""
        return {key: (low, high) for key, (low, high) in self.about["intervals"].items()}

    @property
    def made(self) -> Json:
        """The record of the samples."""
        made: Json = self.about["samples"]
        return made

    @property
    def sampling(self) -> Json:
        """The parameters of the samples; {} of samples that do not tell how they were made."""
        sampling: Json = self.made.get("params", {})
        return sampling

    @property
    def all_but_seed(self) -> Json:
        """What made the samples, as dotted keys, without the seed and what does not change them."""
        kept = {key: value for key, value in self.sampling.items() if key not in FREE_AMONG_SEEDS}
        return flatten(kept | {"inputs": self.made.get("inputs", {})})

    @property
    def surrogate(self) -> str | None:
        return self.sampling.get("surrogate")

    @property
    def start(self) -> str:
        return f"{self.surrogate}, t_mid {self.sampling['t_mid']}" if self.surrogate else "noise"

    @property
    def sampler(self) -> str:
        eta = f", eta {self.sampling['eta']:g}" if self.sampling["sampler"] == "ddim" else ""
        return f"{self.sampling['sampler']}{eta}"

    @property
    def seconds_per_image(self) -> float:
        each = [seed.made["sampling_seconds"] / seed.made["images"] for seed in self.seeds or (self,)]
        return fmean(each)


def mean_over_seeds(seeds: Sequence[Evaluated]) -> Evaluated:
    """Of two or more: the mean of every score that all have, with Student's t interval at 95 %.

    Where all seeds agree, as on no copies, their spread tells nothing, and there is no interval.
    """
    scores, intervals = {}, {}
    for key in seeds[0].scores:
        values = [seed.scores[key] for seed in seeds if key in seed.scores]
        if len(values) == len(seeds):
            scores[key] = fmean(values)
            if deviation := stdev(values):
                reach = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
                intervals[key] = (scores[key] - reach, scores[key] + reach)
    name = f"{seeds[0].name} ({len(seeds)} seeds)"
    return Evaluated(name, scores, seeds[0].about | {"intervals": intervals}, tuple(seeds))


def told_apart(one: Evaluated, other: Evaluated, score: str) -> bool | None:
    """Whether the intervals of a score do not overlap; None where one of them has none."""
    ours, theirs = one.intervals.get(score), other.intervals.get(score)
    if ours is None or theirs is None:
        return None
    return ours[1] < theirs[0] or theirs[1] < ours[0]
