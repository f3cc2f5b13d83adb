"""The rest of the method in a real DVC repository: a low-resolution surrogate, a mixture, an imported checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from iddpm.errors import UserError
from iddpm.exchange import architecture_from_flags
from iddpm.stages.run import run_stage
from iddpm.training.build import build_network

from ..conftest import Project, make_project, tiny_params
from .test_pipeline import run_here

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
    bound = {"model": "mixed", "dataset": "digits", "images": 10, "steps": 5, "clip": False}
    params["likelihoods"] = {"mixed": bound}
    params["gradient_noises"] = {"vlb": {"model": "vlb", "dataset": "digits", "batches": 10}}
    project.write(params)
    checkpoints = project.root / "data" / "raw" / "checkpoints"
    checkpoints.mkdir(parents=True)
    architecture, card = architecture_from_flags(FLAGS)
    torch.save(build_network(architecture, card, seed=3).state_dict(), checkpoints / "tiny.pt")
    run_here(project)
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
    expected = {"timesteps": 20, "steps": 5, "evaluated_timesteps": 8, "clip": False}
    assert {key: scores["protocol"][key] for key in expected} == expected


def test_chains_and_bounds_without_shortening_are_the_plain_ones(finished: Project) -> None:
    """A chain handed over at T is that of the model, a bound of T strided steps the whole bound."""
    before = (finished.root / "params.yaml").read_text()
    params = yaml.safe_load(before)
    params["samplings"]["mixed"] = {"model": "mixed", "steps": 5, "count": 4}
    start = params["surrogate_samplings"]["low-10"] | {"t_mid": 20, "steps": 5, "count": 4}
    params["surrogate_samplings"]["low-20"] = start
    bound = {"model": "digits", "dataset": "digits", "images": 3}
    params["likelihoods"] |= {"whole": bound, "strided": bound | {"steps": 20}}
    finished.write(params)
    for stage in ("sample mixed", "surrogate-sample low-20", "likelihood whole", "likelihood strided"):
        run_stage(*stage.split(), finished.root)
    (finished.root / "params.yaml").write_text(before)
    runs = finished.root / "runs"
    mixed, all_its_own, half = (
        np.load(runs / f"samples/{name}/samples.npz")["arr_0"] for name in ("mixed", "low-20", "low-10")
    )
    assert np.array_equal(mixed, all_its_own) and not np.array_equal(mixed, half[:4])
    whole, strided = (
        json.loads((runs / f"likelihoods/{name}/bits_per_dim.json").read_text()) for name in ("whole", "strided")
    )
    assert strided["bits_per_dim"] == pytest.approx(whole["bits_per_dim"], rel=1e-6)


def test_an_imported_checkpoint_is_sampled(finished: Project) -> None:
    with np.load(finished.root / "runs/samples/public/samples.npz") as npz:
        assert npz["arr_0"].shape == (3, 32, 32, 3) and npz.files == ["arr_0"]


def test_exported_weights_are_those_that_were_imported(finished: Project) -> None:
    said = finished.answer("export", "runs/models/public", "public.pt", "--format", "openai")
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


def test_a_mixture_of_other_parameters_is_refused_by_key(finished: Project) -> None:
    before = (finished.root / "params.yaml").read_text()
    (finished.root / "params.yaml").write_text(before.replace("within: 4", "within: 5"))
    with pytest.raises(UserError, match=r"mixtures.mixed.within is 5, but runs/models/mixed was trained with 4"):
        run_stage("surrogate-sample", "low-10", finished.root)
    (finished.root / "params.yaml").write_text(before)


def test_a_mixture_is_inspected_by_its_models(finished: Project) -> None:
    said = finished.mistake("inspect", "mixed")
    assert said.strip().endswith("mixtures.mixed: has no network of its own; inspect digits and vlb")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device that this asks for")
def test_commands_on_models_take_the_device_of_the_parameters(finished: Project) -> None:
    file = finished.root / "params.yaml"
    before = file.read_text()
    file.write_text(before + "compute: {device: cuda}\n")
    draw = ["draw", "runs/models/digits", "x.png"]
    invert = ["invert", "runs/models/digits", "x.png", "--dataset", "digits"]
    for command in (draw, invert):
        assert finished.mistake(*command).startswith("iddpm: compute.device: cuda, but torch sees no GPU here")
    file.write_text(before)


def test_images_are_inverted_and_come_back(finished: Project) -> None:
    said = finished.answer(
        "invert", "runs/models/digits", "inverted.png", "--dataset", "digits", "--count", "4", "--steps", "20"
    )
    assert "dB" in said
    assert Path(finished.root / "inverted.png").stat().st_size > 500


def test_a_mixture_is_drawn_and_inverted_by_hand(finished: Project) -> None:
    draw = ["draw", "runs/models/mixed", "m.npz", "--steps", "4", "--sampler", "ddim", "--eta", "1"]
    assert "100 images in m.npz" in finished.answer(*draw)
    invert = ["invert", "runs/models/mixed", "inverted.npz", "--dataset", "digits", "--steps", "10"]
    said = finished.answer(*invert, "--count", "3", "--no-clip")
    assert "mean absolute error" in said and "dB" in said
    with np.load(finished.root / "inverted.npz") as arrays:
        assert arrays["originals"].shape == arrays["latents"].shape == arrays["reconstructions"].shape == (3, 8, 8, 1)
        assert arrays["latents"].dtype == np.float32 and arrays["labels"].shape == (3,)
    for wrong, message in (
        (("--split", "valid"), "--split valid: choose train or test"),
        (("--weights", "best"), "--weights best: choose ema or raw"),
        (("--steps", "50"), "--steps: '50'"),
        (("--steps", "1"), "--steps 1: an inversion takes at least 2"),
        (("--count", "1000"), "--count 1000: test of digits has 299 images"),
        (("--dataset", "none"), "data/shards/none/index.json: missing"),
    ):
        refused = finished.mistake(*invert, *wrong)
        assert message in refused and len(refused.strip().splitlines()) == 1
