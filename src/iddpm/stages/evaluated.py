"""What an evaluation found, and several that are sampling seeds of one thing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from iddpm.params import FREE_AMONG_SEEDS
from iddpm.stages.context import flatten

Json = dict[str, Any]
Interval = tuple[float, float]
BOUNDS = {
    "frechet_distance": (0, math.inf),
    "density": (0, math.inf),
    "inception_score": (1, math.inf),
} | dict.fromkeys(
    ("precision", "recall", "coverage", "authenticity", "copies", "label_accuracy", "label_accuracy_reference"), (0, 1)
)
"""Of scores that cannot lie elsewhere, nor their intervals."""
SPREADS = ("kid_standard_error", "inception_score_std")
"""Values that tell of another score how far it varies within one set of samples; none of their own."""


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
        """At 95 %, of the scores that have one; one without width is none, since it knows of no chance at all."""
        return {key: (low, high) for key, (low, high) in self.about["intervals"].items() if not math.isclose(low, high)}

    @property
    def deviations(self) -> dict[str, float]:
        """Standard deviations of the scores over the seeds; {} of one evaluation."""
        each = {key: [seed.scores[key] for seed in self.seeds] for key in self.scores}
        return {key: stdev(values) for key, values in each.items()} if self.seeds else {}

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
    def network(self) -> str:
        """The key of the model that made them, of a cascade the upsampler's."""
        key: str = self.sampling.get("model") or self.sampling["upsampler"]
        return key

    @property
    def model(self) -> str:
        """The same, with the training step of a snapshot."""
        step = self.sampling.get("checkpoint")
        return self.network if step is None else f"{self.network} at step {step:,}"

    @property
    def surrogate(self) -> str | None:
        return self.sampling.get("surrogate")

    @property
    def start(self) -> str:
        if "upsampler" in self.sampling:
            return f"low-resolution {self.sampling['samples']}"
        return f"{self.surrogate}, t_mid {self.sampling['t_mid']}" if self.surrogate else "noise"

    @property
    def sampler(self) -> str:
        eta = f", eta {self.sampling['eta']:g}" if self.sampling["sampler"] == "ddim" else ""
        return f"{self.sampling['sampler']}{eta}"

    @property
    def seconds_per_image(self) -> float:
        """In a cascade of all its stages."""
        return fmean(_seconds_per_image(seed.made) for seed in self.seeds or (self,))


def _seconds_per_image(made: Json) -> float:
    own: float = made["sampling_seconds"] / made["images"]
    return own + (_seconds_per_image(made["base"]) if "base" in made else 0.0)


def mean_over_seeds(seeds: Sequence[Evaluated]) -> Evaluated:
    """Of two or more: the mean of every score that all have, with Student's t interval at 95 % within its bounds.

    Where all seeds agree, as on no copies, their spread tells nothing, and there is no interval.
    """
    scores, intervals = {}, {}
    for key in seeds[0].scores:
        values = [seed.scores[key] for seed in seeds if key in seed.scores]
        if len(values) == len(seeds) and key not in SPREADS:
            scores[key] = fmean(values)
            if deviation := stdev(values):
                reach = float(stdtrit(len(values) - 1, 0.975)) * deviation / math.sqrt(len(values))
                least, most = BOUNDS.get(key, (-math.inf, math.inf))
                intervals[key] = (max(scores[key] - reach, least), min(scores[key] + reach, most))
    name = f"{seeds[0].name} ({len(seeds)} seeds)"
    return Evaluated(name, scores, seeds[0].about | {"intervals": intervals}, tuple(seeds))


def told_apart(one: Evaluated, other: Evaluated, score: str) -> bool | None:
    """Whether the intervals of a score do not overlap; None where one of them has none."""
    ours, theirs = one.intervals.get(score), other.intervals.get(score)
    if ours is None or theirs is None:
        return None
    return ours[1] < theirs[0] or theirs[1] < ours[0]
