"""What is drawn from finished models: every start, and mixtures."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iddpm.data import known_card
from iddpm.diffusion import GaussianDiffusion, Handover, Sampler, cosine_betas, reverse_chain, upper_process
from iddpm.errors import UserError
from iddpm.params import Architecture, DigitsDataset, Mixture, SnganSurrogate, Source, Weights
from iddpm.randomness import PositionalRandom
from iddpm.stages.draw import Start, draw, plan_chains, to_uint8
from iddpm.stages.invert import invert
from iddpm.stages.mix import mix
from iddpm.stages.models import DiffusionModel, GanModel, MixtureNetwork
from iddpm.training.build import build_gan, build_network
from iddpm.training.checkpoint import open_checkpoint, write_checkpoint

from ..conftest import tiny_params

CARD = known_card(DigitsDataset(source=Source.DIGITS))
COUNT = 7
LABELS = np.arange(COUNT, dtype=np.int64)
T = 20


def architecture(changes: dict[str, Any] | None = None) -> Architecture:
    model = tiny_params()["models"]["digits"]
    return Architecture.model_validate_json(
        json.dumps({"network": model["network"], "diffusion": model["diffusion"]} | (changes or {}))
    )


def randomised(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights that are not the initial ones, of which many are zero."""
    random = torch.Generator().manual_seed(seed)
    return {
        key: value + 0.1 * torch.randn(value.shape, generator=random) if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }


def write_model(
    path: Path, changes: dict[str, Any] | None = None, *, seed: int = 0, raw: bool = True, card: Any = CARD
) -> Path:
    built = architecture(changes)
    network = build_network(built, card)
    weights = {"ema": randomised(network, seed)} | ({"model": randomised(network, seed + 1)} if raw else {})
    about = {"kind": "diffusion", "architecture": built.model_dump(mode="json"), "card": card.as_json()}
    write_checkpoint(path, about, weights)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "digits", seed=1)
    write_model(folder / "other", seed=3)
    write_model(folder / "low", {"size": 4}, seed=5)
    sngan = SnganSurrogate.model_validate_json(json.dumps(tiny_params()["surrogates"]["sngan"]))
    generator, _ = build_gan(sngan, CARD)
    about = {"kind": "sngan", "params": sngan.model_dump(mode="json"), "card": CARD.as_json()}
    write_checkpoint(folder / "sngan", about, {"ema": randomised(generator, 7)})
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> DiffusionModel:
    return DiffusionModel(folder / "digits")


@pytest.fixture(scope="module")
def surrogates(folder: Path) -> dict[str, GanModel | DiffusionModel]:
    return {"sngan": GanModel(folder / "sngan"), "low": DiffusionModel(folder / "low")}


def images_of(model: DiffusionModel, start: Start | None = None, count: int = COUNT, **settings: Any) -> Any:
    labels = np.arange(count, dtype=np.int64) % 10
    steps = settings.pop("steps", "3")
    return draw(model, count, steps=steps, labels=labels, start=start, **settings).images


def test_images_are_in_memory_once(model: DiffusionModel) -> None:
    count, batch = 100_000, np.zeros((50, 8, 8, 1), np.uint8)
    labels = np.zeros(count, np.int64)
    tracemalloc.start()
    drawn = draw(model, count, steps="3", labels=labels, batch_size=50, kept=lambda first, make: {"images": batch + 1})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn.images.all() and peak < 1.5 * drawn.images.nbytes


@pytest.mark.parametrize("name", ["sngan", "low"])
def test_t_mid_at_t_is_ordinary_sampling(model: DiffusionModel, surrogates: dict[str, Any], name: str) -> None:
    start = Start(surrogates[name], T)
    assert np.array_equal(images_of(model, start), images_of(model))
    assert plan_chains(model, "3", start).surrogate_evaluations == 0


def test_t_mid_0_is_the_surrogate_alone(model: DiffusionModel, surrogates: dict[str, Any]) -> None:
    positions, labels = torch.arange(COUNT), torch.arange(COUNT)
    drawn = images_of(model, Start(surrogates["sngan"], 0))
    assert np.array_equal(drawn, to_uint8(surrogates["sngan"].draw(positions, labels, 0)))

    low, random = surrogates["low"], PositionalRandom(0, "sampling/surrogate_step")
    chain = upper_process(low.process, "4", 0)
    x = PositionalRandom(0, "sampling/surrogate_start").normal(positions, (1, 4, 4))
    with torch.inference_mode():
        *_, state = reverse_chain(
            chain, low.denoiser(labels), x, lambda step: random.normal(positions, (1, 4, 4), draw=step)
        )
    resized = F.interpolate(state.x, (8, 8), mode="bilinear", align_corners=False)
    for handover in Handover:
        assert np.array_equal(images_of(model, Start(low, 0, "4", handover)), to_uint8(resized))


STARTS = [None, ("sngan", 8), ("low", 0), ("low", 8), ("low", 19)]


@pytest.mark.parametrize("start", STARTS, ids=str)
@pytest.mark.parametrize("handover", Handover)
@pytest.mark.parametrize("sampler", Sampler)
def test_an_image_depends_on_its_index_alone(
    model: DiffusionModel, surrogates: dict[str, Any], start: Any, handover: Handover, sampler: Sampler
) -> None:
    """Not on the batch size, nor on how many are drawn; progress never runs ahead or back."""
    begin = start and Start(surrogates[start[0]], start[1], "1" if start[1] == 19 else "3", handover)
    settings = {"sampler": sampler, "eta": 0.5 if sampler is Sampler.DDIM else 0.0}
    together = images_of(model, begin, **settings)
    seen: list[int] = []
    apart = images_of(model, begin, batch_size=3, progress=seen.append, **settings)
    fewer = images_of(model, begin, count=2, batch_size=2, **settings)
    for some in (apart, fewer):  # a batch's arithmetic may round differently
        assert np.abs(together[: len(some)].astype(int) - some).max() <= 1
    assert seen == sorted(seen) and seen[-1] == COUNT
    assert not np.array_equal(together[0], images_of(model, begin, seed=1, **settings)[0])
    assert len(np.unique(together.reshape(COUNT, -1), axis=0)) == COUNT


def test_what_is_handed_over_is_a_choice(model: DiffusionModel, surrogates: dict[str, Any]) -> None:
    drawn = [images_of(model, Start(surrogates["low"], 8, "3", handover)) for handover in Handover]
    assert not np.array_equal(*drawn)


@pytest.mark.parametrize(
    ("name", "t_mid", "steps", "evaluations"),
    [
        (None, 0, None, (0, 3)), ("sngan", 8, None, (1, 3)), ("sngan", 0, None, (1, 0)), ("low", 8, None, (12, 3)),
        ("low", 8, "5", (5, 3)), ("low", 0, "5", (5, 0)), ("low", 0, None, (20, 0)), ("low", T, "5", (0, 3)),
    ],
)  # fmt: skip
def test_evaluations_are_counted_as_they_happen(
    model: DiffusionModel, surrogates: dict[str, Any], name: str | None, t_mid: int, steps: str | None, evaluations: Any
) -> None:
    start = None if name is None else Start(surrogates[name], t_mid, steps)
    chains = plan_chains(model, "3", start)
    assert (chains.surrogate_evaluations, chains.network_evaluations) == evaluations
    calls: list[str] = []
    networks = {"surrogate": getattr(surrogates[name], "network", None) if name else None, "model": model.network}
    hooks = [
        network.register_forward_hook(lambda *_, which=which: calls.append(which))
        for which, network in networks.items()
        if network is not None
    ]
    images_of(model, start)
    for hook in hooks:
        hook.remove()
    assert calls.count("model") == evaluations[1]
    assert name == "sngan" or calls.count("surrogate") == evaluations[0]


def test_a_surrogate_and_its_model_share_labels(model: DiffusionModel, surrogates: dict[str, Any]) -> None:
    for surrogate in surrogates.values():
        start = Start(surrogate, 0, None if surrogate is surrogates["sngan"] else "3")
        ones, twos = (draw(model, 2, steps="3", labels=np.full(2, label), start=start).images for label in (1, 2))
        assert not np.array_equal(ones, twos)


def test_an_upsampler_does_not_start_from_noise(tmp_path: Path) -> None:
    upsampler = DiffusionModel(write_model(tmp_path / "up", {"upsampling": {"low_size": 4}}))
    with pytest.raises(UserError, match="up: an upsampler; entries of cascades give it low-resolution images"):
        images_of(upsampler)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    x, denoiser = upsampler.on_images(images, LABELS[:2], 10)
    low_res = F.avg_pool2d(x, 2)
    with torch.inference_mode():
        expected = upsampler.network(x, torch.tensor([3.0, 3.0]), torch.tensor([0, 1]), low_res=low_res)
        torch.testing.assert_close(denoiser(x, torch.tensor([3.0, 3.0])), expected)


def test_a_low_resolution_model_takes_averaged_images_on_grey_levels(surrogates: dict[str, Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8)
    x, _ = surrogates["low"].on_images(images, LABELS[:2], 10)
    means = images.reshape(2, 4, 2, 4, 2).mean((2, 4))
    assert np.abs(to_uint8(x)[..., 0] - means).max() <= 0.5
    torch.testing.assert_close(x, (x * 127.5 + 127.5).round() / 127.5 - 1, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="made for 8x8 pixels and 1 channels; these images have 4x4 and 1"):
        surrogates["low"].on_images(images[:, :4, :4], LABELS[:2], 10)


@pytest.mark.parametrize("classes", [0, 9, 11])
def test_a_conditional_model_refuses_images_of_other_classes(model: DiffusionModel, classes: int) -> None:
    images = np.zeros((2, 8, 8, 1), dtype=np.uint8)
    with pytest.raises(UserError, match=f"is told one of 10 classes; these images have {classes or 'none'}"):
        model.on_images(images, np.zeros(2, dtype=np.int64), classes)


class Marked(nn.Module):
    def __init__(self, mark: float) -> None:
        super().__init__()
        self.mark = mark

    def forward(self, x: Tensor, timestep: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.full_like(x, self.mark)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize(("timesteps", "within"), [(20, 1), (20, 10), (4000, 100), (1000, 100), (4000, 333)])
@pytest.mark.parametrize("spacing", ["all", "20", "5,4,3"])
def test_a_mixture_picks_its_network_by_the_original_timestep(
    timesteps: int, within: int, rescale: bool, spacing: str
) -> None:
    """[0, within) and [T - within, T) are the ends' (appendix A), in respaced chains too."""
    process = GaussianDiffusion(cosine_betas(timesteps), rescale_timesteps=rescale)
    mixture = MixtureNetwork(Marked(0.0), Marked(1.0), process, within)
    chain = process if spacing == "all" else process.respaced(spacing)
    x = torch.zeros(2, 1, 1, 1)
    shown = chain.model_timestep(torch.arange(chain.timesteps))
    for original, timestep in zip(chain.timestep_map, shown, strict=True):
        picked = mixture(x, timestep.repeat(2))
        assert bool(picked.any()) == (original < within or original >= timesteps - within), original
    with pytest.raises(ValueError, match="share their timestep"):
        mixture(x, torch.tensor([0.0, 5.0]))


def write_mixture(folder: Path, middle: str, ends: str, within: int = 5) -> DiffusionModel:
    entry = Mixture(middle=middle, ends=ends, within=within)
    about, weights = mix("mixtures.mixed", entry, open_checkpoint(folder / middle), open_checkpoint(folder / ends))
    write_checkpoint(folder / f"{middle}-{ends}", about, weights)
    return DiffusionModel(folder / f"{middle}-{ends}")


def test_a_mixture_of_a_model_with_itself_is_the_model(folder: Path, model: DiffusionModel) -> None:
    same = write_mixture(folder, "digits", "digits")
    assert same.checkpoint.about["kind"] == "mixture" and same.classes == 10
    assert np.array_equal(images_of(same, steps="20"), images_of(model, steps="20"))
    raw = [DiffusionModel(folder / name, Weights.RAW) for name in ("digits", "digits-digits")]
    assert np.array_equal(*[images_of(each) for each in raw])
    assert not np.array_equal(images_of(raw[0]), images_of(model))


def test_a_mixture_runs_one_network_per_step(folder: Path, model: DiffusionModel) -> None:
    mixed, other = write_mixture(folder, "digits", "other"), DiffusionModel(folder / "other")
    x = torch.zeros(2, 1, 8, 8)
    for t, expected in ((4, other), (5, model), (14, model), (15, other)):
        timestep = model.process.model_timestep(torch.tensor([t, t]))
        labels = torch.tensor([1, 2])
        with torch.inference_mode():
            assert torch.equal(mixed.denoiser(labels)(x, timestep), expected.denoiser(labels)(x, timestep))
    calls = {"middle": 0, "ends": 0}
    for name in calls:
        part = getattr(mixed.network, name)
        part.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    images_of(mixed, steps="20")
    assert calls == {"middle": 10, "ends": 10}


def test_models_of_other_images_do_not_mix(folder: Path, tmp_path: Path) -> None:
    card = type(CARD)(**(CARD.as_json() | {"source_sha256": "other"}))
    odd = open_checkpoint(write_model(tmp_path / "odd", card=card))
    entry = Mixture(middle="digits", ends="odd", within=5)
    with pytest.raises(UserError, match=r"mixtures.mixed.ends: source_sha256 of the images of odd is other"):
        mix("mixtures.mixed", entry, open_checkpoint(folder / "digits"), odd)


def test_a_mixture_has_the_weights_that_both_have(folder: Path, tmp_path: Path) -> None:
    digits = open_checkpoint(folder / "digits")
    imported = open_checkpoint(write_model(tmp_path / "imported", raw=False))  # like a public checkpoint: EMA alone
    _, weights = mix("mixtures.mixed", Mixture(middle="digits", ends="imported", within=5), digits, imported)
    assert weights.keys() == {"ema"}


def test_inversion_decodes_what_it_encoded(model: DiffusionModel) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    errors = [
        invert(model, images, LABELS[:4], 10, model.process.respaced(steps), clip=True).mean_absolute_error
        for steps in ("3", "20")
    ]
    assert errors[1] < errors[0]
    inversion = invert(model, images, LABELS[:4], 10, model.process, clip=True)
    assert np.array_equal(inversion.originals, images) and inversion.latents.shape == images.shape
    mse = ((images.astype(float) - inversion.reconstructions) ** 2).mean()
    assert inversion.psnr == pytest.approx(10 * np.log10(255**2 / mse))
    lossless = inversion._replace(reconstructions=images)
    assert lossless.psnr == float("inf") and lossless.mean_absolute_error == 0
