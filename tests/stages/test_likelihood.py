"""Bits per dimension of both splits and over the checkpoints of a training."""

import csv
import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from iddpm.errors import UserError
from iddpm.stages import likelihood
from iddpm.stages.run import run_stage

from ..conftest import Project, assert_checked, make_project, tiny_params

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]

STEPS, EVERY, IMAGES = 150, 50, 16
BOTH = {"model": "few", "dataset": "few", "images": IMAGES, "batch_size": 6}
LIKELIHOODS = {
    "both": BOTH | {"split": "both", "checkpoints": "all"},
    "train": BOTH | {"split": "train"},
    "test": BOTH | {"split": "test"},
    "raw": BOTH | {"checkpoints": "all", "weights": "raw", "steps": 5},
    "short": BOTH | {"split": "both", "model": "short"},
    "one": BOTH | {"split": "both", "checkpoints": "all", "images": 1},
}
BATCHES_OF_BOTH = 3 * 2 * 3  # 3 checkpoints, 2 splits, 16 images in batches of 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A model trained far on 16 images, and one on the same that ends where the first one's first snapshot is."""
    project = make_project(tmp_path_factory.mktemp("likelihood") / "project")
    digits = (load_digits().images * 255 / 16).round().astype(np.uint8)
    for split, first, count in (("train", 0, 16), ("test", 16, 20)):
        folder = project.root / "data" / "raw" / "images" / "few" / split
        folder.mkdir(parents=True)
        for i in range(first, first + count):
            Image.fromarray(digits[i]).save(folder / f"{i:03d}.png")
    params = {group: {} for group in tiny_params()}
    params["datasets"] = {"few": {"source": "images/few", "size": 8, "channels": 1, "test_every": None}}
    training = {"batch_size": 16, "learning_rate": 3.0e-3, "ema_decay": 0.9}
    model = {
        "dataset": "few",
        "network": {"width": 16, "channel_mult": [1, 2], "blocks": 1},
        "diffusion": {"timesteps": 20},
    }
    params["models"] = {
        "few": model | {"training": training | {"steps": STEPS, "snapshot_every": EVERY}},
        "short": model | {"training": training | {"steps": EVERY}},
    }
    params["likelihoods"] = LIKELIHOODS
    project.write(params)
    for stage in ("shard few", "train few", "train short", *(f"likelihood {name}" for name in LIKELIHOODS)):
        run_stage(*stage.split(), project.root)
    return project


def scores_of(project: Project, name: str) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((project.root / f"runs/likelihoods/{name}/bits_per_dim.json").read_text())
    return scores


def rows_of(project: Project, name: str, file: str) -> list[dict[str, str]]:
    with open(project.root / "runs" / "likelihoods" / name / file) as stream:
        return list(csv.DictReader(stream))


def test_overfitting_is_seen_in_the_gap(trained: Project) -> None:
    rows = rows_of(trained, "both", "checkpoints.csv")
    expected = [(str(step), split) for step in (50, 100, 150) for split in ("train", "test")]
    assert [(row["step"], row["split"]) for row in rows] == expected
    bits, errors = ([float(row[name]) for row in rows] for name in ("bits_per_dim", "standard_error"))
    gaps = np.diff(bits)[::2]
    assert gaps[2] > gaps[1] > gaps[0] and gaps[2] > 3 * math.hypot(*errors[-2:])
    assert bits[0] > bits[2] > bits[4]  # of the training images, throughout

    scores = scores_of(trained, "both")
    assert scores["bits_per_dim"] == scores["test_bits_per_dim"] == pytest.approx(bits[-1], rel=1e-7)
    assert scores["train_bits_per_dim"] == pytest.approx(bits[-2], rel=1e-7)
    assert scores["gap_bits_per_dim"] == pytest.approx(gaps[-1], rel=1e-6)
    assert scores["gap_bits_per_dim_standard_error"] == pytest.approx(math.hypot(*errors[-2:]), rel=1e-6)
    protocol = scores["protocol"]
    assert (protocol["split"], protocol["images"], protocol["train_images"]) == ("both", IMAGES, IMAGES)
    for figure in ("terms", "checkpoints"):
        for kind in ("png", "svg"):
            assert (trained.root / f"runs/likelihoods/both/{figure}.{kind}").stat().st_size > 500


def test_both_splits_are_the_two_single_runs(trained: Project) -> None:
    both, terms = scores_of(trained, "both"), rows_of(trained, "both", "terms.csv")
    for split in ("train", "test"):
        single = scores_of(trained, split)
        for name in ("bits_per_dim", "bits_per_dim_standard_error"):
            assert both[f"{split}_{name}"] == single[name]
        assert [row for row in terms if row["split"] == split] == rows_of(trained, split, "terms.csv")
        total = sum(float(row["vb_bits_per_dim"]) for row in terms if row["split"] == split)
        assert single["bits_per_dim"] == pytest.approx(total + single["prior_bits_per_dim"], rel=1e-5)
        assert "gap_bits_per_dim" not in single and single["protocol"]["split"] == split
        assert not (trained.root / f"runs/likelihoods/{split}/checkpoints.csv").exists()
    assert len(terms) == 2 * 20


def test_a_snapshot_is_evaluated_like_a_model_that_ends_there(trained: Project) -> None:
    scores = scores_of(trained, "short")
    first = {row["split"]: float(row["bits_per_dim"]) for row in rows_of(trained, "both", "checkpoints.csv")[:2]}
    assert first == {split: pytest.approx(scores[f"{split}_bits_per_dim"], rel=1e-5) for split in ("train", "test")}


def test_snapshots_have_the_weights_asked_for(trained: Project) -> None:
    rows = rows_of(trained, "raw", "checkpoints.csv")
    assert [(row["step"], row["split"]) for row in rows] == [(str(step), "test") for step in (50, 100, 150)]
    assert scores_of(trained, "raw")["bits_per_dim"] == pytest.approx(float(rows[-1]["bits_per_dim"]), rel=1e-7)
    averaged = rows_of(trained, "both", "checkpoints.csv")[1::2]
    assert all(row["bits_per_dim"] != other["bits_per_dim"] for row, other in zip(rows, averaged, strict=True))


def test_one_image_of_each_split_has_no_standard_error(trained: Project) -> None:
    scores = scores_of(trained, "one")
    assert scores["gap_bits_per_dim"] == scores["test_bits_per_dim"] - scores["train_bits_per_dim"]
    assert {name for name, value in scores.items() if value is None} == {
        f"{what}bits_per_dim_standard_error" for what in ("", "train_", "test_", "gap_")
    }
    assert {row["standard_error"] for row in rows_of(trained, "one", "checkpoints.csv")} == {"nan"}


@pytest.mark.parametrize("after", [4, 13])
def test_an_interruption_among_checkpoints_goes_on(
    trained: Project, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = trained.root / "runs" / "likelihoods" / "both"
    uninterrupted = {file.name: file.read_bytes() for file in output.iterdir() if file.suffix != ".json"}
    evaluated: list[int] = []
    whole = likelihood.bound_terms

    def counted(*arguments: Any, **settings: Any) -> Any:
        if len(evaluated) == after:
            signal.raise_signal(signal.SIGTERM)
        evaluated.append(1)
        return whole(*arguments, **settings)

    monkeypatch.setattr(likelihood, "bound_terms", counted)
    with pytest.raises(SystemExit):
        run_stage("likelihood", "both", trained.root)
    assert len(evaluated) == after
    after = -1
    run_stage("likelihood", "both", trained.root)
    assert len(evaluated) == BATCHES_OF_BOTH
    assert {file.name: file.read_bytes() for file in output.iterdir() if file.suffix != ".json"} == uninterrupted


def test_a_snapshot_that_is_gone_is_named(trained: Project, tmp_path: Path) -> None:
    snapshot = trained.root / "runs/models/few/snapshots/step-000000100"
    snapshot.rename(tmp_path / "aside")
    with pytest.raises(UserError, match="runs/models/few/snapshots/step-000000100: missing"):
        run_stage("likelihood", "both", trained.root)
    (tmp_path / "aside").rename(snapshot)


IMPORT = {
    "weights": "data/raw/checkpoints/x.pt",
    "flags": "--image_size 32 --num_channels 32 --num_res_blocks 1 --diffusion_steps 50",
}
ALL = {"model": "digits", "dataset": "digits", "checkpoints": "all"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihoods.x": ALL}, "likelihoods.x.checkpoints: all, but digits keeps no snapshots: set models.digits."
         "training.snapshot_every below its 4 steps, or use final"),
        ({"likelihoods.x": ALL, "models.digits.training.snapshot_every": 4}, "likelihoods.x.checkpoints: all, but"),
        ({"likelihoods.x": ALL, "models.digits.training.snapshot_every": 3}, None),
        ({"likelihoods.x": ALL | {"model": "m"}, "mixtures.m": {"middle": "digits", "ends": "digits", "within": 2}},
         "likelihoods.x.checkpoints: all, but only models have snapshots, m has none; use final"),
        ({"likelihoods.x": ALL | {"model": "i", "dataset": "c"}, "imports.i": IMPORT,
          "datasets.c": {"source": "cifar10"}}, "likelihoods.x.checkpoints: all, but only models have snapshots"),
        ({"likelihoods.digits.split": "both"}, None),
        ({"likelihoods.digits.split": "both", "likelihoods.digits.images": 300},
         "likelihoods.digits.images: 300 is more than the 299 images of test"),
        ({"likelihoods.digits.split": "train", "likelihoods.digits.images": 300}, None),
        ({"likelihoods.digits.split": "valid"}, "likelihoods.digits.split: "),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_named(tmp_path: Path, changes: dict[str, Any], message: str | None) -> None:
    assert_checked(tmp_path, changes, message)


def test_the_images_of_a_folder_are_counted_when_they_are_read(trained: Project) -> None:
    """A folder's number of images is not known before."""
    params = trained.root / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("images: 16", "images: 17"))
    with pytest.raises(UserError, match=r"likelihoods.both.images: 17 is more than the 16 train images of few"):
        run_stage("likelihood", "both", trained.root)
    params.write_text(before)
