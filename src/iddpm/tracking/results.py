"""All results of a pipeline in the registry: a version for each finished model, an alias for the best of each score."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from iddpm.tracking.connection import connect, tracking_lock
from iddpm.tracking.registry import (
    HIGHER_IS_BETTER,
    Lineage,
    Package,
    mlflow_errors_as_user_errors,
    publish,
    refuse_name,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ENTRIES = ("model-", "cascade-")
"""Aliases that begin so belong to `register_results`, where they are of its versions."""
ALIAS_LENGTH = 250
"""The longest key of a tag that MLflow takes: what a best- alias stands for is a tag of its name."""
CONTENT, RESULT, MEASURED = "content_sha256", "result", "measured"
"""Tags of a version."""


@dataclass(frozen=True)
class Score:
    """The best that a model reached: the mean over `of`, keys of params.yaml that differ in their seed alone.

    `score` is a key of HIGHER_IS_BETTER.
    """

    score: str
    value: float
    of: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """Scores of one model by their titles (fd-lite0, recall-lite0, ...) under one protocol.

    Scores of one title are compared where all of the protocol is equal. Its keys stand in the order in which they tell
    protocols apart for a reader.
    """

    protocol: Mapping[str, Any]
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Result:
    """A finished model, or a cascade, with all that was measured of it.

    `name` is its key in params.yaml, `weights_sha256` the hash of each of its models, `scores` every value by
    ENTRY/SCORE, `settings` how the images of an entry were drawn. `seeds` are other keys that differ from `name` in
    seeds alone: their scores are among these, and they have no version of their own.
    """

    name: str
    package: Package
    weights_sha256: Mapping[str, str]
    scores: Mapping[str, float]
    settings: Mapping[str, Mapping[str, Any]]
    measured: Sequence[Measured]
    lineage: Lineage
    seeds: Sequence[str] = ()

    @property
    def alias(self) -> str:
        return entry_alias(self.package.kind, self.name)

    @property
    def tags(self) -> dict[str, str]:
        """Of its version. The content is weights, what is done with them, and scores; not the state of the code."""
        measured = json.dumps([asdict(one) for one in self.measured])
        weights, defaults = dict(self.weights_sha256), dict(self.package.defaults)
        content = json.dumps([self.alias, weights, defaults, dict(self.scores), measured], sort_keys=True)
        scores = {f"score.{key.replace('/', '.')}": repr(value) for key, value in self.scores.items()}
        digest = hashlib.sha256(content.encode()).hexdigest()
        drawn = {f"sampling.{entry}": json.dumps(settings) for entry, settings in self.settings.items()}
        return {RESULT: self.name, CONTENT: digest, MEASURED: measured} | scores | drawn


class Best(NamedTuple):
    """The version that holds the best of a score under a protocol; the title of the score and the protocol, as JSON."""

    version: "ModelVersion"
    score: Score
    measured: str


def entry_alias(kind: str, name: str) -> str:
    """Of the version of an entry of params.yaml; `kind` is model or cascade."""
    return f"{kind}-{name}"


def register_results(results: Iterable[Result], name: str, root: Path, unfinished: Collection[str] = ()) -> list[str]:
    """Make every result a version of the registered model `name`, unless its content is one; what was done, in lines.

    `model-NAME` or `cascade-NAME` is the version of that entry of params.yaml. It goes with the entry, and
    where the entry is one of the seeds of another result; it stays where it is while the entry is one of `unfinished`,
    aliases of entries that have no result now.

    `best-TITLE` is the version with the best score of that title among all versions there are. Where its versions were
    measured by several protocols there is an alias for each, named after settings that tell them apart. An alias that
    had a shorter name before goes on to stand for its protocol, which is a tag of the registered model.
    """
    refuse_name(name)
    lines = []
    with mlflow_errors_as_user_errors(root):
        with tracking_lock(root):
            client, _ = connect(root)
            known = {version.tags[CONTENT]: version for version in _versions(client, name)}
        current: dict[str, ModelVersion] = {}
        merged: dict[str, str] = {}
        for result in results:
            tags = result.tags
            version = known.get(tags[CONTENT])
            state = "already registered" if version else "registered"
            version = version or publish(result.package, name, result.scores, result.lineage, tags, root)
            current[result.alias] = version
            merged |= {entry_alias(result.package.kind, seed): result.alias for seed in result.seeds}
            lines.append(f"models:/{name}@{result.alias} is version {version.version}, {state}")
        with tracking_lock(root):
            best = _best_by_alias(client, name)
            holders = current | {alias: one.version for alias, one in best.items()}
            for alias, one in best.items():
                client.set_registered_model_tag(name, alias, one.measured)
            _set_aliases(client, name, {alias: str(version.version) for alias, version in holders.items()})
            lines += _part_with_entries(client, name, current, merged, unfinished)
        return lines + [_shown(name, alias, one) for alias, one in best.items()]


def best_versions(versions: Iterable["ModelVersion"]) -> dict[str, Best]:
    """Alias -> who holds it; of equal scores the older version."""
    contenders: dict[str, dict[str, list[Best]]] = {}
    protocols: dict[str, dict[str, Any]] = {}
    for version in versions:
        for one in json.loads(version.tags[MEASURED]):
            for title, score in one["scores"].items():
                measured = json.dumps({"title": title, "protocol": one["protocol"]}, sort_keys=True)
                protocols[measured] = one["protocol"]
                best = Best(version, Score(**score), measured)
                contenders.setdefault(title, {}).setdefault(measured, []).append(best)
    named: dict[str, list[Best]] = {}
    for title, groups in contenders.items():
        suffixes = _told_apart([protocols[measured] for measured in groups])
        for suffix, ones in zip(suffixes, groups.values(), strict=True):
            alias = _clean(f"best-{title}{suffix}")[: ALIAS_LENGTH - 9]
            named.setdefault(alias, []).append(min(ones, key=_rank))
    best_of = {
        alias if len(ones) == 1 else f"{alias}-{hashlib.sha256(one.measured.encode()).hexdigest()[:8]}": one
        for alias, ones in named.items()
        for one in ones
    }
    return dict(sorted(best_of.items()))


def _best_by_alias(client: "MlflowClient", name: str) -> dict[str, Best]:
    """Those of `best_versions`, and of every alias that was given before: it still stands for what it stood for."""
    best = best_versions(_versions(client, name))
    by_measured = {one.measured: one for one in best.values()}
    model = client.get_registered_model(name)
    return best | {
        alias: by_measured[measured]
        for alias, measured in model.tags.items()
        if alias in model.aliases and measured in by_measured
    }


def _rank(one: Best) -> tuple[float, int]:
    sign = -1 if HIGHER_IS_BETTER[one.score.score] else 1
    return sign * one.score.value, int(one.version.version)


def _told_apart(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each protocol settings in which it differs from the others, in the characters of an alias; "" for one alone.

    Settings are taken in their order, each that tells more of the protocols apart than those before it. Protocols
    whose values differ in other characters alone have equal names.
    """
    suffixes = [""] * len(protocols)
    for key in dict.fromkeys(key for protocol in protocols for key in protocol):
        longer = [
            _clean(f"{suffix}-{key}-{_short(protocol.get(key))}")
            for suffix, protocol in zip(suffixes, protocols, strict=True)
        ]
        if len(set(longer)) > len(set(suffixes)):
            suffixes = longer
    return suffixes


def _clean(name: str) -> str:
    return re.sub(r"[^\w-]", "-", name)


def _short(value: object) -> str:
    return value[:8] if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else str(value)


def _versions(client: "MlflowClient", name: str) -> list["ModelVersion"]:
    """Those that were registered here."""
    return [version for version in client.search_model_versions(f"name = '{name}'") if CONTENT in version.tags]


def _set_aliases(client: "MlflowClient", name: str, wanted: Mapping[str, str]) -> None:
    held = client.get_registered_model(name).aliases
    for alias, version in wanted.items():
        if str(held.get(alias)) != version:
            client.set_registered_model_alias(name, alias, version)


def _part_with_entries(
    client: "MlflowClient",
    name: str,
    current: Collection[str],
    merged: Mapping[str, str],
    unfinished: Collection[str],
) -> Iterator[str]:
    """Delete the aliases of entries that are no more, or `merged` into the version of another alias.

    A line for each, and for each that stays without a result.
    """
    ours = {str(version.version) for version in _versions(client, name)}
    for alias, version in client.get_registered_model(name).aliases.items():
        if not alias.startswith(ENTRIES) or alias in current or str(version) not in ours:
            continue
        if alias in unfinished:
            yield f"models:/{name}@{alias} stays version {version}: here that entry is not complete and up to date"
        else:
            why = "params.yaml has no such entry"
            if alias in merged:
                why = f"that entry is a seed of {merged[alias]}, whose version has its scores"
            client.delete_registered_model_alias(name, alias)
            yield f"models:/{name}@{alias} is gone: {why}"


def _shown(name: str, alias: str, best: Best) -> str:
    of = best.score.of
    seeds = f", mean of {len(of)} seeds" if len(of) > 1 else ""
    holder = f"version {best.version.version} ({best.version.tags[RESULT]})"
    return f"models:/{name}@{alias} is {holder}: {best.score.value:.4g} of {of[0]}{seeds}"
