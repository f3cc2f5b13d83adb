"""Scores are compared only when they were measured alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from iddpm.errors import UserError
from iddpm.stages.compare import compare

PROTOCOL = {"features": {"name": "lite0", "weights_sha256": "ab" * 32}, "images": 100, "neighbours": 3,
            "reference": {"images": 200, "sha256": "cd" * 32}}  # fmt: skip


def write(root: Path, name: str, distance: float, **changes: Any) -> None:
    """An evaluation as the stage leaves it; `changes` are dotted keys of protocol.json with __ for the dot."""
    about: dict[str, Any] = {
        "distance": "fd-lite0",
        "protocol": json.loads(json.dumps(PROTOCOL)),
        "samples": {"params": {"model": "m", "steps": 10, "seed": 0}},
        "samples_sha256": name,
        "intervals": {"frechet_distance": [distance - 1, distance + 1]},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = about
        for parent in parents:
            section = section[parent]
        section[last] = value
    folder = root / "runs" / "evaluations" / name
    folder.mkdir(parents=True)
    (folder / "protocol.json").write_text(json.dumps(about))
    (root / "runs" / "metrics").mkdir(exist_ok=True)
    scores = {"frechet_distance": distance, "recall": 0.5}
    (root / "runs" / "metrics" / f"{name}.json").write_text(json.dumps(scores))


def row(text: str, score: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"{score} "))


def test_two_evaluations_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0)
    write(tmp_path, "b", 10.0)
    text = compare(tmp_path, "a", "b")
    assert "fd-lite0" in text and "100 images against 200" in text and "FID" not in text
    assert row(text, "frechet_distance").split() == ["frechet_distance", "20", "[19,", "21]", "10", "[9,", "11]", "-10", "better"]  # fmt: skip # noqa: E501
    assert row(text, "recall").split() == ["recall", "0.5", "0.5", "+0"]


def test_what_intervals_do_not_tell_apart_is_neither_better_nor_worse(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0)
    write(tmp_path, "b", 20.5)
    assert row(compare(tmp_path, "a", "b"), "frechet_distance").endswith("+0.5 not told apart")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"protocol__images": 50}, "images: 100 and 50"),
        ({"protocol__features__name": "pixels"}, "features.name: lite0 and pixels"),
        ({"protocol__reference__sha256": "ef" * 32}, r"reference.sha256: cdcdcdcdcdcd\.\.\. and efefefefefef"),
        ({"protocol__classifier": "SVC"}, "classifier: nothing and SVC"),
    ],
)
def test_other_protocols_are_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    write(tmp_path, "a", 20.0)
    write(tmp_path, "b", 10.0, **change)
    with pytest.raises(UserError, match=rf"a and b were measured differently:\n  {named}"):
        compare(tmp_path, "a", "b")


def test_seeds_stand_as_mean_and_spread(tmp_path: Path) -> None:
    for seed, distance in enumerate((19.0, 20.0, 21.0)):
        write(tmp_path, f"a{seed}", distance, samples__params__seed=seed)
    write(tmp_path, "b", 10.0)
    text = compare(tmp_path, "a0,a1,a2", "b")
    assert "20 [17.52, 22.48]" in row(text, "frechet_distance") and row(text, "frechet_distance").endswith("-10 better")
    assert row(text, "recall").split() == ["recall", "0.5", "0.5", "+0"]  # seeds that agree tell no spread


def test_other_samplings_are_no_seeds(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0)
    write(tmp_path, "b", 10.0, samples__params__steps=50)
    with pytest.raises(UserError, match="a,b: not seeds of one sampling: steps is 10 and 50"):
        compare(tmp_path, "a,b", "a")
    with pytest.raises(UserError, match="a,a: the same images twice"):
        compare(tmp_path, "a,a", "b")
    for name, sha256 in (("c", "12" * 32), ("d", "34" * 32)):  # of two trainings
        made = {"params": {"model": "m", "seed": 0}, "inputs": {"runs/models/m": sha256}}
        write(tmp_path, name, 10.0, samples=made)
    with pytest.raises(UserError, match=r"c,d: not seeds of one sampling: inputs\.runs/models/m is 1212"):
        compare(tmp_path, "c,d", "a")


def test_without_intervals_there_is_no_verdict(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0, intervals={})
    write(tmp_path, "b", 10.0)
    assert row(compare(tmp_path, "a", "b"), "frechet_distance").endswith("-10")


def test_what_has_not_run_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0)
    with pytest.raises(UserError, match="nothing: no evaluation"):
        compare(tmp_path, "a", "nothing")
    (tmp_path / "runs/evaluations/a/protocol.json").write_text("{")
    with pytest.raises(UserError, match=r"protocol.json: damaged"):
        compare(tmp_path, "a", "a")
