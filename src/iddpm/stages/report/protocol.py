"""What the scores of a table were measured by, and the names they bear for it."""

from typing import Any

from iddpm.evaluation.published import INCEPTION
from iddpm.stages.evaluated import Evaluated, Json
from iddpm.stages.report.blocks import Cell, Column, Fold, Table, hashed, joined, number
from iddpm.stages.report.groups import Group

FID = "FID"
SHA256 = 64
"""Hexadecimal digits."""
SVC = "SVC on pixels"
BY_NETWORK = {"kid": "KID", "inception_score": "IS"}
TITLES = {
    "features.name": "feature network",
    "features.weights_sha256": "its weights, sha256",
    "features.folder_sha256": "its code and weights, sha256",
    "features.resize": "its resize of images",
    "features.scaling": "its scaling of grey levels",
    "features.features": "its features",
    "features.probabilities": "its class probabilities",
    "images": "images generated",
    "samples.weights": "weights that drew them",
    "samples.rounding": "their rounding to grey levels",
    "reference.dataset": "reference",
    "reference.split": "part of it",
    "reference.averaged_to": "averaged to pixels",
    "reference.images": "its images",
    "reference.sha256": "sha256 of these images",
    "reference.index_sha256": "sha256 of the shards' index",
    "frechet_reference.sha256": "sha256 of the statistics that the distance is to",
    "neighbours": "k of nearest neighbours",
    "manifold_reference": "reference images of precision, recall, density and coverage",
    "classifier": "classifier of label accuracy",
    "class_probabilities": "class probabilities of IS",
    "inception_splits": "splits of IS",
    "kid_subset_size": "images in a subset of KID",
    "seed": "seed of scoring",
    "bootstrap": "resamples of the intervals",
}
"""By their keys in protocol.json, in order; a key that is not here is shown as it is."""
ORDER = list(TITLES)


def network_name(about: Json) -> str:
    """Of the feature network of a protocol.json."""
    distance: str = about["distance"]
    return INCEPTION if distance == FID else distance.removeprefix("fd-")


def score_name(key: str, about: Json) -> str:
    """Of a score by its key; FID, KID and IS alone are the 2015 Inception's, another network's say whose they are."""
    if key.startswith("frechet_distance"):
        return f"{about['distance']}{' ∞' if key.endswith('infinity') else ''}"
    if key not in BY_NETWORK:
        return key.replace("_", " ")
    by = network_name(about)
    if key == "inception_score" and about["protocol"]["class_probabilities"].startswith(SVC):
        by = SVC
    return BY_NETWORK[key] if by == INCEPTION else f"{BY_NETWORK[key]} ({by})"


def protocol_fold(group: Group) -> Fold:
    """What all evaluations of a table share, and whose they are where they do not."""
    facts = {f"`{one.name}`": _facts(one) for one in group.evaluations}
    keys = dict.fromkeys(key for of_one in facts.values() for key in of_one)
    rows = []
    for key in sorted(keys, key=lambda key: ORDER.index(key) if key in ORDER else len(ORDER)):
        names: dict[Cell, list[str]] = {}
        for name, of_one in facts.items():
            names.setdefault(_shown(key, of_one.get(key)), []).append(name)
        value, *others = names
        if others:
            value = Cell("; ".join(f"{cell.text or 'none'} ({joined(whose)})" for cell, whose in names.items()))
        if value.text:
            rows.append([Cell(TITLES.get(key, key)), value])
    caption = "Each evaluation's own, with the record of its samples: `runs/evaluations/NAME/protocol.json`."
    return Fold("Protocol", [Table([Column("what", False), Column("value", False)], rows, caption)])


def _facts(one: Evaluated) -> Json:
    """Dotted keys of protocol.json."""
    reference = {f"reference.{key}": value for key, value in one.about["reference"].items()}
    made = {"samples.weights": one.sampling["weights"], "samples.rounding": one.made["rounding"]}
    return one.protocol | reference | made | {"bootstrap": one.about["bootstrap"]}


def _shown(key: str, value: Any) -> Cell:
    if value is None:
        return Cell("all" if key == "manifold_reference" else "")
    if isinstance(value, str):
        return hashed(value) if key.endswith("sha256") and len(value) == SHA256 else Cell(value)
    return Cell(number(value))
