"""The rest of the method in a real DVC repository: a low-resolution surrogate, a mixture, an imported checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from iddpm.exchange import architecture_from_flags
from iddpm.training.build import build_network

from ..conftest import Project, make_project, tiny_params
from .test_pipeline import repro

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]

FLAGS = "--image_size 32 --num_channels 32 --num_res_blocks 1 --learn_sigma True --diffusion_steps 50"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("method") / "project")
    params = tiny_params()
    model = params["models"]["digits"]
    vlb = {"objective": "vlb", "timestep_sampling": "loss_second_moment", "extra_measurements": 1, "snapshot_every": 2}
    params["models"]["vlb"] = model | {"training": model["training"] | vlb}
    low = {"kind": "low_resolution", "size": 4, "network": model["network"] | {"attention_sizes": []}}
    params["surrogates"] = {"low": model | low}
    params["imports"] = {"public": {"weights": "data/raw/checkpoints/tiny.pt", "flags": FLAGS}}
    params["mixtures"] = {"mixed": {"middle": "digits", "ends": "vlb", "within": 4}}
    params["samplings"] = {"public": {"model": "public", "steps": 2, "count": 3}}
    start = {"model": "mixed", "surrogate": "low", "t_mid": 10, "steps": 3, "surrogate_steps": 4, "count": 20}
    params["surrogate_samplings"] = {"low-10": start}
    params["evaluations"] = {}
    params["likelihoods"] = {"mixed": {"model": "mixed", "dataset": "digits", "images": 10, "steps": 5}}
    params["gradient_noises"] = {"vlb": {"model": "vlb", "dataset": "digits", "batches": 10}}
    project.write(params)
    checkpoints = project.root / "data" / "raw" / "checkpoints"
    checkpoints.mkdir(parents=True)
    architecture, card = architecture_from_flags(FLAGS)
    torch.save(build_network(architecture, card, seed=3).state_dict(), checkpoints / "tiny.pt")
    assert repro(project) == {
        "shard@digits", "surrogate@low", "train@digits", "train@vlb", "import@public", "mix@mixed", "sample@public",
        "surrogate-sample@low-10", "likelihood@mixed", "gradient-noise@vlb", "report",
    }  # fmt: skip
    return project


def test_a_chain_from_a_low_resolution_surrogate(finished: Project) -> None:
    folder = finished.root / "runs/samples/low-10"
    with np.load(folder / "samples.npz") as npz:
        assert npz["arr_0"].shape == (20, 8, 8, 1)
    record = json.loads((folder / "record.json").read_text())
    assert (record["surrogate_evaluations"], record["network_evaluations"]) == (4, 3)


def test_a_mixture_has_a_strided_likelihood(finished: Project) -> None:
    """T = 20 with K = 5: 5 strided steps and the first 4, of which step 0 is both."""
    folder = finished.root / "runs/likelihoods/mixed"
    rows = [line.split(",") for line in (folder / "terms.csv").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == [0, 1, 2, 3, 5, 10, 14, 19]
    scores = json.loads((folder / "bits_per_dim.json").read_text())
    total = sum(float(row[1]) for row in rows) + scores["prior_bits_per_dim"]
    assert scores["bits_per_dim"] == pytest.approx(total, rel=1e-5)


def test_an_imported_checkpoint_is_sampled(finished: Project) -> None:
    with np.load(finished.root / "runs/samples/public/samples.npz") as npz:
        assert npz["arr_0"].shape == (3, 32, 32, 3) and npz.files == ["arr_0"]


def test_exported_weights_are_those_that_were_imported(finished: Project) -> None:
    said = finished.run("iddpm", "export", "runs/models/public", "public.pt", "--format", "openai").stdout
    assert "--num_channels 32" in said and "--learn_sigma True" in said
    original = torch.load(finished.root / "data/raw/checkpoints/tiny.pt", weights_only=True)
    exported = torch.load(finished.root / "public.pt", weights_only=True)
    assert original.keys() == exported.keys()
    assert all(torch.equal(original[name], exported[name]) for name in original)


def test_gradient_noise_over_snapshots(finished: Project) -> None:
    folder = finished.root / "runs/gradient-noise/vlb"
    lines = (folder / "gradient_noise.csv").read_text().splitlines()
    assert lines[0] == "step,noise_scale,standard_error,gradient_variance,squared_gradient"
    assert [line.split(",")[0] for line in lines[1:]] == ["2", "4"]
    record = json.loads((folder / "record.json").read_text())
    assert (record["stage"], record["objective"], record["batch_size"]) == ("gradient-noise@vlb", "vlb", 16)
    snapshots = [f"runs/models/vlb/snapshots/step-{step:09d}" for step in (2, 4)]
    assert list(record["inputs"]) == [*snapshots, "data/shards/digits"]
    assert (folder / "gradient_noise.png").stat().st_size > 500
    assert "\n## Gradient noise\n" in (finished.root / "runs/report/report.md").read_text()


def test_a_mixture_is_inspected_by_its_models(finished: Project) -> None:
    refused = finished.run("iddpm", "inspect", "mixed", check=False)
    assert refused.returncode == 1
    assert refused.stderr.strip().endswith("mixtures.mixed: has no network of its own; inspect digits and vlb")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device that this asks for")
def test_commands_on_models_take_the_device_of_the_parameters(finished: Project) -> None:
    file = finished.root / "params.yaml"
    before = file.read_text()
    file.write_text(before + "compute: {device: cuda}\n")
    draw = ["iddpm", "draw", "runs/models/digits", "x.png"]
    invert = ["iddpm", "invert", "runs/models/digits", "x.png", "--dataset", "digits"]
    for command in (draw, invert):
        refused = finished.run(*command, check=False)
        assert refused.stderr.startswith("iddpm: compute.device: cuda, but torch sees no GPU here")
    file.write_text(before)


def test_images_are_inverted_and_come_back(finished: Project) -> None:
    said = finished.run(
        "iddpm", "invert", "runs/models/digits", "inverted.png", "--dataset", "digits", "--count", "4", "--steps", "20"
    ).stdout
    assert "dB" in said
    assert Path(finished.root / "inverted.png").stat().st_size > 500
