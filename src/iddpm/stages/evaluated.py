"""What an evaluation found, what made its samples, and what of that seeds of one thing share."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean, stdev
from typing import Any, NamedTuple

from iddpm.evaluation.confidence import CONFIDENCE, student_reach
from iddpm.params import FREE_AMONG_SEEDS, FREE_AMONG_TRAINING_SEEDS
from iddpm.stages.context import flatten

Json = dict[str, Any]
Interval = tuple[float, float]


class Spread(NamedTuple):
    """Of a score over seeds: its variance, the degrees of freedom by which that is known, whether it is of logarithms.

    `beside_shift`: it is what is left beside the shift of all `rows` by the seeds that they share.
    """

    variance: float
    freedom: int
    of_logs: bool
    beside_shift: bool
    rows: int

    def reach(self, seeds: int) -> float:
        """Half of the interval of a mean over so many seeds, Student's t."""
        return student_reach(self.freedom) * math.sqrt(self.variance / seeds)

    def difference_reach(self, seeds: int) -> float:
        """What two means over the same seeds must differ by to be told apart, whichever of the rows they are (Tukey).

        In 5 % of tables of equal rows some two are that far apart. Of two rows it is the paired t test's.
        """
        return _tukey(self.rows, self.freedom) * math.sqrt(self.variance / seeds)


@cache
def _tukey(rows: int, freedom: int) -> float:
    from scipy.stats import studentized_range  # a second of every command's start, were it above

    return float(studentized_range.ppf(CONFIDENCE, rows, freedom))


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: its scores, and in `about` (protocol.json) all that defines them.

    Or the mean over `seeds`: `about` is that of the first but for the intervals, which are of the mean by `spreads`.
    Seeds that are trainings may themselves be means, over sampling seeds.
    """

    name: str
    scores: dict[str, float]
    about: Json
    seeds: tuple["Evaluated", ...] = ()
    spreads: Mapping[str, Spread] = field(default_factory=dict)

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
    def beside_shift(self) -> bool:
        """Whether its intervals are without the shift of all rows by the seeds that they share."""
        return any(spread.beside_shift for spread in self.spreads.values())

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


def training_seeds(made: Json, models: Mapping[str, Json]) -> list[Any]:
    """Of the models that drew samples, in a cascade of all; None of one that was not trained here."""
    names = [stage["params"].get("upsampler") or stage["params"]["model"] for stage in chain(made)]
    return [_training_seed(name, models) for name in names]


def _training_seed(name: str, models: Mapping[str, Json]) -> Any:
    """Of a mixture those of both parts."""
    params: Json = models[name]["params"]
    if models[name]["kind"] == "mixture":
        return [_training_seed(params[part], models) for part in ("middle", "ends")]
    return (params.get("training") or {}).get("seed")


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
    """What trained a model but for its seed, and on which shards.

    Of one that was not trained here its name, of a mixture both parts.
    """
    params: Json = models[name]["params"]
    if models[name]["kind"] == "mixture":
        return params | {part: _training(params[part], models) for part in ("middle", "ends")}
    training = params.get("training")
    if not training:
        return name
    kept = {key: value for key, value in training.items() if key not in FREE_AMONG_TRAINING_SEEDS}
    return params | {"training": kept, "index_sha256": models[name].get("index_sha256")}


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
