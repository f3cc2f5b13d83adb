"""What a pipeline registers: all scores of every model and cascade, none that is out of date, and cascades as pairs."""

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import iddpm
from iddpm.errors import UserError
from iddpm.model_commands import draw as draw_command
from iddpm.model_commands import register
from iddpm.params import Params, SurrogateSampling
from iddpm.presets import chosen_preset
from iddpm.stages.cascade_model import CascadeModel, write_recipe
from iddpm.stages.draw import LowResolution, Start, draw
from iddpm.stages.measurements import Measurement, best_measured
from iddpm.stages.models import DiffusionModel, Images
from iddpm.stages.publish import draw_to_file, register_everything, register_model
from iddpm.stages.results import gather_results
from iddpm.stages.run import run_stage
from iddpm.tracking import load, predict, tracking_uri
from iddpm.tracking.registry import REQUIREMENTS
from iddpm.training.build import build_network
from iddpm.training.checkpoint import write_checkpoint

from ..conftest import BIN, Project, make_project, tiny_params
from .test_draw import CARD, randomised, write_model

IMAGES, LEVEL = 20, 0.125
COMMIT, SHARDS = "commit of the training of {}", "5" * 64
NO_ATTENTION = {"attention_sizes": []}
STAGES = {
    "shard": ["digits"],
    "sample": ["small", "small-seed-1", "few-steps", "early"],
    "cascade": ["large", "large-seed-1"],
    "evaluate": ["small", "small-seed-1", "few-steps", "early", "large", "large-seed-1"],
    "likelihood": ["base"],
    "reconstruct": ["real"],
}


def cascade_params() -> dict[str, Any]:
    """A base model at 4 pixels, an upsampler to 8, two seeds of each sampling, all that measures them."""
    params = tiny_params() | {group: {} for group in ("surrogates", "surrogate_samplings")}
    digits = params["models"]["digits"] | {"network": params["models"]["digits"]["network"] | NO_ATTENTION}
    snapshots = digits["training"] | {"snapshot_every": 2}
    params["models"] = {
        "base": digits | {"size": 4, "training": snapshots},
        "up": digits | {"upsampling": {"low_size": 4, "noise_augmentation": 0.25}},
    }
    small = {"model": "base", "steps": 4, "count": IMAGES}
    params["samplings"] = {
        "small": small | {"seed": 3},
        "small-seed-1": small | {"seed": 1},
        "few-steps": small
        | {"steps": 2, "sampler": "ddim", "eta": 0.5, "clip": False, "weights": "raw", "batch_size": 8},
        "early": small | {"checkpoint": 2},
    }
    large = {"samples": "small", "upsampler": "up", "steps": 3, "batch_size": 8, "augmentation": LEVEL}
    params["cascades"] = {"large": large, "large-seed-1": large | {"samples": "small-seed-1", "seed": 1}}
    evaluation = params["evaluations"]["ancestral"] | {"split": "test", "bootstrap": 0}
    params["evaluations"] = {name: evaluation | {"samples": name} for name in STAGES["evaluate"]}
    params["likelihoods"] = {"base": {"model": "base", "dataset": "digits", "images": 5}}
    params["reconstructions"] = {
        "real": {"upsampler": "up", "dataset": "digits", "images": 5, "features": "pixels", "steps": 3}
    }
    result: dict[str, Any] = json.loads(json.dumps(params))
    return result


def write_trained(root: Path, name: str, folder: str, seed: int) -> None:
    """In the place of a training: random weights under the parameters that params.yaml has."""
    model = Params.model_validate_json(json.dumps(cascade_params())).models[name]
    network = build_network(model, CARD)
    about = {"kind": "diffusion", "params": model.model_dump(mode="json"), "card": CARD.as_json(), "step": 4}
    about["architecture"] = {key: about["params"][key] for key in ("network", "diffusion", "size", "upsampling")}
    about["index_sha256"] = SHARDS
    weights = {"ema": randomised(network, seed), "model": randomised(network, seed + 1)}
    write_checkpoint(root / "runs/models" / folder, about, weights)
    time = root / f"runs/times/models/{name}.json"
    time.parent.mkdir(exist_ok=True)
    time.write_text(json.dumps({"record": {"git_commit": COMMIT.format(name)}}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline whose stages have run, but for the trainings."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        environment.setenv("PATH", f"{BIN}:/usr/bin:/bin")
        project = make_project(tmp_path_factory.mktemp("results") / "project")
        project.write(cascade_params())
        for seed, (name, folder) in enumerate(
            [("base", "base"), ("up", "up"), ("base", "base/snapshots/step-000000002")]
        ):
            write_trained(project.root, name, folder, 10 * seed)
        for kind, names in STAGES.items():
            for name in names:
                run_stage(kind, name, project.root)
        yield project


@pytest.fixture(scope="module")
def registered(finished: Project) -> Project:
    register_everything(finished.root, "tiny")
    return finished


def client(project: Project) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_uri(project.root))


def images_of(project: Project, samples: str) -> Images:
    with np.load(project.root / f"runs/samples/{samples}/samples.npz") as npz:
        images: Images = npz["arr_0"]
        return images


def drawn(project: Project, model: str, label: int | None = None, **asked: Any) -> Images:
    """By the command, a path of the registry or a folder."""
    out = project.root / "work" / "drawn.npz"
    draw_to_file(project.root, model, out, IMAGES, label, asked)
    with np.load(out) as npz:
        images: Images = npz["arr_0"]
        return images


class TestRegistered:
    """In a real MLflow store, with tiny models of random weights."""

    pytestmark: ClassVar = [pytest.mark.tools]

    def test_every_model_and_cascade_is_a_version_with_all_its_scores(self, registered: Project) -> None:
        mlflow, root = client(registered), registered.root
        versions = {alias: mlflow.get_model_version_by_alias("tiny", alias) for alias in ("model-base", "model-up")}
        pair = mlflow.get_model_version_by_alias("tiny", "cascade-large")
        assert len(mlflow.search_model_versions("name = 'tiny'")) == 3
        base, up = versions.values()
        for version, entries in ((base, ("small", "small-seed-1", "few-steps")), (pair, ("large", "large-seed-1"))):
            for entry in entries:
                for score, value in json.loads((root / f"runs/metrics/{entry}.json").read_text()).items():
                    assert version.tags[f"score.{entry}.{score}"] == repr(value)
        bits = json.loads((root / "runs/likelihoods/base/bits_per_dim.json").read_text())["bits_per_dim"]
        assert float(base.tags["score.base.bits_per_dim"]) == bits
        assert not [tag for tag in base.tags if tag.startswith("score.early.")]  # of a snapshot
        assert float(up.tags["score.real.psnr"]) > 0
        manifest = (root / "runs/models/up/manifest.json").read_bytes()
        sha256 = hashlib.sha256(manifest).hexdigest()
        assert up.tags["model_manifest_sha256"] == pair.tags["upsampler_manifest_sha256"] == sha256
        assert json.loads(pair.tags["base_params"])["size"] == 4 and len(pair.tags["base_dataset_card_sha256"]) == 64

    def test_lineage_is_that_of_the_training(self, registered: Project) -> None:
        """A commit after it is where it was registered, not where it comes from."""
        tags = client(registered).get_model_version_by_alias("tiny", "cascade-large").tags
        for part, model in (("base", "base"), ("upsampler", "up")):
            assert tags[f"{part}_git_commit"] == COMMIT.format(model) and tags[f"{part}_shards_sha256"] == SHARDS
        assert "git_commit" not in tags and "registered_at_commit" in tags
        assert not [tag for tag in tags if tag.endswith("run_id")]  # these trainings never ran

    def test_how_the_samples_of_every_score_were_drawn(self, registered: Project) -> None:
        base = client(registered).get_model_version_by_alias("tiny", "model-base").tags
        assert {tag for tag in base if tag.startswith("sampling.")} == {
            f"sampling.{entry}" for entry in ("small", "small-seed-1", "few-steps")
        }
        few = json.loads(base["sampling.few-steps"])
        assert (few["steps"], few["sampler"], few["eta"], few["clip"]) == (2, "ddim", 0.5, False)
        pair = client(registered).get_model_version_by_alias("tiny", "cascade-large").tags
        large = json.loads(pair["sampling.large-seed-1"])
        assert (large["seed"], large["samples"]["seed"], large["augmentation"]) == (1, 1, LEVEL)

    def test_the_best_is_the_best_mean_over_seeds(self, registered: Project) -> None:
        """Samplings of one protocol compete; those of the cascade are of other images."""
        mlflow, root = client(registered), registered.root
        holder = mlflow.get_model_version_by_alias("tiny", "best-fd-pixels-pixels-4")
        assert holder.tags["result"] == "base"
        values = {name: json.loads((root / f"runs/metrics/{name}.json").read_text()) for name in STAGES["evaluate"]}
        distance = {name: value["frechet_distance"] for name, value in values.items()}
        means = {
            ("small", "small-seed-1"): (distance["small"] + distance["small-seed-1"]) / 2,
            ("few-steps",): distance["few-steps"],
        }
        best = min(means, key=lambda names: means[names])
        (group,) = [one for one in json.loads(holder.tags["measured"]) if "fd-pixels" in one["scores"]]
        score = group["scores"]["fd-pixels"]
        assert score["value"] == pytest.approx(means[best]) and tuple(score["of"]) == best
        large = mlflow.get_model_version_by_alias("tiny", "best-recall-pixels-pixels-8")
        (group,) = json.loads(large.tags["measured"])
        recall = (values["large"]["recall"] + values["large-seed-1"]["recall"]) / 2
        assert large.tags["result"] == "large" and group["scores"]["recall-pixels"]["value"] == pytest.approx(recall)
        assert mlflow.get_model_version_by_alias("tiny", "best-bits_per_dim").tags["result"] == "base"
        assert mlflow.get_model_version_by_alias("tiny", "best-psnr").tags["result"] == "up"

    def test_nothing_is_registered_twice(self, registered: Project) -> None:
        done, left_out = register_everything(registered.root, "tiny")
        assert not left_out and [line for line in done if "model-" in line or "cascade-" in line] == [
            "models:/tiny@model-base is version 1, already registered",
            "models:/tiny@model-up is version 2, already registered",
            "models:/tiny@cascade-large is version 3, already registered",
        ]
        assert len(client(registered).search_model_versions("name = 'tiny'")) == 3

    def test_a_cascade_that_became_a_seed_of_another_has_no_alias_of_its_own(
        self, registered: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(registered.root)
        whole = cascade_params()
        alone = json.loads(json.dumps(whole))
        del alone["cascades"]["large"], alone["evaluations"]["large"]
        registered.write(alone)
        try:
            register(name="grown")
        finally:
            registered.write(whole)
        register(name="grown")
        printed = capsys.readouterr().out.splitlines()
        assert "models:/grown@cascade-large-seed-1 is version 3, registered" in printed
        assert [line for line in printed if "stays" in line or "gone" in line] == [
            "models:/grown@cascade-large-seed-1 is gone: that entry is a seed of cascade-large, whose version has its "
            "scores"
        ]
        aliases = client(registered).get_registered_model("grown").aliases
        assert {alias for alias in aliases if alias.startswith("cascade-")} == {"cascade-large"}

    def test_a_cascade_by_its_alias_is_the_pipelines(self, registered: Project) -> None:
        """Bit for bit, with seeds and labels of its own; and everything of the request has an effect."""
        expected = images_of(registered, "large")
        for alias in ("cascade-large", "best-fd-pixels-pixels-8"):
            assert np.array_equal(drawn(registered, f"models:/tiny@{alias}"), expected)
        other_seed = drawn(registered, "models:/tiny@cascade-large", seed=1)
        assert np.array_equal(other_seed, images_of(registered, "large-seed-1"))
        for asked in ({"steps": "5"}, {"sampler": "ddim"}, {"label": 3}):
            assert not np.array_equal(drawn(registered, "models:/tiny@cascade-large", **asked), expected)
        with pytest.raises(UserError, match=r"^label 10: the model has classes 0 to 9$"):
            drawn(registered, "models:/tiny@cascade-large", label=10)
        with pytest.raises(UserError, match=r"^steps: "):
            drawn(registered, "models:/tiny@cascade-large", steps="1000")
        model = load("tiny@cascade-large", registered.root)
        rows = pd.DataFrame({"label": [-1] * IMAGES})
        for asked in ({"upsampler_steps": "2"}, {"upsampler_augmentation": 0.0}, {"upsampler_sampler": "ddim"}):
            assert not np.array_equal(model.predict(rows, params=asked), expected)

    def test_a_model_by_its_alias_is_the_folder(self, registered: Project) -> None:
        folder = str(registered.root / "runs/models/base")
        params = {"steps": "4", "sampler": "ancestral", "eta": 0.0, "seed": 3, "weights": "ema", "clip": True}
        rows = pd.DataFrame({"label": [-1] * IMAGES})
        images = load("tiny@model-base", registered.root).predict(rows, params=params)
        assert np.array_equal(images, drawn(registered, folder, steps="4", seed=3))
        assert np.array_equal(images, images_of(registered, "small"))

    def test_the_best_draws_what_earned_its_alias(self, registered: Project) -> None:
        """Bit for bit the samples of the entry with the best distance, and what is asked otherwise has an effect."""
        best = "models:/tiny@best-fd-pixels-pixels-4"
        holder = client(registered).get_model_version_by_alias("tiny", "best-fd-pixels-pixels-4")
        (group,) = [one for one in json.loads(holder.tags["measured"]) if "fd-pixels" in one["scores"]]
        earned = images_of(registered, group["scores"]["fd-pixels"]["of"][0])
        assert np.array_equal(drawn(registered, best), earned)
        for asked in ({"seed": 8}, {"label": 3}, {"sampler": "ancestral", "steps": "5"}, {"sampler": "ddim"}):
            assert not np.array_equal(drawn(registered, best, **asked), earned)
        register_model(registered.root, "base", "few", "champion", "few-steps", "frechet_distance")
        assert np.array_equal(drawn(registered, "models:/few@champion"), images_of(registered, "few-steps"))
        assert drawn(registered, "models:/few@champion", sampler="ancestral").shape == earned.shape
        with pytest.raises(UserError, match=r"^weights: input should be 'ema' or 'raw', not 'half'$"):
            predict("few", pd.DataFrame({"label": [-1]}), {"weights": "half"}, registered.root)

    def test_drawing_from_the_registry_needs_no_parameters(
        self, registered: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(registered.root)
        restore = replaced(registered, "params.yaml", lambda content: b"nonsense")
        try:
            draw_command("models:/tiny@model-base", tmp_path / "x.png", count=2)
        finally:
            restore()
        assert (tmp_path / "x.png").exists()

    def test_nothing_that_is_registered_is_pickled_or_a_snapshot(self, registered: Project) -> None:
        files = [path for path in (registered.root / "mlruns").rglob("model/artifacts/**/*") if path.is_file()]
        assert {path.suffix for path in files} == {".json", ".safetensors"}
        assert not [path for path in files if "snapshots" in path.parts]
        assert not [path for path in files if path.read_bytes().startswith(b"\x80")]

    def test_the_command_says_what_it_did(
        self, registered: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(registered.root)
        register(name="tiny")
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "models:/tiny@model-base is version 1, already registered"
        assert any(line.startswith("models:/tiny@best-fd-pixels-pixels-4 is version 1 (base): ") for line in lines)
        with pytest.raises(UserError, match=r"^params.yaml: equals no preset; name the registered model with --name$"):
            register()
        with pytest.raises(UserError, match=r"^--alias, --evaluation, --metric: are of a single model"):
            register(name="tiny", metric="kid")

    def test_what_is_sound_is_registered_beside_what_is_not(
        self, registered: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(registered.root)
        restore = replaced(registered, "runs/samples/few-steps/grid.png", lambda content: content + b"\n")
        try:
            with pytest.raises(UserError, match=r"^evaluate@few-steps: outdated: runs/samples/few-steps has changed"):
                register(name="tiny")
            with pytest.raises(UserError, match=r"^evaluate@few-steps: outdated"):
                register(model="base", evaluation="few-steps")
        finally:
            restore()
        printed = capsys.readouterr().out
        assert "@model-up is version 2" in printed and "@model-base is version" not in printed
        assert "@model-base stays version 1: here that entry is not complete and up to date" in printed
        assert client(registered).get_model_version_by_alias("tiny", "model-base").tags["result"] == "base"
        register(name="tiny")
        assert "@model-base is version 1, already registered" in capsys.readouterr().out


def replaced(project: Project, file: str, change: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Change a file; what puts it back."""
    path = project.root / file
    before = path.read_bytes()
    path.write_bytes(change(before))
    return lambda: bool(path.write_bytes(before)) and None


ENTRIES = ["model-base", "model-up", "cascade-large"]
LARGE = ["cascade-large", "cascade-large-seed-1"]


class TestIncomplete:
    """What is missing or outdated is left out, and said with the stage that makes it; the rest is registered."""

    @pytest.mark.parametrize(
        ("file", "problem", "lost"),
        [
            (
                "runs/models/base/manifest.json",
                "sample@small: outdated: runs/models/base has changed",
                ["model-base", *LARGE],
            ),
            ("runs/samples/few-steps/grid.png", "evaluate@few-steps: outdated: runs/samples/few-steps", ["model-base"]),
            ("runs/samples/large-seed-1/grid.png", "evaluate@large-seed-1: outdated: runs/samples/large-seed", LARGE),
        ],
    )
    def test_a_measurement_of_what_is_no_more(
        self, finished: Project, file: str, problem: str, lost: list[str]
    ) -> None:
        """Neither of the entries that differ in seeds alone has a result then."""
        restore = replaced(finished, file, lambda content: content + b"\n")
        try:
            results, found, unfinished = gather_results(finished.root)
        finally:
            restore()
        assert unfinished == set(lost)
        (message,) = found  # once, if both a model and a cascade rest on it
        assert message.startswith(problem) and "dvc repro" in message and len(message.splitlines()) == 1
        assert [result.alias for result in results] == [alias for alias in ENTRIES if alias not in lost]

    def test_where_nothing_is_missing(self, finished: Project) -> None:
        results, problems, unfinished = gather_results(finished.root)
        assert [result.alias for result in results] == ENTRIES and results[-1].seeds == ("large-seed-1",)
        assert not problems and not unfinished

    @pytest.mark.parametrize(
        ("keys", "value", "problem"),
        [
            (("evaluations", "small", "neighbours"), 5, "evaluate@small: outdated: made with neighbours 3, which is 5"),
            (
                ("samplings", "few-steps", "steps"),
                3,
                "sample@few-steps: outdated: made with steps 2, which is 3 in par",
            ),
            (
                ("likelihoods", "base", "images"),
                6,
                "likelihood@base: outdated: made with images 5, which is 6 in params",
            ),
            (
                ("models", "base", "training", "seed"),
                1,
                "params.yaml: models.base.training.seed is 1, but runs/models/b",
            ),
        ],
    )
    def test_a_measurement_by_other_parameters(
        self, finished: Project, keys: tuple[str, ...], value: int, problem: str
    ) -> None:
        params = cascade_params()
        section = params
        for key in keys[:-1]:
            section = section[key]
        section[keys[-1]] = value
        finished.write(params)
        try:
            _, found, _ = gather_results(finished.root)
        finally:
            finished.write(cascade_params())
        assert found[0].startswith(problem)

    @pytest.mark.parametrize(
        ("file", "address", "sound"),
        [
            ("runs/metrics/few-steps.json", "evaluate@few-steps", ["up", "large"]),
            ("runs/times/models/base.json", "train@base", ["up"]),
        ],
    )
    def test_what_has_not_run_is_named_with_its_stage(
        self, finished: Project, file: str, address: str, sound: list[str]
    ) -> None:
        output = finished.root / file
        away = output.rename(output.with_suffix(".away"))
        try:
            results, problems, _ = gather_results(finished.root)
        finally:
            away.rename(output)
        assert problems == [f"{file}: missing; `dvc repro {address}` makes it"]
        assert [result.name for result in results] == sound

    def test_with_nothing_trained_there_is_nothing_to_register(self, project: Project) -> None:
        with pytest.raises(UserError, match=r"^runs/models/digits: missing; `dvc repro train@digits` makes it$"):
            register_everything(project.root, "tiny")
        preset = project.root / "presets" / "digits-quick.yaml"
        (project.root / "params.yaml").write_bytes(preset.read_bytes())
        assert chosen_preset(project.root) == "digits-quick"

    @pytest.mark.tools
    def test_a_server_that_is_away_is_named(self, finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
        with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:9: ") as error:
            register_everything(finished.root, "tiny")
        assert len(str(error.value).splitlines()) == 1 and "secret" not in str(error.value)


def measurement(name: str, recall: float, how: dict[str, Any] | None, **changes: Any) -> Measurement:
    fields: dict[str, Any] = {"protocol": {"images": 20}, "seed": name, "titles": {"recall": "recall-pixels"}} | changes
    return Measurement(name=name, values={"recall": recall}, made=how, settings={}, **fields)


def test_which_measurements_compete() -> None:
    """Seeds as their mean, the same samples once, and nothing that a surrogate helped to make."""
    found = best_measured(
        [
            measurement("a", 0.9, {"steps": 5}),
            measurement("a-seed-1", 0.1, {"steps": 5}),
            measurement("b", 0.6, {"steps": 9}),
            measurement("b-again", 0.0, {"steps": 9}, seed="b"),
            measurement("helped", 1.0, None),
            measurement("more", 0.2, {"steps": 5}, protocol={"images": 30}),
        ]
    )
    scores = [(one.protocol, one.scores["recall-pixels"]) for one in found]
    assert [(protocol, score.value, score.of) for protocol, score in scores] == [
        ({"images": 20}, 0.6, ("b",)),
        ({"images": 30}, 0.2, ("more",)),
    ]


def test_a_cascade_of_three_stages_that_starts_from_a_surrogate(tmp_path: Path) -> None:
    params = Params.model_validate_json(json.dumps(cascade_params()))
    sampling = {
        "model": "base",
        "surrogate": "low",
        "steps": 3,
        "count": 6,
        "t_mid": 10,
        "surrogate_steps": 5,
        "seed": 4,
    }
    entries = [
        SurrogateSampling.model_validate_json(json.dumps(sampling)),
        params.cascades["large"].model_copy(update={"upsampler": "middle", "augmentation": 0.0, "clip": False}),
        params.cascades["large"],
    ]
    write_recipe(tmp_path, entries)
    write_model(tmp_path / "surrogate", {"size": 4}, seed=1)
    upsampling = {"low_size": 4, "noise_augmentation": 0.25}
    write_model(tmp_path / "base", {"size": 4}, seed=2)
    write_model(tmp_path / "upsampler", {"upsampling": upsampling}, seed=3)
    twice = {"upsampling": upsampling | {"low_size": 8}}
    write_model(tmp_path / "upsampler_2", twice, seed=4)
    models = {path.name: DiffusionModel(path) for path in tmp_path.iterdir() if path.is_dir()}
    labels = np.array([0, 3, 3, 7, 4, 5])
    start = Start(models["surrogate"], 10, "5", entries[0].handover)
    small = draw(models["base"], 6, steps="3", labels=labels, seed=4, start=start).images
    settings: dict[str, Any] = {"steps": "3", "labels": labels, "batch_size": 8}
    middle = draw(models["upsampler"], 6, **settings, clip=False, low_res=LowResolution(small)).images
    large = draw(models["upsampler_2"], 6, **settings, low_res=LowResolution(middle, LEVEL)).images
    cascade = CascadeModel(tmp_path)
    assert np.array_equal(cascade.draw(np.array([-1, 3, 3, 7, -1, -1]), 6), large)
    for asked, message in (
        ({"eta": 0.5}, "eta: only the ddim sampler has it"),
        ({"upsampler_sampler": "euler"}, "upsampler_sampler: input should be 'ancestral' or 'ddim', not 'euler'"),
        (
            {"upsampler_2_augmentation": 0.5},
            "upsampler_2_augmentation: 0.5 is more than the 0.25 that up was",
        ),
        ({"upsampler_steps": "1000"}, "upsampler_steps: "),
        ({"clip": False}, "clip: unknown parameter; a request may set seed, steps, sampler, eta, upsampler_steps, "),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            cascade.draw(None, 6, **asked)


def test_a_request_cannot_skip_steps_of_a_surrogate_with_learned_variances(tmp_path: Path) -> None:
    """Nor can an entry; the ddim sampler of this one makes no use of them."""
    sampling = {"model": "base", "surrogate": "low", "steps": 3, "count": 2, "t_mid": 10, "surrogate_steps": 5}
    write_recipe(tmp_path, [SurrogateSampling.model_validate_json(json.dumps(sampling | {"sampler": "ddim"}))])
    write_model(tmp_path / "surrogate", {"size": 4, "diffusion": {"timesteps": 20, "variance": "learned"}})
    write_model(tmp_path / "base")
    cascade = CascadeModel(tmp_path)
    assert len(cascade.draw(None, 2)) == 2
    message = "^sampler: ancestral cannot take the surrogate's 5 of 10 steps with variance learned; use ddim$"
    with pytest.raises(UserError, match=message):
        cascade.draw(None, 2, sampler="ancestral")


def test_served_code_finds_what_it_imports() -> None:
    """Where a model is served, only these packages, mlflow's own and pandas are installed."""
    served = "iddpm.stages.cascade_model, iddpm.stages.single_model"
    code = f"import sys, {served}; print(*[n for n in sys.modules if n.split('.')[0] == 'iddpm'])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    needed = set()
    for name in loaded:
        file = Path(iddpm.__file__).parents[1] / name.replace(".", "/")
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        for node in ast.parse(file.read_text()).body:
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            needed |= {module.split(".")[0] for module in imported}
    provided = {"PIL": "Pillow", "yaml": "PyYAML", "ruamel": "ruamel.yaml"}
    packages = {provided.get(module, module) for module in needed - sys.stdlib_module_names - {"iddpm"}}
    assert {"torch", "numpy"} <= packages <= set(REQUIREMENTS)
