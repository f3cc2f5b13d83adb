"""Denoising strips and interpolations: what they show, and that they outlast an interruption."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iddpm.checks import load_params
from iddpm.data import known_card
from iddpm.diffusion import Sampler, reverse_chain, surrogate_start
from iddpm.params import Architecture
from iddpm.randomness import PositionalRandom
from iddpm.stages import sample
from iddpm.stages.draw import Drawn, Start, draw, interpolate, spherical_path, to_uint8
from iddpm.stages.models import DiffusionModel, GanModel, Images
from iddpm.stages.run import run_stage
from iddpm.training.build import build_gan, build_network
from iddpm.training.checkpoint import write_checkpoint

from ..conftest import Project, assert_checked, make_project, tiny_params
from .test_draw import randomised

COUNT, T = 11, 20
SIDE = 40  # of a digit in a picture, whose tiles have a line of 2 pixels between them


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Models and surrogates of random weights in the places of trained ones."""
    made = make_project(tmp_path_factory.mktemp("pictures") / "project")
    params = tiny_params()
    digits = params["models"]["digits"]
    params["models"]["plain"] = digits | {"network": digits["network"] | {"conditioning": "none"}}
    params["surrogates"]["low"] = digits | {"kind": "low_resolution", "size": 4}
    ddim = {"steps": T, "sampler": "ddim", "count": COUNT, "batch_size": 8}
    params["samplings"] = {
        "plain": ddim | {"model": "plain", "interpolations": 3},
        "told": ddim | {"model": "digits", "sampler": "ancestral"},
    }
    start = {"model": "digits", "steps": 4, "count": 3}
    params["surrogate_samplings"] = {
        "sngan-0": start | {"surrogate": "sngan", "t_mid": 0},
        "sngan-8": start | {"surrogate": "sngan", "t_mid": 8},
    }
    params["evaluations"] = params["likelihoods"] = {}
    made.write(params)
    read = load_params(made.root / "params.yaml")
    card = known_card(read.datasets["digits"])
    for folder, entries in (("models", read.models), ("surrogates", read.surrogates)):
        for seed, (name, entry) in enumerate(entries.items()):
            architecture = entry.model_dump(mode="json", include=set(Architecture.model_fields))
            about = {"params": entry.model_dump(mode="json"), "card": card.as_json(), "architecture": architecture}
            sngan = name == "sngan"
            network = build_gan(entry, card)[0] if sngan else build_network(entry, card)
            about["kind"] = "sngan" if sngan else "diffusion"
            write_checkpoint(made.root / "runs" / folder / name, about, {"ema": randomised(network, seed)})
    return made


@pytest.fixture(scope="module")
def model(project: Project) -> DiffusionModel:
    return DiffusionModel(project.root / "runs/models/digits")


@pytest.fixture(scope="module")
def plain(project: Project) -> DiffusionModel:
    return DiffusionModel(project.root / "runs/models/plain")


@pytest.fixture(scope="module")
def low(project: Project) -> DiffusionModel:
    return DiffusionModel(project.root / "runs/surrogates/low")


@pytest.fixture(scope="module")
def sngan(project: Project) -> GanModel:
    return GanModel(project.root / "runs/surrogates/sngan")


def drawn_by(model: DiffusionModel, count: int = COUNT, steps: str = str(T), **settings: Any) -> Drawn:
    return draw(model, count, steps=steps, labels=model.labels(count), **settings)


def followed(drawn: Drawn) -> Images:
    assert drawn.denoising is not None and drawn.denoising.dtype == np.uint8
    return drawn.denoising


def assert_close(images: Images, others: Images) -> None:
    """But for a rounding of the arithmetic of another batch size."""
    assert images.shape == others.shape
    assert np.abs(images.astype(int) - others).max() <= 1


def test_a_strip_shows_the_chain_as_it_ran(model: DiffusionModel) -> None:
    drawn = drawn_by(model)
    strip = followed(drawn)
    assert strip.shape == (8, 8, 2, 8, 8, 1)
    positions = torch.arange(COUNT)
    noise = PositionalRandom(0, "sampling/start").normal(positions, model.image_shape)
    steps = PositionalRandom(0, "sampling/step")
    with torch.inference_mode():
        path = reverse_chain(
            model.process,
            model.denoiser(positions % 10),
            noise,
            lambda step: steps.normal(positions, model.image_shape, draw=step),
        )
        states = list(path)
    before = [noise, *(state.x for state in states)]
    for column, moment in enumerate((0, 3, 6, 9, 11, 14, 17, 20)):
        assert np.array_equal(strip[:, column, 0], to_uint8(before[moment])[:8])
        x_start = states[min(moment, T - 1)].x_start  # predicted from this x_t; at the end there is the last
        assert np.array_equal(strip[:, column, 1], to_uint8(x_start)[:8])
    assert np.array_equal(strip[:, -1, 0], drawn.images[:8])


def test_a_strip_does_not_depend_on_the_batches(model: DiffusionModel) -> None:
    whole = followed(drawn_by(model))
    assert_close(followed(drawn_by(model, batch_size=3)), whole)
    assert_close(followed(drawn_by(model, count=2)), whole[:2])


@pytest.mark.parametrize(("steps", "moments"), [("1", 2), ("3", 4), ("7", 8), ("20", 8)])
def test_a_short_chain_shows_every_step(model: DiffusionModel, steps: str, moments: int) -> None:
    drawn = drawn_by(model, 2, steps)
    assert followed(drawn).shape == (2, moments, 2, 8, 8, 1)
    assert np.array_equal(followed(drawn)[:, -1, 0], drawn.images)


def test_a_start_from_a_surrogate_shows_the_chain_below(model: DiffusionModel, sngan: GanModel) -> None:
    drawn = drawn_by(model, steps="4", start=Start(sngan, 8))
    positions = torch.arange(COUNT)
    noise = PositionalRandom(0, "sampling/start").normal(positions, model.image_shape)
    x_mid = surrogate_start(model.process, sngan.draw(positions, positions % 10, 0), noise, 8)
    assert followed(drawn).shape[:3] == (8, 5, 2)
    assert np.array_equal(followed(drawn)[:, 0, 0], to_uint8(x_mid)[:8])
    assert np.array_equal(followed(drawn)[:, -1, 0], drawn.images[:8])


def test_a_diffusion_surrogate_alone_shows_its_own_chain(
    model: DiffusionModel, low: DiffusionModel, sngan: GanModel
) -> None:
    assert followed(drawn_by(model, steps="4", start=Start(low, 8, "5"))).shape == (8, 5, 2, 8, 8, 1)
    assert followed(drawn_by(model, start=Start(low, 0, "5"))).shape == (8, 6, 2, 4, 4, 1)
    assert drawn_by(model, start=Start(sngan, 0)).denoising is None


def test_interpolations_end_at_samples(plain: DiffusionModel, model: DiffusionModel) -> None:
    samples = drawn_by(plain, 8, sampler=Sampler.DDIM).images  # in one batch, as many as an interpolation has
    for pair in (0, 3):
        row = interpolate(plain, pair, steps=str(T), labels=None)
        assert np.array_equal(row[0], samples[2 * pair]) and np.array_equal(row[-1], samples[2 * pair + 1])
        assert len(np.unique(row.reshape(8, -1), axis=0)) == 8

    samples = drawn_by(model, 8, sampler=Sampler.DDIM).images
    told = interpolate(model, 1, steps=str(T), labels=model.labels(8))
    assert np.array_equal(told[0], samples[2]) and not np.array_equal(told[-1], samples[3])
    same = np.full(8, 2)
    alike = draw(model, 8, steps=str(T), labels=same, sampler=Sampler.DDIM).images
    row = interpolate(model, 1, steps=str(T), labels=same)
    assert np.array_equal(row[0], alike[2]) and np.array_equal(row[-1], alike[3])
    assert np.array_equal(row, told)  # its label is that of the first


def test_a_path_of_noise_stays_as_long_as_noise() -> None:
    first, last = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    path = spherical_path(first, last, 5)
    assert torch.equal(path[0], first) and torch.equal(path[-1], last)
    radii = path.flatten(1).norm(dim=1)
    assert radii.min() > 0.98 * radii[[0, -1]].min() and radii.max() < 1.02 * radii[[0, -1]].max()
    steps = path.diff(dim=0).flatten(1).norm(dim=1)
    assert steps.max() / steps.min() < 1.05
    torch.testing.assert_close(path[2], (first + last) / 2**0.5, atol=0.02, rtol=0.05)


def tile(picture: Images, row: int, column: int) -> Images:
    """A digit of a picture, at its own size."""
    top, left = 2 + row * (SIDE + 2), 2 + column * (SIDE + 2)
    return picture[top : top + SIDE : 5, left : left + SIDE : 5]


@pytest.mark.tools
def test_pictures_stand_beside_the_samples(project: Project) -> None:
    for name in ("plain", "told"):
        run_stage("sample", name, project.root)
    for name in ("sngan-0", "sngan-8"):
        run_stage("surrogate-sample", name, project.root)
    runs = project.root / "runs" / "samples"
    samples = np.load(runs / "plain" / "samples.npz")["arr_0"][..., 0]
    strips = np.array(Image.open(runs / "plain" / "denoising.png"))
    assert strips.shape == (8 * (SIDE + 2) + 2, 17 * (SIDE + 2) + 2)
    paths = np.array(Image.open(runs / "plain" / "interpolations.png"))
    assert paths.shape == (3 * (SIDE + 2) + 2, 8 * (SIDE + 2) + 2)
    for row in range(8):
        assert np.array_equal(tile(strips, row, 7), samples[row])
        assert (tile(strips, row, 8) == 255).all()
        assert tile(strips, row, 0).std() > 50  # noise
    for pair in range(3):
        assert_close(tile(paths, pair, 0), samples[2 * pair])
        assert_close(tile(paths, pair, 7), samples[2 * pair + 1])

    with Image.open(runs / "sngan-8" / "denoising.png") as picture:
        assert picture.size == ((2 * 5 + 1) * (SIDE + 2) + 2, 3 * (SIDE + 2) + 2)
    assert not (runs / "sngan-0" / "denoising.png").exists()
    assert not (runs / "told" / "interpolations.png").exists()


@pytest.mark.tools
def test_an_interrupted_sampling_still_has_its_pictures(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    output = project.root / "runs" / "samples" / "plain"
    run_stage("sample", "plain", project.root)
    uninterrupted = {file.name: file.read_bytes() for file in output.iterdir() if file.name != "record.json"}
    assert uninterrupted.keys() == {"samples.npz", "grid.png", "denoising.png", "interpolations.png"}
    pairs: list[int] = []

    def interrupted(model: DiffusionModel, pair: int, **settings: Any) -> Images:
        if pairs == [0]:
            pairs.append(-1)
            signal.raise_signal(signal.SIGTERM)
        pairs.append(pair)
        return interpolate(model, pair, **settings)

    monkeypatch.setattr(sample, "interpolate", interrupted)
    with pytest.raises(SystemExit):
        run_stage("sample", "plain", project.root)
    evaluations = DiffusionModel.denoiser
    asked: list[int] = []
    monkeypatch.setattr(
        DiffusionModel, "denoiser", lambda model, *labels: (asked.append(1), evaluations(model, *labels))[1]
    )
    run_stage("sample", "plain", project.root)
    assert pairs == [0, -1, 1, 2] and len(asked) == 2  # neither samples nor the first pair were drawn again
    assert {name: (output / name).read_bytes() for name in uninterrupted} == uninterrupted
    record = json.loads((output / "record.json").read_text())
    assert record["images"] == COUNT
    assert record["images_per_second"] == pytest.approx(COUNT / record["sampling_seconds"], rel=0.1)


DDIM = {"model": "digits", "steps": 5, "count": 4, "sampler": "ddim"}
START = {"model": "digits", "surrogate": "sngan", "t_mid": 20, "steps": 5, "count": 4, "sampler": "ddim"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samplings.x": DDIM | {"interpolations": 2}}, None),
        ({"samplings.x": DDIM | {"interpolations": 3}},
         "samplings.x.interpolations: 3 pairs of images are more than the 4 of count"),
        ({"samplings.x": DDIM | {"interpolations": 1, "eta": 0.1}}, "samplings.x.interpolations: only the noise of"),
        ({"samplings.x": DDIM | {"interpolations": 1, "sampler": "ancestral"}},
         "samplings.x.interpolations: only the noise of sampler ddim with eta 0 decides the image; use these, or 0"),
        ({"surrogate_samplings.x": START}, None),
        ({"surrogate_samplings.x": START | {"interpolations": 1}},
         "surrogate_samplings.x.interpolations: the path is one of starting noise, here a surrogate starts"),
        ({"samplings.x": DDIM | {"interpolations": -1}}, "samplings.x.interpolations: "),
    ],
)  # fmt: skip
def test_what_cannot_be_interpolated_is_named(tmp_path: Path, changes: dict[str, Any], message: str | None) -> None:
    assert_checked(tmp_path, changes, message)
