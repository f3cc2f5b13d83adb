"""Every mistake in params.yaml is named by its path before anything runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from iddpm.checks import load_params
from iddpm.errors import UserError

from .conftest import TINY, tiny_params


def complain(tmp_path: Path, params: Any) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(params if isinstance(params, str) else yaml.safe_dump(params))
    with pytest.raises(UserError) as error:
        load_params(path)
    return str(error.value)


def test_tiny_parameters_are_sound(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    assert load_params(tmp_path / "params.yaml").models["digits"].training.objective == "hybrid"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("models.digits.training.learnin_rate", 1e-3, "models.digits.training.learnin_rate: unknown parameter"),
        ("modells", {}, "modells: unknown parameter"),
        (
            "models.digits.training.learning_rate",
            "fast",
            "models.digits.training.learning_rate: input should be a valid",
        ),
        ("models.digits.training.learning_rate", 0, "models.digits.training.learning_rate: input should be greater"),
        ("models.digits.training.steps", 2.5, "models.digits.training.steps: "),
        ("models.digits.training.steps", "many", "models.digits.training.steps: "),
        ("models.digits.training.batch_size", 1499, "1499 is more than the 1498 training images"),
        ("models.digits.training.batch_size", 15, None),
        ("models.digits.training.microbatches", 3, "training.batch_size: 16 does not divide"),
        ("models.digits.training.objective", "hybird", "models.digits.training.objective: "),
        ("models.digits.training.objective", "simple", "simple leaves variance learned_range untrained"),
        ("models.digits.diffusion.variance", "fixed_small", "hybrid trains a learned variance"),
        ("models.digits.diffusion.schedule", "linear", "models.digits.diffusion: betas from 0.005 to 1 do not lie"),
        ("models.digits.diffusion.beta_start", 0.1, "beta_start: needs beta_end"),
        ("models.digits.network.attention_sizes", [16], "attention_sizes: the network never reaches 16 pixels"),
        ("models.digits.network.channel_mult", [1] * 5, "5 levels cannot halve 8 pixels evenly"),
        ("models.digits.network.heads", 3, "network.heads: 3 do not divide the 8 channels"),
        ("models.digits.dataset", "cifar", "models.digits.dataset: 'cifar' is not in datasets (digits)"),
        ("samplings.ancestral.steps", 21, "samplings.ancestral.steps: '21': cannot take 21 steps"),
        ("samplings.ancestral.steps", "ddim9", "samplings.ancestral.steps: 'ddim9': no integer stride"),
        ("samplings.ancestral.steps", "quick", "'quick' is neither a step count"),
        ("samplings.ancestral.eta", 0.5, "samplings.ancestral.eta: only the ddim sampler"),
        ("samplings.ancestral.model", "nobody", "samplings.ancestral.model: 'nobody' is not in models"),
        ("samplings.sngan-10", {"model": "digits", "steps": 5, "count": 2}, "the name is taken"),
        ("surrogate_samplings.sngan-10.t_mid", 21, "t_mid: 21 is more than the model's T = 20"),
        ("surrogate_samplings.sngan-10.steps", 11, "steps: '11': cannot take 11 steps"),
        ("surrogate_samplings.sngan-10.surrogate", "gan", "surrogate: 'gan' is not in surrogates"),
        ("surrogates.sngan.conditioning", "none", "labels would not match"),
        ("surrogates.sngan.batch_size", 2000, "surrogates.sngan.batch_size: 2000 is more than"),
        ("evaluations.ancestral.samples", "x", "evaluations.ancestral.samples: 'x' is not in"),
        ("evaluations.ancestral.neighbours", 20, "20 neighbours need more than the 20 samples"),
        ("evaluations.ancestral.kid_subset_size", 1499, "1499 is more than the 1498 train images of digits"),
        ("evaluations.ancestral.kid_subset_size", 21, "kid_subset_size: 21 is more than the 20"),
        ("likelihoods.digits.images", 300, "likelihoods.digits.images: 300 is more than the 299 images"),
        ("datasets.bad name", {"source": "digits"}, "datasets.bad name: "),
        ("compute.workers", -1, "compute.workers: "),
    ],
)
def test_mistakes_are_named(tmp_path: Path, key: str, value: Any, message: str | None) -> None:
    params = tiny_params()
    *parents, last = key.split(".")
    section = params
    for parent in parents:
        section = section.setdefault(parent, {})
    section[last] = value
    if message is None:
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        load_params(tmp_path / "params.yaml")
    else:
        assert message in complain(tmp_path, params)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    params = tiny_params()
    params["samplings"]["ancestral"]["steps"] = 99
    params["likelihoods"]["digits"]["model"] = "nobody"
    assert len(complain(tmp_path, params).splitlines()) == 2


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "a: 2020-01-01", ""])
def test_not_a_parameter_file(tmp_path: Path, text: str) -> None:
    assert str(tmp_path / "params.yaml") in complain(tmp_path, text)


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TINY.replace("1.0e-3", "1e-3"))
    assert load_params(path).models["digits"].training.learning_rate == 0.001


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "steps" in complain(tmp_path, TINY.replace("steps: 4,", "steps: 4, steps: 5,"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_params(tmp_path / "params.yaml")
