"""The experiments of both sources: full presets as published, small siblings of the same kinds on embedded data."""

import json
from collections.abc import Iterator
from functools import cache

import pytest

from iddpm.checks import load_params
from iddpm.evaluation.published import Protocol, published_results
from iddpm.params import Evaluation, Likelihood, Model, Params, Sampling, Source
from iddpm.stages.inspect import inspect

from .conftest import ROOT

IMAGENET_64, CIFAR, DEFAULT = 121_063_942, 52_546_438, 35_746_307
PARAMETERS = {
    "table1": dict.fromkeys(("T4000-linear-hybrid", "T4000-cosine-hybrid", "T4000-cosine-vlb"), IMAGENET_64),
    "table2": dict.fromkeys(("T4000-cosine-hybrid", "T4000-cosine-vlb"), CIFAR),
    "steps": {"imagenet-hybrid": IMAGENET_64, "cifar-hybrid": CIFAR},
    "gradient-noise": dict.fromkeys(("hybrid", "vlb", "vlb-resampled"), IMAGENET_64),
    "class-conditional": {"small": 121_575_942, "large": 273_049_350},
    "scaling": {"w64": 30_303_494, "w96": 68_126_598, "w128": IMAGENET_64, "w192": 272_281_350},
    "cascade": {"base": 273_049_350, "upsampler": 279_792_390},
    "lsun": dict.fromkeys(("hybrid", "hybrid-2e-5"), 113_676_678),
    "cifar10": dict.fromkeys(("hybrid", "vlb"), CIFAR),
    "imagenet64": dict.fromkeys(("hybrid", "vlb"), IMAGENET_64),
    "training-length": {"default": DEFAULT},
    "short-process": {"T100": DEFAULT},
    "architectures": {
        "Default": DEFAULT, "DeepRes1": 24_275_587, "ShallowRes2": 25_838_595, "ShallowRes1": 17_714_563,
        "MBConv64": 12_001_859, "MBConv96": 26_831_715,
    },
    "objectives": dict.fromkeys(
        ("DDPM", "importance-sampling", "importance-sampling-2", "IWDiff", "both", "control", "IWDiff-sum"), DEFAULT
    ),
    "surrogates": {"default": DEFAULT, "SNGAN (generator)": 4_276_739, "SNGAN (discriminator)": 1_053_824},
}  # fmt: skip
"""Of every full preset: the networks whose trainable parameters are published."""
FULL = sorted(PARAMETERS)
SMALL = [f"{name}-small" for name in FULL]
OTHER_SYSTEMS = {
    "paper-imagenet64-class/BigGAN-deep", "paper-imagenet256/single-stage", "paper-imagenet256/VQ-VAE-2",
    "paper-imagenet256/BigGAN", "paper-imagenet256/BigGAN-deep",
}  # fmt: skip
"""Published rows that no preset is meant to reproduce: what the sources compare with."""


@cache
def preset(name: str) -> Params:
    return load_params(ROOT / "presets" / f"{name}.yaml")


def test_small_siblings_pair_up_with_full_presets() -> None:
    named = {path.stem for path in ROOT.glob("presets/*.yaml")}
    assert set(FULL) <= named
    assert {name for name in named if name.endswith("-small")} == set(SMALL)


@pytest.mark.parametrize("name", FULL)
def test_networks_have_the_published_sizes(name: str) -> None:
    networks = json.loads(inspect(ROOT, None, name, as_json=True))
    parameters = {network["path"].partition(".")[2]: network["parameters"] for network in networks}
    assert {network: parameters[network] for network in PARAMETERS[name]} == PARAMETERS[name]


@pytest.mark.parametrize("name", SMALL)
def test_a_small_sibling_needs_nothing_but_this_machine(name: str) -> None:
    params = preset(name)
    assert params.compute.workers == 0 and not params.imports
    assert {dataset.source for dataset in params.datasets.values()} <= {Source.DIGITS, Source.PHOTOS}
    assert {evaluation.features for evaluation in params.evaluations.values()} <= {"pixels", "lite0"}


@pytest.mark.parametrize("name", FULL)
def test_a_small_sibling_compares_what_the_full_preset_does(name: str) -> None:
    full, small = preset(name), preset(f"{name}-small")
    assert set(kinds(full)) == set(kinds(small))
    assert len({entry.t_mid for entry in full.surrogate_samplings.values()} - {0}) == len(
        {entry.t_mid for entry in small.surrogate_samplings.values()} - {0}
    )
    assert len(full.mixtures) == len(small.mixtures) and full.cascades.keys() == small.cascades.keys()
    assert full.reconstructions.keys() == small.reconstructions.keys()
    assert full.gradient_noises.keys() == small.gradient_noises.keys()
    assert len(full.report.scaling) == len(small.report.scaling)


def kinds(params: Params) -> Iterator[tuple[object, ...]]:
    """What distinguishes models and chains besides numbers."""
    for model in params.models.values():
        network, process, training = model.network, model.diffusion, model.training
        yield network.block, process.schedule, process.variance, training.objective, training.timestep_sampling
        yield bool(training.extra_measurements), model.upsampling and model.upsampling.noise_augmentation > 0
    yield from {(sampling.sampler,) for sampling in params.samplings.values()}


@pytest.mark.parametrize("name", [*FULL, *SMALL])
def test_everything_in_a_preset_is_used(name: str) -> None:
    params = preset(name)
    chains = [*params.samplings.values(), *params.surrogate_samplings.values()]
    uses = [*params.cascades.values(), *params.reconstructions.values()]
    likelihoods, evaluations = params.likelihoods.values(), params.evaluations.values()
    models = {use.model for use in (*chains, *likelihoods)} | {use.upsampler for use in uses}
    models |= {part for mixture in params.mixtures.values() for part in (mixture.middle, mixture.ends)}
    assert params.models.keys() | params.mixtures.keys() == models
    assert params.surrogates.keys() == {sampling.surrogate for sampling in params.surrogate_samplings.values()}
    assert params.datasets.keys() == {model.dataset for model in params.models.values()}
    drawn = params.samplings.keys() | params.surrogate_samplings.keys() | params.cascades.keys()
    scored = {evaluation.samples for evaluation in evaluations}
    assert drawn == scored | {cascade.samples for cascade in params.cascades.values()}


@pytest.mark.parametrize("name", FULL)
def test_a_full_preset_has_the_settings_of_the_published_rows(name: str) -> None:
    params = preset(name)
    for entry, row in params.report.published.items():
        published = published_results()[row].protocol
        if evaluation := params.evaluations.get(entry):
            check_scores(params, evaluation, published)
        if likelihood := params.likelihoods.get(entry):
            assert likelihood.steps is None
            check_model(params, likelihood, published)


def check_scores(params: Params, evaluation: Evaluation, published: Protocol) -> None:
    assert evaluation.features == "inception"
    for key in ("neighbours", "manifold_reference", "inception_splits"):
        assert getattr(published, key) in (None, getattr(evaluation, key)), key
    if cascade := params.cascades.get(evaluation.samples):
        sampling: Sampling = params.samplings[cascade.samples]
    else:
        sampling = (params.samplings | params.surrogate_samplings)[evaluation.samples]
        check_model(params, sampling, published)
    assert published.images in (None, sampling.count)
    assert published.steps in (None, 0, int(sampling.steps))
    assert published.steps != 0 or getattr(sampling, "t_mid", None) == 0


def check_model(params: Params, use: Sampling | Likelihood, published: Protocol) -> None:
    if use.model in params.mixtures:
        return
    model: Model = params.models[use.model]
    training, process = model.training, model.diffusion
    trained = getattr(use, "checkpoint", None) or training.steps
    assert published.timesteps in (None, process.timesteps)
    assert published.schedule in (None, process.schedule)
    assert published.conditioning in (None, model.network.conditioning)
    assert published.iterations in (None, trained)
    objective = published.objective and published.objective.partition(",")[0]
    assert objective in (None, training.objective)


def test_every_published_result_of_the_sources_own_models_has_a_preset() -> None:
    reproduced = {row for name in FULL for row in preset(name).report.published.values()}
    assert reproduced == published_results().keys() - OTHER_SYSTEMS


def test_the_document_lists_every_experiment() -> None:
    text = (ROOT / "docs" / "presets.md").read_text()
    for name in FULL:
        assert (
            f"| [`{name}`](../presets/{name}.yaml) |" in text
            and f"[`{name}-small`](../presets/{name}-small.yaml)" in text
        )
