"""The evaluate stage, and `iddpm evaluate` on sets made elsewhere."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from iddpm.data import Card, ShardFolder, open_source, write_shards
from iddpm.errors import UserError
from iddpm.evaluation.images import ArrayImages, FolderImages, NpzImages, ShardImages
from iddpm.params import DigitsDataset, ScoreSettings, Source
from iddpm.stages.compare import compare
from iddpm.stages.evaluate import evaluate_to_folder, refuse_other_images
from iddpm.stages.export_pngs import write_pngs
from iddpm.stages.run import run_stage

from ..conftest import Project, write_tiny_params

CPU = torch.device("cpu")
SETTINGS = ScoreSettings(features="pixels", kid_subset_size=50, bootstrap=10)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the digits in shards."""
    root = tmp_path_factory.mktemp("project")
    dataset = DigitsDataset(source=Source.DIGITS)
    list(write_shards(open_source(dataset, Path("data/raw")), dataset, root / "data" / "shards" / "digits"))
    return root


@pytest.mark.parametrize("shape", [(3, 3, 1), (16, 16, 1), (8, 8, 3), (4, 8, 1)])
def test_other_images_are_refused(shape: tuple[int, int, int]) -> None:
    card = Card(source="digits", description="", channels=1, size=8, classes=0, counts={})
    samples = ArrayImages(np.zeros((2, *shape), np.uint8))
    with pytest.raises(UserError, match=r"evaluations.x.samples: images of \dx?.* cannot be compared with 8x8 and 1"):
        refuse_other_images("evaluations.x.samples", samples, card)


def test_one_set_has_one_score_whatever_holds_it(root: Path, tmp_path: Path) -> None:
    shards = ShardFolder(root / "data/shards/digits")
    reference, test = ShardImages(shards, "train"), ShardImages(shards, "test")
    list(write_pngs(test, tmp_path / "pngs"))
    np.savez(tmp_path / "test.npz", arr_0=shards.read_split("test")[0], arr_1=shards.read_split("test")[1])
    sets = {"shards": test, "folder": FolderImages(tmp_path / "pngs"), "npz": NpzImages(tmp_path / "test.npz")}
    for name, images in sets.items():
        evaluate_to_folder(root, images, reference, SETTINGS, tmp_path / name, CPU)
    values = [json.loads((tmp_path / name / "scores.json").read_text()) for name in sets]
    assert values[0] == values[1] == values[2] and values[0]["copies"] == 0
    assert "label_accuracy" in values[0] and values[0]["label_accuracy"] > 0.9
    text = compare(root, str(tmp_path / "npz"), str(tmp_path / "folder"))
    assert "299 images against 1498, distance: fd-pixels" in text
    assert re.search(r"frechet_distance .* \+0, intervals overlap", text)
    assert sorted(path.name for path in (tmp_path / "npz").iterdir()) == [
        "nearest.csv", "nearest.png", "protocol.json", "scores.json",
    ]  # fmt: skip
    with open(tmp_path / "npz" / "nearest.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 299 and all(0 <= int(row["nearest_reference"]) < 1498 for row in rows)


@pytest.mark.parametrize(
    "changed",
    [{"neighbours": 4}, {"manifold_reference": 100}, {"kid_subset_size": 40}, {"inception_splits": 5}, {"seed": 1}],
    ids=str,
)
def test_every_setting_is_part_of_the_protocol(root: Path, tmp_path: Path, changed: dict[str, int]) -> None:
    images = ShardImages(ShardFolder(root / "data/shards/digits"), "test")
    for name, settings in (("one", SETTINGS), ("other", SETTINGS.model_copy(update=changed))):
        evaluate_to_folder(root, images, images, settings, tmp_path / name, CPU)
    with pytest.raises(UserError, match=rf"measured differently:\n(  classifier: .*\n)?  {next(iter(changed))}: "):
        compare(root, str(tmp_path / "one"), str(tmp_path / "other"))


def test_another_reference_is_another_protocol(root: Path, tmp_path: Path) -> None:
    shards = ShardFolder(root / "data/shards/digits")
    test, train = (ShardImages(shards, split).take(range(200)) for split in ("test", "train"))
    for name, reference in (("one", train[:100]), ("other", train[100:])):
        evaluate_to_folder(root, ArrayImages(test), ArrayImages(reference), SETTINGS, tmp_path / name, CPU)
    with pytest.raises(UserError, match=r"measured differently:\n  reference.sha256: "):
        compare(root, str(tmp_path / "one"), str(tmp_path / "other"))
    with pytest.raises(UserError, match="does not say how its samples were made"):
        compare(root, f"{tmp_path / 'one'},{tmp_path / 'other'}", str(tmp_path / "one"))


def test_labels_the_reference_lacks_are_refused(root: Path, tmp_path: Path) -> None:
    images = ShardImages(ShardFolder(root / "data/shards/digits"), "test").take(range(100))
    asked, reference = ArrayImages(images, np.arange(100) + 1000), ArrayImages(images, np.arange(100) % 10)
    with pytest.raises(UserError, match="label 1000 is none of the reference's 10 classes"):
        evaluate_to_folder(root, asked, reference, SETTINGS, tmp_path / "out", CPU)


def test_nothing_is_overwritten_or_left_behind(root: Path, tmp_path: Path) -> None:
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), name="random")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out: exists already"):
        evaluate_to_folder(root, images, images, SETTINGS, tmp_path / "out", CPU)
    with pytest.raises(UserError, match=r"random: neighbours"):
        settings = ScoreSettings(neighbours=70, kid_subset_size=50)
        evaluate_to_folder(root, images, images, settings, tmp_path / "more", CPU)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/more: cannot be made"):
        evaluate_to_folder(root, images, images, SETTINGS, tmp_path / "file" / "more", CPU)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_pngs_are_read_back_by_other_tools(root: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 5, 3), dtype=np.uint8)
    assert list(write_pngs(ArrayImages(images, np.array([2, 0, 1])), tmp_path / "pngs"))[-1] == 3
    assert np.array_equal(np.asarray(Image.open(tmp_path / "pngs" / "000001.png")), images[1])
    assert (tmp_path / "pngs/labels.csv").read_text().split() == [
        "file,label", "000000.png,2", "000001.png,0", "000002.png,1",
    ]  # fmt: skip
    again = FolderImages(tmp_path / "pngs")
    assert again.labels is not None and again.labels.tolist() == [2, 0, 1]
    with pytest.raises(UserError, match="exists already"):
        list(write_pngs(ArrayImages(images), tmp_path / "pngs"))


@pytest.mark.tools
@pytest.mark.timeout(600)
def test_a_smaller_model_is_scored_against_its_dataset_averaged(project: Project) -> None:
    changes = {
        "models.digits.size": 4,
        "models.digits.network.attention_sizes": [],
        "surrogate_samplings": {},
        "evaluations.digits": {"samples": "ancestral", "dataset": "digits", "kid_subset_size": 10},
    }
    path = write_tiny_params(project.root, changes)
    params = yaml.safe_load(path.read_text())
    del params["evaluations"]["ancestral"], params["evaluations"]["sngan-10"]
    params["likelihoods"] = {}
    project.write(params)
    for stage in ("shard digits", "train digits", "surrogate sngan", "sample ancestral", "evaluate digits", "report"):
        run_stage(*(stage + " ").split(" ")[:2], project.root)
    about = json.loads((project.root / "runs/evaluations/digits/protocol.json").read_text())
    assert about["reference"]["averaged_to"] == 4 and about["protocol"]["reference"]["images"] == 1498
    scores = json.loads((project.root / "runs/metrics/digits.json").read_text())
    assert {"inception_score", "label_accuracy", "frechet_distance"} <= scores.keys()
    report = Path(project.root / "runs/report/report.md").read_text()
    assert "network evaluations" in report and not re.search("surrogate evaluations", report)


def test_the_commands(project: Project) -> None:
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    np.savez(project.root / "a.npz", arr_0=images[:40])
    np.savez(project.root / "b.npz", arr_0=images[40:])
    evaluate = ("iddpm", "evaluate", "--features", "pixels", "--kid-subset-size", "20")
    one = project.run(*evaluate, "--samples", "a.npz", "--reference", "b.npz", "--out", "a").stdout
    assert re.search(r"^frechet_distance +\d", one, re.M) and "FID" not in one
    project.run(*evaluate, "--samples", "a.npz", "--reference", "b.npz", "--out", "k5", "--neighbours", "5")
    refused = project.run("iddpm", "compare", "a", "k5", check=False)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert refused.stderr.splitlines()[-1].strip() == "neighbours: 3 and 5"
    missing = project.run(*evaluate, "--samples", "c.npz", "--reference", "b.npz", "--out", "c", check=False)
    assert missing.returncode == 1 and "c.npz" in missing.stderr and len(missing.stderr.splitlines()) == 1
    vgg = ("--features", "vgg", "--samples", "a.npz", "--reference", "b.npz", "--out", "d")
    unknown = project.run("iddpm", "evaluate", *vgg, check=False)
    assert unknown.returncode == 1 and "vgg: choose lite0, inception, pixels or module/NAME" in unknown.stderr
    project.run("iddpm", "export-pngs", "a.npz", "pngs")
    assert len(list((project.root / "pngs").glob("*.png"))) == 40
