"""All results of a pipeline as versions: none twice, and the best of each score has its alias."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from iddpm.errors import UserError
from iddpm.tracking import (
    Lineage,
    Measured,
    Package,
    Result,
    Score,
    copy_model,
    load,
    register_results,
    tracking_uri,
)

STAND_IN = Path(__file__).with_name("stand_in_model.py")
PROTOCOL = {"dataset": "digits", "pixels": 8, "images": 300, "reference.sha256": "ab" * 32}

pytestmark = pytest.mark.tools


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "snapshots" / "step-000000002").mkdir(parents=True)
    (folder / "snapshots" / "step-000000002" / "early.json").write_text("{}")
    (folder / "checkpoint.json").write_text('{"size": 4}')
    return folder


def result(model_dir: Path, name: str, scores: dict[str, float], *protocols: dict[str, Any], **changes: Any) -> Result:
    """Distance and recall by their titles, each under every protocol."""
    keys = {"fd-lite0": "frechet_distance", "recall-lite0": "recall"}
    found = {title: Score(keys[title], value, (f"{name}-sampling",)) for title, value in scores.items()}
    package = Package("model", partial(copy_model, model_dir), {"seed": 0}, STAND_IN)
    values = {f"{name}-sampling/{keys[title]}": value for title, value in scores.items()}
    measured = [Measured(protocol, found) for protocol in protocols or (PROTOCOL,)]
    settings = {f"{name}-sampling": {"steps": 25, "seed": 3}}
    content: dict[str, Any] = {"weights_sha256": {"model": "1" * 64}, "lineage": Lineage({"git_commit": "abc"})}
    return Result(
        name=name, package=package, scores=values, settings=settings, measured=measured, **(content | changes)
    )


def aliases(root: Path) -> dict[str, str]:
    """Those of the versions 1, 2, ... of the registered model `digits`."""
    held = MlflowClient(tracking_uri=tracking_uri(root)).get_registered_model("digits").aliases
    return {alias: str(version) for alias, version in held.items()}


def versions(root: Path) -> int:
    return len(MlflowClient(tracking_uri=tracking_uri(root)).search_model_versions("name = 'digits'"))


def test_the_best_of_each_score_has_an_alias_and_keeps_it(root: Path, model_dir: Path) -> None:
    near = result(model_dir, "near", {"fd-lite0": 1.0, "recall-lite0": 0.2})
    wide = result(model_dir, "wide", {"fd-lite0": 2.0, "recall-lite0": 0.9})
    lines = register_results([near, wide], "digits", root)
    expected = {"model-near": "1", "model-wide": "2", "best-fd-lite0": "1", "best-recall-lite0": "2"}
    assert aliases(root) == expected
    assert "models:/digits@best-fd-lite0 is version 1 (near): 1 of near-sampling" in lines
    worse = result(model_dir, "near", {"fd-lite0": 1.5, "recall-lite0": 0.9})  # as good as the older version's recall
    register_results([worse, wide], "digits", root)
    assert aliases(root) == expected | {"model-near": "3"}
    better = result(model_dir, "near", {"fd-lite0": 0.5, "recall-lite0": 0.95})
    register_results([better, wide], "digits", root)
    assert aliases(root) == dict.fromkeys(["model-near", "best-fd-lite0", "best-recall-lite0"], "4") | {
        "model-wide": "2"
    }


def test_equal_content_is_registered_once(root: Path, model_dir: Path) -> None:
    first = result(model_dir, "digits", {"fd-lite0": 1.0})
    register_results([first], "digits", root)
    elsewhere = result(model_dir, "digits", {"fd-lite0": 1.0}, lineage=Lineage({"git_commit": "another"}))
    lines = register_results([elsewhere], "digits", root)
    assert lines[0] == "models:/digits@model-digits is version 1, already registered" and versions(root) == 1
    for changed in (
        result(model_dir, "digits", {"fd-lite0": 1.1}),
        result(model_dir, "digits", {"fd-lite0": 1.0}, weights_sha256={"model": "2" * 64}),
        result(model_dir, "other", {"fd-lite0": 1.0}),
    ):
        register_results([changed], "digits", root)
    assert versions(root) == 4
    register_results([first], "digits", root)  # what lies in the project again
    assert versions(root) == 4 and aliases(root)["model-digits"] == "1"


def test_scores_of_different_protocols_have_aliases_of_their_own(root: Path, model_dir: Path) -> None:
    """Named after what tells them apart; a shorter name from before goes on to stand for its own protocol."""
    small = PROTOCOL | {"pixels": 4, "reference.sha256": "cd" * 32}
    first = result(model_dir, "first", {"fd-lite0": 1.0})
    register_results([first], "digits", root)
    client = MlflowClient(tracking_uri=tracking_uri(root))
    client.set_registered_model_alias("digits", "champion", "1")
    second = result(model_dir, "second", {"fd-lite0": 5.0}, small)
    lines = register_results([first, second], "digits", root)
    assert "models:/digits@best-fd-lite0 is version 1 (first): 1 of first-sampling" in lines
    own = {"model-first": "1", "model-second": "2", "champion": "1"}
    assert aliases(root) == own | {"best-fd-lite0": "1", "best-fd-lite0-pixels-8": "1", "best-fd-lite0-pixels-4": "2"}
    rebuilt = result(model_dir, "third", {"fd-lite0": 9.0}, PROTOCOL | {"reference.sha256": "ef" * 32})
    register_results([first, second, rebuilt], "digits", root)
    assert {alias for alias in aliases(root) if alias.startswith("best")} == {
        "best-fd-lite0",
        "best-fd-lite0-pixels-4",
        "best-fd-lite0-pixels-8",
        "best-fd-lite0-pixels-4-reference-sha256-cdcdcdcd",
        "best-fd-lite0-pixels-8-reference-sha256-abababab",
        "best-fd-lite0-pixels-8-reference-sha256-efefefef",
    }
    assert aliases(root)["best-fd-lite0"] == "1" and aliases(root)["best-fd-lite0-pixels-4"] == "2"


def test_a_trial_under_another_protocol_takes_no_alias_of_the_best(root: Path, model_dir: Path) -> None:
    """The shorter alias follows the best of the protocol that it had first, though another one looks better."""
    trial = PROTOCOL | {"images": 50}
    register_results([result(model_dir, "digits", {"fd-lite0": 3.0})], "digits", root)
    register_results([result(model_dir, "digits", {"fd-lite0": 1.0}, trial)], "digits", root)
    assert aliases(root)["best-fd-lite0"] == "1" and aliases(root)["best-fd-lite0-images-50"] == "2"
    register_results([result(model_dir, "digits", {"fd-lite0": 2.0})], "digits", root)
    assert aliases(root)["best-fd-lite0"] == aliases(root)["best-fd-lite0-images-300"] == "3"
    tags = MlflowClient(tracking_uri=tracking_uri(root)).get_registered_model("digits").tags
    assert json.loads(tags["best-fd-lite0"]) == {"title": "fd-lite0", "protocol": PROTOCOL}


def test_versions_registered_one_by_one_are_left_alone(root: Path, model_dir: Path) -> None:
    from iddpm.tracking import register

    first = result(model_dir, "first", {"fd-lite0": 1.0})
    for alias in ("best-friend", "model-friend"):
        register(first.package, "digits", alias, {"kid": 0.1}, {}, Lineage({}), root, None)
    register_results([first], "digits", root)
    assert aliases(root) == {"best-friend": "1", "model-friend": "2", "model-first": "3", "best-fd-lite0": "3"}


def test_an_entry_that_is_no_more_loses_its_alias_and_keeps_its_scores(root: Path, model_dir: Path) -> None:
    near, wide = result(model_dir, "near", {"fd-lite0": 1.0}), result(model_dir, "wide", {"fd-lite0": 2.0})
    register_results([near, wide], "digits", root)
    lines = register_results([wide], "digits", root)
    assert aliases(root) == {"model-wide": "2", "best-fd-lite0": "1"}
    assert "models:/digits@model-near is gone: params.yaml has no such entry" in lines
    register_results([near, wide], "digits", root)
    assert aliases(root)["model-near"] == "1"


def test_an_entry_without_a_result_now_keeps_its_alias(root: Path, model_dir: Path) -> None:
    """One failed evaluation takes no served model away."""
    near, wide = result(model_dir, "near", {"fd-lite0": 1.0}), result(model_dir, "wide", {"fd-lite0": 2.0})
    register_results([near, wide], "digits", root)
    before = aliases(root)
    lines = register_results([wide], "digits", root, unfinished={"model-near", "model-never-was"})
    assert aliases(root) == before
    assert [line for line in lines if "stays" in line] == [
        "models:/digits@model-near stays version 1: here that entry is not complete and up to date"
    ]


def test_an_entry_that_became_a_seed_of_another_loses_its_alias(root: Path, model_dir: Path) -> None:
    first, other = (result(model_dir, name, {"fd-lite0": 1.0}) for name in ("first", "other"))
    register_results([first, other], "digits", root)
    lines = register_results([replace(other, seeds=("first", "third"))], "digits", root)
    assert aliases(root) == {"model-other": "2", "best-fd-lite0": "1"}  # the version has the content that it had
    assert [line for line in lines if "gone" in line] == [
        "models:/digits@model-first is gone: that entry is a seed of model-other, whose version has its scores"
    ]


def test_names_that_an_alias_cannot_tell_apart_are_told_apart(root: Path, model_dir: Path) -> None:
    """Values that differ in other characters alone; names that are too long."""
    protocols = [PROTOCOL | {"split": value} for value in ("a.b", "a-b", "a" * 300, "a" * 299 + "b")]
    results = [
        result(model_dir, f"entry-{number}", {"fd-lite0": float(number)}, protocol)
        for number, protocol in enumerate(protocols)
    ]
    register_results(results, "digits", root)
    best = {alias: version for alias, version in aliases(root).items() if alias.startswith("best-")}
    assert sorted(best.values()) == ["1", "2", "3", "4"]
    assert sum(alias.startswith("best-fd-lite0-split-a-b-") for alias in best) == 2
    register_results(results[::-1], "digits", root)
    assert best.items() <= aliases(root).items()


def test_a_name_that_cannot_be_is_refused_before_the_upload(root: Path, model_dir: Path) -> None:
    with pytest.raises(UserError, match=r"^registered model 'a/b': take at most 200 letters"):
        register_results([result(model_dir, "first", {"fd-lite0": 1.0})], "a/b", root)
    assert not (root / "mlruns").exists()


def test_a_version_says_what_it_is_and_draws(root: Path, model_dir: Path) -> None:
    register_results([result(model_dir, "digits", {"fd-lite0": 1.25})], "digits", root)
    version = MlflowClient(tracking_uri=tracking_uri(root)).get_model_version("digits", "1")
    assert version.tags["result"] == "digits" and version.tags["git_commit"] == "abc"
    assert version.tags["score.digits-sampling.frechet_distance"] == "1.25"
    assert json.loads(version.tags["sampling.digits-sampling"]) == {"steps": 25, "seed": 3}
    run = MlflowClient(tracking_uri=tracking_uri(root)).get_run(version.run_id)
    assert run.data.metrics == {"digits-sampling/frechet_distance": 1.25} and run.data.tags["git_commit"] == "abc"
    images = load("digits@best-fd-lite0", root).predict(pd.DataFrame({"label": [-1, 3]}), params={"seed": 7})
    assert images.dtype == np.uint8 and images.shape == (2, 4, 4, 1)
    assert not list((root / "mlruns").rglob("early.json"))  # no snapshots of the training
    assert not [path for path in (root / "mlruns").rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]


def test_a_server_that_is_away_is_one_line(
    new_root: Path, model_dir: Path, dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
    with pytest.raises(UserError, match=r"^http://127.0.0.1:\d+: .*refused") as error:
        register_results([result(model_dir, "digits", {"fd-lite0": 1.0})], "digits", new_root)
    assert len(str(error.value).splitlines()) == 1 and "secret" not in str(error.value)
