"""The pipeline in a real DVC repository with tiny parameters: one change, one stage."""

import json
import os
import re
from typing import Any
from unittest import mock

import numpy as np
import pytest

from iddpm.stages.run import run_stage
from pipelines.plan import stage_graph

from ..conftest import Project, make_project, tiny_params

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]

EVERYTHING = {
    "shard@digits", "surrogate@sngan", "train@digits", "sample@ancestral", "surrogate-sample@sngan-10",
    "evaluate@ancestral", "evaluate@sngan-10", "likelihood@digits", "report",
}  # fmt: skip
NEED_MODELS = ("samplings", "surrogate_samplings", "evaluations", "likelihoods")


def repro(project: Project, *arguments: str) -> set[str]:
    """Run dvc repro; the addresses of the stages that really ran."""
    output = project.run("dvc", "repro", *arguments).stdout
    return set(re.findall(r"^Running stage '(.+)':$", output, re.MULTILINE))


def run_here(project: Project) -> set[str]:
    """What the first dvc repro does: the stages of its graph, in its order, in this process, then its lock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        addresses = list(stage_graph([]))
    with mock.patch.dict(os.environ):
        for address in addresses:
            kind, _, name = address.partition("@")
            run_stage(kind, name, project.root)
    project.run("dvc", "commit", "--force")
    assert repro(project) == set()
    return set(addresses)


def would_run(project: Project, *arguments: str) -> set[str]:
    """What dvc repro would run if every stage that it runs wrote something new; no stage is started."""
    return repro(project, "--dry", "--force-downstream", *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("pipeline") / "project")
    assert repro(project) == EVERYTHING
    return project


def change(project: Project, path: str, value: Any) -> None:
    params = tiny_params()
    *parents, last = path.split(".")
    section = params
    for parent in parents:
        section = section[parent]
    section[last] = value
    project.write(params)


def test_outputs(finished: Project) -> None:
    root = finished.root
    with np.load(root / "runs/samples/ancestral/samples.npz") as npz:
        assert npz["arr_0"].shape == (20, 8, 8, 1) and npz["arr_0"].dtype == np.uint8
        assert npz["arr_1"].tolist() == [i % 10 for i in range(20)]
    metrics = json.loads((root / "runs/metrics/ancestral.json").read_text())
    assert {"frechet_distance", "kid", "inception_score", "precision", "recall", "label_accuracy"} <= metrics.keys()
    assert all(isinstance(value, float) for value in metrics.values())  # what `dvc metrics show` prints
    protocol = json.loads((root / "runs/evaluations/ancestral/protocol.json").read_text())
    assert protocol["protocol"]["reference"]["images"] == 1498 and protocol["samples"]["rounding"] == "nearest"
    assert protocol["distance"] == "fd-pixels" and set(protocol["intervals"]) >= {"frechet_distance", "precision"}
    assert protocol["samples"]["params"]["seed"] == 0 and protocol["samples"]["network_evaluations"] == 5
    bits = json.loads((root / "runs/likelihoods/digits/bits_per_dim.json").read_text())
    terms = (root / "runs/likelihoods/digits/terms.csv").read_text().splitlines()
    assert len(terms) == 21
    total = sum(float(line.split(",")[1]) for line in terms[1:]) + bits["prior_bits_per_dim"]
    assert bits["bits_per_dim"] == pytest.approx(total, rel=1e-5)
    for trained in ("models/digits", "surrogates/sngan"):  # of two rows, which tell no pace
        time = json.loads((root / f"runs/times/{trained}.json").read_text())
        assert time["seconds_per_step"] is None and time["record"]["seconds"] > 0
    report = (root / "runs/report/report.md").read_text()
    for name in re.findall(r"\]\((.+?)\)", report):
        assert (root / "runs/report" / name).stat().st_size > 500
    assert "ancestral" in report and "sngan, t_mid 10" in report and "bits/dim" in report
    header, _, *rows = [line.split(" | ") for line in report.splitlines() if line.startswith("|")][:4]
    column = header.index("surrogate evaluations")  # the report has it, since some row has any
    assert [row[column] for row in rows] == ["0", "1"]


def test_mlflow_has_one_run_per_stage_under_one_parent(finished: Project) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("iddpm")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    stages = {run.info.run_name: run for run in runs if run not in parents}
    assert len(parents) == 1 and stages.keys() == EVERYTHING
    assert {run.data.tags["mlflow.parentRunId"] for run in stages.values()} == {parents[0].info.run_id}
    train = stages["train@digits"]
    assert train.info.status == "FINISHED" and train.data.params["train.training.learning_rate"] == "0.001"
    assert [point.step for point in client.get_metric_history(train.info.run_id, "loss")] == [2, 4]
    assert train.data.tags["input.data/shards/digits"]
    assert "curves.png" in [file.path for file in client.list_artifacts(train.info.run_id)]


def test_nothing_to_do(finished: Project) -> None:
    finished.write(tiny_params())
    assert repro(finished) == set()


def test_one_change_one_chain_and_back(finished: Project) -> None:
    change(finished, "samplings.ancestral.steps", 4)
    assert repro(finished) == {"sample@ancestral", "evaluate@ancestral", "report"}
    finished.write(tiny_params())
    assert repro(finished) == set()
    assert json.loads((finished.root / "runs/samples/ancestral/record.json").read_text())["network_evaluations"] == 5


def test_learning_rate_reruns_train_and_what_follows(finished: Project) -> None:
    change(finished, "models.digits.training.learning_rate", 2.0e-3)
    assert would_run(finished) == EVERYTHING - {"shard@digits", "surrogate@sngan"}
    finished.write(tiny_params())


def test_a_second_width_adds_its_chain(finished: Project) -> None:
    params = tiny_params()
    wide = json.loads(json.dumps(params["models"]["digits"]))
    wide["network"]["width"] = 16
    params["models"]["wide"] = wide
    params["samplings"]["wide"] = params["samplings"]["ancestral"] | {"model": "wide"}
    params["evaluations"]["wide"] = params["evaluations"]["ancestral"] | {"samples": "wide"}
    finished.write(params)
    assert would_run(finished) == {"train@wide", "sample@wide", "evaluate@wide", "report"}
    finished.write(tiny_params())


def test_outputs_of_entries_that_are_gone_are_pruned(finished: Project) -> None:
    finished.write(tiny_params() | {group: {} for group in ("models", *NEED_MODELS)})
    assert re.findall(r"removed (\S+)", finished.answer("prune")) == [
        "runs/times/models/digits.json", "runs/models/digits", "runs/samples/ancestral", "runs/samples/sngan-10",
        "runs/metrics/ancestral.json", "runs/metrics/sngan-10.json", "runs/evaluations/ancestral",
        "runs/evaluations/sngan-10", "runs/likelihoods/digits",
    ]  # fmt: skip
    finished.write(tiny_params())
    finished.run("dvc", "checkout", "-f")
    assert repro(finished) == set()


NETWORK = """
from means import Means
def build(folder):
    return Means()
"""
MEANS = """
import torch
class Means(torch.nn.Module):
    def forward(self, images):
        return images.float().flatten(2).mean(2)
"""


def test_a_feature_network_concerns_the_evaluations_that_use_it(finished: Project) -> None:
    folder, params = finished.root / "data" / "raw" / "features", tiny_params()
    params["evaluations"]["mine"] = params["evaluations"]["ancestral"] | {"features": "module/mine"}
    finished.write(params)
    assert "evaluations.mine.features: " in finished.mistake("check")
    (folder / "module" / "mine").mkdir()
    (folder / "module" / "mine" / "network.py").write_text(NETWORK)
    (folder / "module" / "mine" / "means.py").write_text(MEANS)
    assert "module/mine/means.py" in finished.run("git", "status", "--short", "-uall").stdout  # may be committed
    assert repro(finished, "evaluate@mine") == {"evaluate@mine"}
    protocol = json.loads((finished.root / "runs/evaluations/mine/protocol.json").read_text())
    assert protocol["distance"] == "fd-mine" and protocol["protocol"]["features"]["name"] == "module/mine"
    (folder / "module" / "other").mkdir()
    (folder / "module" / "other" / "network.py").write_text(NETWORK)
    (folder / "inception" / "weights-inception-2015-12-05-6726825d.pth").write_bytes(b"")
    (folder / "pixels" / "README.md").write_text("Read me.")
    assert repro(finished, "--dry", "evaluate@mine", "evaluate@ancestral", "evaluate@sngan-10") == set()
    (folder / "module" / "mine" / "means.py").write_text(MEANS.replace("mean(2)", "amax(2)"))
    assert repro(finished, "--dry", "evaluate@mine", "evaluate@ancestral", "evaluate@sngan-10") == {"evaluate@mine"}
    finished.write(tiny_params())
    finished.answer("prune")
    assert repro(finished) == set()


def test_empty_groups_cost_nothing(project: Project) -> None:
    project.write(tiny_params() | {group: {} for group in ("surrogates", "models", *NEED_MODELS)})
    assert run_here(project) == {"shard@digits", "report"}


def test_compute_is_not_part_of_any_hash(finished: Project) -> None:
    finished.write(tiny_params() | {"compute": {"workers": 2, "device": "cpu"}})
    assert repro(finished) == set()
    finished.write(tiny_params())


def test_registered_model_is_loaded_by_alias_and_drawn(finished: Project) -> None:
    said = finished.answer("register", "digits", "--evaluation", "ancestral", "--metric", "frechet_distance")
    assert "models:/digits@champion" in said
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished.root / 'mlflow.db'}")
    trained = client.get_run(client.get_model_version_by_alias("digits", "champion").tags["model_run_id"])
    assert trained.info.run_name == "train@digits"
    draw = ["draw", "models:/digits@champion", "registered.npz", "--count", "6", "--steps", "4"]
    finished.run("iddpm", *draw)
    refused = finished.mistake(*draw, "--label", "10")
    assert refused.startswith("iddpm: label 10: ") and len(refused.splitlines()) == 1
    finished.answer("draw", "runs/models/digits", "folder.npz", "--count", "6", "--steps", "4")
    images = [np.load(finished.root / name)["arr_0"] for name in ("registered.npz", "folder.npz")]
    assert images[0].shape == (6, 8, 8, 1) and np.array_equal(*images)
    assert not list((finished.root / "mlruns").rglob("*.pkl"))


def test_a_damaged_model_stops_with_one_line(finished: Project) -> None:
    weights = finished.root / "runs/models/digits/ema.safetensors"
    whole = weights.read_bytes()
    weights.unlink()  # a hard link or copy of the cache: never written in place
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    result = finished.run("iddpm", "stage", "sample", "ancestral", check=False)
    weights.unlink()
    finished.run("dvc", "checkout", "-f")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert (
        result.stderr.strip().splitlines()[-1].endswith("ema.safetensors: damaged (sha256 differs from the manifest)")
    )


def test_a_model_of_other_parameters_is_refused_by_key(finished: Project) -> None:
    change(finished, "models.digits.network.width", 16)
    said = finished.mistake("stage", "sample", "ancestral")
    finished.write(tiny_params())
    assert "models.digits.network.width is 16, but runs/models/digits was trained with 8" in said
