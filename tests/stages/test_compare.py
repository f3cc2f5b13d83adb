"""Scores are compared only when they were measured alike."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from iddpm.errors import UserError
from iddpm.stages.compare import compare
from iddpm.stages.context import fingerprint

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
    assert "20 sd 1 [17.66, 22.65]" in row(text, "frechet_distance") and "sd, their standard deviation" in text
    assert row(text, "frechet_distance").endswith("-10 better") and "standard deviation of its own seeds" in text
    assert row(text, "recall").split() == ["recall", "0.5", "sd", "0", "0.5", "+0"]  # seeds that agree have no interval


def test_two_means_share_their_spread(tmp_path: Path) -> None:
    for name, distance in (("a0", 20.0), ("a1", 21.5), ("b2", 30.0), ("b3", 32.0)):
        write(tmp_path, name, distance, samples__params__seed=int(name[-1]))
    text = compare(tmp_path, "a0,a1", "b2,b3")
    line = row(text, "frechet_distance")
    assert "20.75 sd 1.1 [17.91, 24.05]" in line and "31 sd 1.4 [26.75, 35.93]" in line  # means / 1.159, * 1.159
    assert line.endswith("+10.25 worse") and "of both sides, taken as independent" in text


def test_two_means_over_the_same_seeds_differ_by_their_differences(tmp_path: Path) -> None:
    distances = {"a0": 20.0, "a1": 30.0, "b0": 22.0, "b1": 33.2, "c1": 33.2, "c2": 22.0}
    for name, distance in distances.items():
        write(tmp_path, name, distance, samples__params__seed=int(name[-1]))
    text = compare(tmp_path, "a0,a1", "b1,b0")
    assert row(text, "frechet_distance").endswith("+2.6 worse") and "differences seed by seed" in text
    text = compare(tmp_path, "a0,a1", "c1,c2")  # the same distances by other seeds
    assert (
        row(text, "frechet_distance").endswith("+2.6 not told apart") and "of both sides, taken as independent" in text
    )


def test_trainings_are_the_same_seeds_where_their_models_tell_so(tmp_path: Path) -> None:
    for name, distance in {"a-0": 20.0, "a-1": 30.0, "b-0": 22.0, "b-1": 33.2}.items():
        objective, seed = "simple" if name < "b" else "iwdiff", int(name[-1])
        inputs = trained(tmp_path, name, objective=objective, seed=seed)
        write(tmp_path, name, distance, samples={"params": {"model": name, "seed": seed}, "inputs": inputs})
    text = compare(tmp_path, "a-0,a-1", "b-0,b-1", seeds=True)
    assert row(text, "frechet_distance").endswith("+2.6 worse") and "differences seed by seed" in text
    assert "at your word" not in text
    (tmp_path / "runs/models/b-1/manifest.json").write_text("{}")
    text = compare(tmp_path, "a-0,a-1", "b-0,b-1", seeds=True)
    assert (
        row(text, "frechet_distance").endswith("+2.6 not told apart") and "of both sides, taken as independent" in text
    )
    assert "\n\ntaken as a seed at your word: b-1, since runs/models/b-1 is gone or no longer what it was" in text


def test_trainings_are_seeds_if_one_says_so(tmp_path: Path) -> None:
    for name, model in (("a", "m-0"), ("b", "m-1"), ("c", "m-1")):
        made = {"params": {"model": model, "seed": 0}, "inputs": {f"runs/models/{model}": model}}
        write(tmp_path, name, 20.0 if name == "a" else 21.0, samples=made)
    with pytest.raises(UserError, match=r"not seeds of one sampling: inputs\.runs/models/m-0 .* say so by --seeds$"):
        compare(tmp_path, "a,b", "a")
    assert "20.5 sd 0.71" in row(compare(tmp_path, "a,b", "a", seeds=True), "frechet_distance")
    with pytest.raises(UserError, match="b,c: the same seed twice"):
        compare(tmp_path, "b,c", "a", seeds=True)


def test_imports_are_seeds_at_ones_word(tmp_path: Path) -> None:
    """What trained them is not known, their seeds neither: so the sides do not share any."""
    for name, distance in {"a-0": 20.0, "a-1": 30.0, "b-0": 22.0, "b-1": 33.2}.items():
        inputs = written(tmp_path, name, {"kind": "diffusion", "params": {"source": f"{name}.pt"}})
        write(tmp_path, name, distance, samples={"params": {"model": name, "seed": 0}, "inputs": inputs})
    text = compare(tmp_path, "a-0,a-1", "b-0,b-1", seeds=True)
    assert row(text, "frechet_distance").endswith("+2.6 not told apart") and "taken as independent" in text
    assert "at your word: a-1, since runs/models/a-1 was not trained here\n" in text
    with pytest.raises(UserError, match=r"say so by --seeds$"):
        compare(tmp_path, "a-0,a-1", "b-0")


def trained(root: Path, name: str, shards: str = "ab" * 32, **training: Any) -> dict[str, str]:
    """A model as a training leaves it; what depends on it."""
    params = {"dataset": "digits", "training": training}
    return written(root, name, {"kind": "diffusion", "params": params, "index_sha256": shards})


def written(root: Path, name: str, about: dict[str, Any]) -> dict[str, str]:
    folder = root / "runs" / "models" / name
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text(json.dumps(about))
    (folder / "manifest.json").write_text(json.dumps({"checkpoint.json": name}))
    return {f"runs/models/{name}": fingerprint(folder)}


def test_trainings_that_differ_in_more_than_their_seed_are_refused_where_their_models_are_there(tmp_path: Path) -> None:
    for name, objective, seed in (("Default-0", "simple", 0), ("Default-1", "simple", 1), ("IWDiff-1", "iwdiff", 1)):
        inputs = trained(tmp_path, name, objective=objective, seed=seed, log_every=1 + seed)
        write(tmp_path, name, 20.0 + seed, samples={"params": {"model": name, "seed": 0}, "inputs": inputs})
    assert "20.5 sd 0.71" in compare(tmp_path, "Default-0,Default-1", "IWDiff-1", seeds=True)
    with pytest.raises(UserError, match=r"model\.training\.objective is simple and iwdiff$"):
        compare(tmp_path, "Default-0,IWDiff-1", "Default-1", seeds=True)
    elsewhere = tmp_path / "runs/evaluations/Default-0", tmp_path / "runs/evaluations/IWDiff-1"
    with pytest.raises(UserError, match=r"model\.training\.objective is simple and iwdiff$"):
        compare(tmp_path / "another", ",".join(map(str, elsewhere)), str(elsewhere[0]), seeds=True)
    retrained = tmp_path / "runs/models/IWDiff-1/manifest.json"
    retrained.write_text("{}")  # what made its samples is gone
    text = compare(tmp_path, "Default-0,IWDiff-1", "Default-1", seeds=True)
    assert "20.5 sd 0.71" in text and "at your word: IWDiff-1, since runs/models/IWDiff-1 is gone or no" in text


def test_a_model_that_is_gone_spares_no_others_the_check(tmp_path: Path) -> None:
    for name, objective, seed in (("A0", "simple", 0), ("A1", "iwdiff", 1), ("A2", "simple", 2), ("A3", "simple", 3)):
        inputs = trained(tmp_path, name, objective=objective, seed=seed)
        write(tmp_path, name, 20.0 + seed, samples={"params": {"model": name, "seed": 0}, "inputs": inputs})
    refused = pytest.raises(UserError, match=r"^A0,A1: .* model\.training\.objective is simple and iwdiff$")
    with refused:
        compare(tmp_path, "A0,A1,A2", "A3", seeds=True)
    shutil.rmtree(tmp_path / "runs/models/A2")
    with refused:
        compare(tmp_path, "A0,A1,A2", "A3", seeds=True)
    with refused:
        compare(tmp_path, "A2,A0,A1", "A3", seeds=True)
    text = compare(tmp_path, "A2,A0,A3", "A1", seeds=True)
    assert "at your word: A2, since runs/models/A2 is gone" in text and "word: A0" not in text
    shutil.rmtree(tmp_path / "runs/models/A0")
    text = compare(tmp_path, "A2,A0", "A3", seeds=True)
    assert "at your word: A2, " in text and "at your word: A0, " in text


def test_trainings_on_other_shards_are_no_seeds_though_the_dataset_has_their_name(tmp_path: Path) -> None:
    for seed, shards in enumerate(("ab" * 32, "cd" * 32)):
        inputs = trained(tmp_path, f"m-{seed}", shards, objective="simple", seed=seed)
        write(tmp_path, f"m-{seed}", 20.0, samples={"params": {"model": f"m-{seed}", "seed": 0}, "inputs": inputs})
    with pytest.raises(UserError, match=r"model\.index_sha256 is abababababab\.\.\. and cdcdcdcdcdcd\.\.\.$"):
        compare(tmp_path, "m-0,m-1", "m-0", seeds=True)


def test_samplings_of_one_model_are_known_to_be_seeds_without_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        made = {"params": {"model": "m", "seed": seed}, "inputs": {"runs/models/m": "ab" * 32}}
        write(tmp_path, f"a{seed}", 20.0 + seed, samples=made)
    assert "at your word" not in compare(tmp_path, "a0,a1", "a0", seeds=True)


def cascade(model: str, seed: int, base: dict[str, Any], base_name: str) -> dict[str, Any]:
    inputs = {f"runs/models/{model}": model, f"runs/samples/{base_name}": base_name}
    params = {"upsampler": model, "samples": base_name, "steps": 10, "seed": seed}
    return {"params": params, "inputs": inputs, "base": base}


def test_seeds_of_a_cascade_may_differ_in_those_of_every_stage(tmp_path: Path) -> None:
    def base(seed: int, steps: int = 5, model: str = "m") -> dict[str, Any]:
        return {"params": {"model": model, "steps": steps, "seed": seed}, "inputs": {f"runs/models/{model}": model}}

    for name, distance, made in (
        ("a0", 20.0, cascade("up", 0, base(0), "base-0")),
        ("a1", 21.0, cascade("up", 1, base(1), "base-1")),
        ("a2", 22.0, cascade("up", 0, base(1), "base-1")),
        ("again", 23.0, cascade("up", 0, base(0), "base-again")),
        ("longer", 24.0, cascade("up", 1, base(1, steps=6), "longer")),
        ("trained", 25.0, cascade("up", 1, base(1, model="m-1"), "base-m-1")),
    ):
        write(tmp_path, name, distance, samples=made)
    assert "21 sd 1 " in row(compare(tmp_path, "a0,a1,a2", "a0"), "frechet_distance")
    with pytest.raises(UserError, match="a0,again: the same seed twice"):
        compare(tmp_path, "a0,again", "a0")
    with pytest.raises(UserError, match=r"not seeds of one sampling: samples\.steps is 5 and 6$"):
        compare(tmp_path, "a0,longer", "a0", seeds=True)
    with pytest.raises(UserError, match=r"samples\.inputs\.runs/models/m is m and nothing; .* say so by --seeds$"):
        compare(tmp_path, "a0,trained", "a0")
    assert "22.5 sd 3.5" in row(compare(tmp_path, "a0,trained", "a0", seeds=True), "frechet_distance")


def test_a_mean_over_seeds_has_the_bounds_of_its_score_and_no_spread_within_seeds(tmp_path: Path) -> None:
    for seed, (distance, recall, kid) in enumerate(((0.0, 0.6, -0.002), (0.8, 1.0, 0.004))):
        write(tmp_path, f"a{seed}", distance, samples__params__seed=seed)
        scores = {"frechet_distance": distance, "recall": recall, "kid": kid, "kid_standard_error": 0.001}
        (tmp_path / f"runs/metrics/a{seed}.json").write_text(json.dumps(scores))
    text = compare(tmp_path, "a0,a1", "a1")
    assert "0.4 sd 0.57 [0, 5.482]" in row(text, "frechet_distance")
    assert "0.8 sd 0.28 [0, 1]" in row(text, "recall")
    assert "0.001 sd 0.0042 [-0.03712, 0.03912]" in row(text, "kid")
    assert "kid_standard_error" not in text


def test_an_interval_without_width_decides_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0, intervals={"frechet_distance": [20.0, 20.0]})
    write(tmp_path, "b", 10.0)
    assert row(compare(tmp_path, "a", "b"), "frechet_distance").split()[1] == "20"
    assert row(compare(tmp_path, "a", "b"), "frechet_distance").endswith("-10")


def test_other_samplings_are_no_seeds(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0)
    write(tmp_path, "b", 10.0, samples__params__steps=50)
    with pytest.raises(UserError, match="a,b: not seeds of one sampling: steps is 10 and 50"):
        compare(tmp_path, "a,b", "a")
    with pytest.raises(UserError, match="a,a: the same images twice"):
        compare(tmp_path, "a,a", "b")
    write(tmp_path, "again", 20.0, samples__params__seed=1, samples_sha256="a")
    with pytest.raises(UserError, match="a,again: the same images twice"):
        compare(tmp_path, "a,again", "b")
    write(tmp_path, "elsewhere", 20.0)
    with pytest.raises(UserError, match="a,elsewhere: the same seed twice"):
        compare(tmp_path, "a,elsewhere", "b")
    for name, sha256 in (("c", "12" * 32), ("d", "34" * 32)):  # of two trainings
        made = {"params": {"model": "m", "seed": 0}, "inputs": {"runs/models/m": sha256}}
        write(tmp_path, name, 10.0, samples=made)
    with pytest.raises(UserError, match=r"c,d: not seeds of one sampling: inputs\.runs/models/m is 1212"):
        compare(tmp_path, "c,d", "a")


def test_samples_of_unknown_making_are_seeds_if_one_says_so(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write(tmp_path, name, 20.0, samples={"name": f"{name}.npz", "images": 100})
    write(tmp_path, "a", 10.0)
    with pytest.raises(UserError, match=r"x: does not say how its samples were made; if x,y are seeds .* by --seeds"):
        compare(tmp_path, "x,y", "a")
    text = compare(tmp_path, "x,y", "a", seeds=True)
    assert (
        "20 sd 0" in row(text, "frechet_distance")
        and "word: x, since its samples do not tell how they were made\n" in text
    )
    with pytest.raises(UserError, match="x,a: not seeds of one sampling: model is nothing and m"):
        compare(tmp_path, "x,a", "y", seeds=True)
    with pytest.raises(UserError, match="x,x: the same images twice"):
        compare(tmp_path, "x,x", "y", seeds=True)


@pytest.mark.parametrize("side", ["a,", ",a", "a,,a", ""])
def test_a_missing_name_is_refused(tmp_path: Path, side: str) -> None:
    write(tmp_path, "a", 20.0)
    with pytest.raises(UserError, match="a name is missing"):
        compare(tmp_path, side, "a")


def test_scores_are_those_of_the_folders_own_project(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write(ours, "a", 20.0)
    write(theirs, "a", 10.0)
    folder = theirs / "runs/evaluations/a"
    assert row(compare(ours, "a", str(folder)), "frechet_distance").endswith("-10 better")
    (theirs / "runs/metrics/a.json").unlink()
    with pytest.raises(UserError, match=r"no evaluation \(.*theirs/runs/metrics/a.json is missing\)"):
        compare(ours, "a", str(folder))


def test_without_intervals_there_is_no_verdict(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0, intervals={})
    write(tmp_path, "b", 10.0)
    assert row(compare(tmp_path, "a", "b"), "frechet_distance").endswith("-10")


def test_what_has_not_run_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a", 20.0)
    with pytest.raises(UserError, match="nothing: no evaluation"):
        compare(tmp_path, "a", "nothing")


@pytest.mark.parametrize("content", ["{", "null", '{"protocol": 3}', "[]"])
def test_a_damaged_protocol_is_named(tmp_path: Path, content: str) -> None:
    write(tmp_path, "a", 20.0)
    (tmp_path / "runs/evaluations/a/protocol.json").write_text(content)
    with pytest.raises(UserError, match=r"evaluations/a/protocol.json: damaged \(.*\); evaluate again"):
        compare(tmp_path, "a", "a")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"intervals": {"recall": [0.5]}}, "intervals.recall"),
        ({"samples": {"params": [1]}}, "samples.params"),
        ({"samples": {"params": {"seed": "x"}}}, "samples.params.seed"),
        ({"protocol__reference": 200}, "protocol.reference"),
    ],
)
def test_the_damaged_key_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    write(tmp_path, "a", 20.0, **change)
    with pytest.raises(UserError, match=rf"protocol.json: damaged \({named}"):
        compare(tmp_path, "a", "a")


@pytest.mark.parametrize("content", ["[1, 2]", '{"recall": "0.5"}', '{"recall": NaN}', "{"])
def test_damaged_scores_are_named(tmp_path: Path, content: str) -> None:
    write(tmp_path, "a", 20.0)
    (tmp_path / "runs/metrics/a.json").write_text(content)
    with pytest.raises(UserError, match=r"metrics/a.json: damaged"):
        compare(tmp_path, "a", "a")
