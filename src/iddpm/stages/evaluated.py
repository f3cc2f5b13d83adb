"""What an evaluation found, and several that are seeds of one thing, of its sampling or of its training."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.special import stdtrit

from iddpm.params import FREE_AMONG_SEEDS, FREE_AMONG_TRAINING_SEEDS
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
IN_PROPORTION = ("frechet_distance", "frechet_distance_infinity", "kid", "inception_score")
"""Scores without an upper bound, whose spread over seeds grows with their level."""
SPREADS = ("kid_standard_error", "inception_score_std")
"""Values that tell of another score how far it varies within one set of samples; none of their own."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: its scores, and in `about` (protocol.json) all that defines them.

    Or the mean over `seeds`: `about` is that of the first but for the intervals, which are of the mean. Seeds that are
    trainings may themselves be means, over sampling seeds.
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
    def sets(self) -> list["Evaluated"]:
        """Each set of images for itself."""
        return [one for seed in self.seeds for one in seed.sets] if self.seeds else [self]

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
    def network(self) -> str:
        """The key of the model that made them, of a cascade the upsampler's."""
        key: str = self.sampling.get("model") or self.sampling["upsampler"]
        return key

    @property
    def model(self) -> str:
        """The same, with the training step of a snapshot; over several trainings what their names have in common."""
        step, name = self.sampling.get("checkpoint"), common_name([one.network for one in self.sets])
        return name if step is None else f"{name} at step {step:,}"

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
        return fmean(_seconds_per_image(one.made) for one in self.sets)


def _seconds_per_image(made: Json) -> float:
    seconds: float = sum(stage["sampling_seconds"] / stage["images"] for stage in chain(made))
    return seconds


def chain(made: Json) -> list[Json]:
    """The record of samples, in a cascade then those of the stages below it."""
    return [made, *(chain(made["base"]) if made.get("base") else [])]


def trainings(made: Json) -> str:
    """What the record of samples tells of the trained models that drew them, in a cascade of all: a key."""
    params, parts = made.get("params", {}), []
    parts.append({key: params[key] for key in ("model", "upsampler", "surrogate") if key in params})
    parts.append({path: of for path, of in made.get("inputs", {}).items() if not path.startswith("runs/samples/")})
    return json.dumps([*parts, trainings(made["base"]) if made.get("base") else ""], sort_keys=True)


def sampling_seeds(made: Json) -> list[int | None]:
    """Of each stage of a cascade, the last one first."""
    return [stage.get("params", {}).get("seed") for stage in chain(made)]


def all_but_sampling_seeds(made: Json) -> Json:
    """What made samples, in a cascade at every stage, without the seeds and what does not change them."""
    kept = {key: value for key, value in made.get("params", {}).items() if key not in FREE_AMONG_SEEDS}
    inputs: Json = made.get("inputs", {})
    if made.get("base"):  # stands for its name and its fingerprint
        kept |= {"samples": all_but_sampling_seeds(made["base"])}
        inputs = {path: of for path, of in inputs.items() if not path.startswith("runs/samples/")}
    return kept | {"inputs": inputs}


def all_but_seeds(made: Json, models: Mapping[str, Json]) -> Json:
    """Likewise without the seeds of trainings: each model is its training, by its checkpoint.json in `models`."""
    params = made["params"]
    own = {key: value for key, value in params.items() if key not in FREE_AMONG_SEEDS}
    own |= {key: _training(params[key], models) for key in ("model", "upsampler") if key in params}
    own |= {"samples": all_but_seeds(made["base"], models)} if made.get("base") else {}
    return own | {path: of for path, of in made.get("inputs", {}).items() if path.startswith("runs/surrogates/")}


def _training(name: str, models: Mapping[str, Json]) -> Any:
    """What trained a model but for its seed; of one that was not trained here its name, of a mixture both parts."""
    params: Json = models[name]["params"]
    if models[name]["kind"] == "mixture":
        return params | {part: _training(params[part], models) for part in ("middle", "ends")}
    training = params.get("training")
    if not training:
        return name
    kept = {key: value for key, value in training.items() if key not in FREE_AMONG_TRAINING_SEEDS}
    return params | {"training": kept}


def common_name(names: Sequence[str]) -> str:
    """IWDiff of IWDiff-0 and IWDiff-1: without the numbers in which they differ; the first where more differs."""
    parts = [re.split(r"(?=[-_.])", name) for name in names]
    if len({len(of_one) for of_one in parts}) > 1:
        return names[0]
    places = list(zip(*parts, strict=True))
    differing = {part for place in places if len(set(place)) > 1 for part in place}
    kept = "".join(place[0] for place in places if len(set(place)) == 1)
    kept = re.sub(r"[-_.]seed$", "", kept).lstrip("-_.") if differing else kept
    return kept if kept and all(re.fullmatch(r"[-_.]?\d+", part) for part in differing) else names[0]


class Spread(NamedTuple):
    """Of a score over seeds: its variance, the degrees of freedom that this is known by, and whether it is of logs."""

    variance: float
    freedom: int
    of_logs: bool


def means_over_seeds(groups: Sequence[tuple[str, Sequence[Evaluated]]]) -> list[Evaluated]:
    """The mean over two or more seeds of each name, of every score that all have, with its 95 % interval.

    That is Student's t with the standard deviation pooled over the groups, cut off at the score's bounds: two seeds
    alone hardly know their spread, several pairs together do, if all spread alike. Distances and the other scores of
    IN_PROPORTION spread alike in proportion to their level, so they are pooled as logarithms, if all are above 0.
    Trainings spread more than the sampling seeds of one, so means over trainings are pooled among themselves; each
    training counts once, by the mean of its sampling seeds. Where all seeds agree, as on no copies, their spread tells
    nothing, and there is no interval.
    """
    units = [_by_training(seeds) for _, seeds in groups]
    over_trainings = [len(of_one) > 1 for of_one in units]
    seeds = [
        [_mean(alike) for alike in of_one] if several else of_one[0]
        for of_one, several in zip(units, over_trainings, strict=True)
    ]
    spreads = {
        kind: _pooled([of_one for of_one, several in zip(seeds, over_trainings, strict=True) if several is kind])
        for kind in set(over_trainings)
    }
    means = []
    for (name, _), of_one, several in zip(groups, seeds, over_trainings, strict=True):
        counted = f"{name} ({len(of_one)} {'training ' if several else ''}seeds)"
        means.append(_mean(of_one, counted, spreads[several]))
    return means


def _by_training(seeds: Iterable[Evaluated]) -> list[list[Evaluated]]:
    found: dict[str, list[Evaluated]] = {}
    for one in seeds:
        found.setdefault(trainings(one.made), []).append(one)
    return list(found.values())


def _pooled(groups: Sequence[Sequence[Evaluated]]) -> dict[str, Spread]:
    """Sums of squares about each group's own mean, over their degrees of freedom."""
    scores: dict[str, list[list[float]]] = {}
    for seeds in groups:
        for key, values in _shared(seeds).items():
            scores.setdefault(key, []).append(values)
    pooled = {}
    for key, of_groups in scores.items():
        of_logs = key in IN_PROPORTION and all(value > 0 for values in of_groups for value in values)
        scaled = [[math.log(value) for value in values] for values in of_groups] if of_logs else of_groups
        freedom = sum(len(values) - 1 for values in scaled)
        squares = sum(stdev(values) ** 2 * (len(values) - 1) for values in scaled)
        pooled[key] = Spread(squares / freedom, freedom, of_logs)
    return pooled


def _mean(seeds: Sequence[Evaluated], name: str = "", spreads: dict[str, Spread] | None = None) -> Evaluated:
    """With intervals if their spread is known; a single one is itself."""
    if len(seeds) == 1:
        return seeds[0]
    scores, intervals = {}, {}
    for key, values in _shared(seeds).items():
        scores[key] = fmean(values)
        spread = (spreads or {}).get(key)
        if spread and spread.variance:
            reach = float(stdtrit(spread.freedom, 0.975)) * math.sqrt(spread.variance / len(values))
            low, high = scores[key] - reach, scores[key] + reach
            if spread.of_logs:
                low, high = scores[key] * math.exp(-reach), scores[key] * math.exp(reach)
            least, most = BOUNDS.get(key, (-math.inf, math.inf))
            intervals[key] = (max(low, least), min(high, most))
    return Evaluated(name or seeds[0].name, scores, seeds[0].about | {"intervals": intervals}, tuple(seeds))


def _shared(seeds: Sequence[Evaluated]) -> dict[str, list[float]]:
    """The values of every score that all have."""
    shared = [key for key in seeds[0].scores if key not in SPREADS and all(key in one.scores for one in seeds)]
    return {key: [one.scores[key] for one in seeds] for key in shared}


def told_apart(one: Evaluated, other: Evaluated, score: str) -> bool | None:
    """Whether the intervals of a score do not overlap; None where one of them has none."""
    ours, theirs = one.intervals.get(score), other.intervals.get(score)
    if ours is None or theirs is None:
        return None
    return ours[1] < theirs[0] or theirs[1] < ours[0]
