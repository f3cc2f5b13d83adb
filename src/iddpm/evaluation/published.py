"""Published results, each with the protocol it was measured by, and what keeps ours from standing beside them."""

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import yaml

from iddpm.errors import UserError
from iddpm.params import Section

Score = Literal["fid", "is", "precision", "recall", "nll", "relative_speed", "training_hours", "relative_time"]


INCEPTION = "2015 Inception"
"""The network whose Frechet distance alone is the FID; with which weights and resize, a source has yet to state."""


class Protocol(Section):
    """How a result was made and measured; None is what is not known."""

    dataset: str
    size: int
    features: str | None = None
    images: int | None = None
    rounding: str | None = None
    reference_split: str | None = None
    reference_images: int | None = None
    manifold_reference: int | None = None
    neighbours: int | None = None
    inception_splits: int | None = None
    likelihood_split: str | None = None
    likelihood_terms: str | None = None
    hardware: str | None = None
    conditioning: str | None = None
    timesteps: int | None = None
    schedule: str | None = None
    objective: str | None = None
    iterations: int | None = None
    weights: str | None = None
    start: str | None = None
    sampler: str | None = None
    steps: int | None = None


class Aspect(NamedTuple):
    """A key of a protocol: its name for the reader, and the scores that a difference in it makes incomparable."""

    name: str
    bears_on: frozenset[Score] = frozenset()


_ANY: frozenset[Score] = frozenset(get_args(Score))
_OF_IMAGES: frozenset[Score] = frozenset(("fid", "is", "precision", "recall"))
_MANIFOLDS: frozenset[Score] = frozenset(("precision", "recall"))
ASPECTS = {
    "dataset": Aspect("dataset", _ANY),
    "size": Aspect("image size", _ANY),
    "features": Aspect("feature network", _OF_IMAGES),
    "images": Aspect("images generated", _OF_IMAGES),
    "rounding": Aspect("rounding to grey levels", _OF_IMAGES),
    "reference_split": Aspect("reference", frozenset(("fid", "precision", "recall"))),
    "reference_images": Aspect("reference images", frozenset(("fid",))),
    "manifold_reference": Aspect("reference images of precision and recall", _MANIFOLDS),
    "neighbours": Aspect("k of precision and recall", _MANIFOLDS),
    "inception_splits": Aspect("splits of IS", frozenset(("is",))),
    "likelihood_split": Aspect("images of the likelihood", frozenset(("nll",))),
    "likelihood_terms": Aspect("terms of the bound", frozenset(("nll",))),
    "hardware": Aspect("hardware", frozenset(("relative_speed", "training_hours", "relative_time"))),
    "conditioning": Aspect("conditioning"),
    "timesteps": Aspect("T"),
    "schedule": Aspect("schedule"),
    "objective": Aspect("objective"),
    "iterations": Aspect("training steps"),
    "weights": Aspect("weights"),
    "start": Aspect("start"),
    "sampler": Aspect("sampler"),
    "steps": Aspect("sampling steps"),
}
OF_SAMPLES = ("start", "sampler", "steps")


class Difference(NamedTuple):
    """A key in which two protocols differ (same False), or may differ, since one side does not state it (None)."""

    aspect: Aspect
    published: str
    ours: str
    same: bool | None


class PublishedResult(NamedTuple):
    """One row of a published table; `relative_to` names the row that its relative scores are ratios to."""

    name: str
    source: str
    scores: dict[Score, float]
    protocol: Protocol
    relative_to: str | None

    def differences(self, ours: Protocol, scores: Collection[Score]) -> list[Difference]:
        """From a result of ours, in what bears on these scores and in how it was made."""
        found = []
        for key, aspect in ASPECTS.items():
            theirs, own = getattr(self.protocol, key), getattr(ours, key)
            relevant = aspect.bears_on.intersection(scores) or (not aspect.bears_on and _made(key, scores))
            same = _same(key, theirs, own)
            if relevant and not same and (theirs, own) != (None, None):
                some = ", but some Inception" if (key, theirs) == ("features", None) else ""
                found.append(Difference(aspect, _shown(theirs) + some, _shown(own), same))
        return found


def comparable(score: Score, differences: Collection[Difference]) -> bool | None:
    """False when a difference bears on the score, None when one may."""
    bearing = {difference.same for difference in differences if score in difference.aspect.bears_on}
    return False if False in bearing else None if bearing else True


@cache
def published_results() -> dict[str, PublishedResult]:
    """Every known result by its name, TABLE/ROW."""
    tables = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    results = {}
    for table_name, content in tables.items():
        table = _Table.model_validate(content)
        for row_name, row in table.rows.items():
            name = f"{table_name}/{row_name}"
            own = dict(row)
            scores = _Scores.model_validate({"scores": own.pop("scores")}).scores
            protocol = Protocol.model_validate(table.protocol | own)
            results[name] = PublishedResult(name, table.source, scores, protocol, table.relative_to)
    return results


def published_result(name: str) -> PublishedResult:
    """The result of that name; UserError names the choices."""
    results = published_results()
    if name in results:
        return results[name]
    table, _, _ = name.partition("/")
    rows = [other for other in results if other.startswith(f"{table}/")]
    tables = sorted({other.partition("/")[0] for other in results})
    raise UserError(
        f"{name!r} is no published result; choose " + (", ".join(rows) or "TABLE/ROW of " + ", ".join(tables))
    )


class _Scores(Section):
    scores: dict[Score, float]


class _Table(Section):
    source: str
    protocol: dict[str, object]
    relative_to: str | None = None
    rows: dict[str, dict[str, object]]


def _made(key: str, scores: Collection[Score]) -> bool:
    """Whether a key of how something was made means anything here: no samples are drawn for a likelihood."""
    return key not in OF_SAMPLES or set(scores) != {"nll"}


def _same(key: str, theirs: object, own: object) -> bool | None:
    if key == "features" and own not in (None, INCEPTION):
        return theirs == own  # published scores are by some Inception, stated or not
    if theirs is None or own is None:
        return None
    if key == "dataset":
        if str(own).startswith("images/"):
            return None  # a folder may hold anything
        return str(theirs).replace("-", "").lower() == str(own).lower()
    return theirs == own


def _shown(value: object) -> str:
    if value is None:
        return "not stated"
    return f"{value:,}" if isinstance(value, int) else str(value)
