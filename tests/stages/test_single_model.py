"""What a model is served with where no sampling of it was scored, and drawing with either of its weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iddpm.errors import UserError
from iddpm.params import Sampling, Weights
from iddpm.stages.draw import draw
from iddpm.stages.models import DiffusionModel
from iddpm.stages.single_model import SingleModel, served_defaults
from iddpm.training.checkpoint import open_checkpoint

from .test_draw import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SingleModel:
    return SingleModel(write_model(tmp_path_factory.mktemp("model") / "digits"))


@pytest.mark.parametrize(
    ("diffusion", "steps"),
    [
        ({"timesteps": 20}, "20"),
        ({"timesteps": 150}, "100"),
        ({"timesteps": 150, "variance": "learned"}, "150"),
    ],
)
def test_a_model_draws_by_its_own_defaults(tmp_path: Path, diffusion: dict[str, Any], steps: str) -> None:
    """Also where it has fewer steps than the usual number, or variances that are those of single steps."""
    folder = write_model(tmp_path / "m", {"diffusion": diffusion})
    defaults: dict[str, Any] = served_defaults(open_checkpoint(folder), None)
    assert (defaults["steps"], defaults["sampler"]) == (steps, "ancestral")
    drawn = SingleModel(folder).draw(None, 1)
    assert drawn.shape == (1, 8, 8, 1) and np.array_equal(drawn, SingleModel(folder).draw(None, 1, **defaults))


def test_a_sampling_is_drawn_as_it_says(tmp_path: Path) -> None:
    model, checkpoint = SingleModel(write_model(tmp_path / "m")), open_checkpoint(tmp_path / "m")
    entry = {"model": "m", "count": 5, "steps": "6,4", "sampler": "ddim", "eta": 0.5, "batch_size": 2, "seed": 7}
    sampling = Sampling.model_validate_json(json.dumps(entry | {"clip": False, "weights": "raw"}))
    defaults: dict[str, Any] = served_defaults(checkpoint, sampling)
    raw = DiffusionModel(tmp_path / "m", Weights.RAW)
    settings: dict[str, Any] = {"sampler": sampling.sampler, "eta": 0.5, "clip": False, "batch_size": 2, "seed": 7}
    expected = draw(raw, 5, steps="6,4", labels=raw.labels(5), **settings).images
    assert np.array_equal(model.draw(None, 5, **defaults), expected)
    for changed in ({"weights": "ema"}, {"clip": True}, {"seed": 8}, {"eta": 0.0}):
        assert not np.array_equal(model.draw(None, 5, **(defaults | changed)), expected)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sampler": "euler"}, "sampler: input should be 'ancestral' or 'ddim', not 'euler'"),
        ({"weights": "half"}, "weights: input should be 'ema' or 'raw', not 'half'"),
        ({"eta": 0.5}, "eta: only the ddim sampler has it"),
        ({"sampler": "ddim", "eta": 1.5}, "eta: input should be less than or equal to 1, not 1.5"),
        ({"batch_size": 0}, "batch_size: input should be greater than or equal to 1, not 0"),
        ({"seed": None}, "seed: input should be a valid integer, not None"),
        (
            {"step": "3"},
            "step: unknown parameter; a request may set steps, sampler, eta, clip, weights, batch_size, seed$",
        ),
        ({"checkpoint": 4}, "checkpoint: unknown parameter; "),
        ({"steps": "21"}, "steps: '21': cannot take 21 steps"),
        ({"labels": np.array([10, 0])}, "label 10: the model has classes 0 to 9"),
    ],
)
def test_what_cannot_be_drawn_is_named(model: SingleModel, asked: dict[str, Any], message: str) -> None:
    """As `iddpm check` says it of an entry, without a path."""
    with pytest.raises(UserError, match=f"^{message}"):
        model.draw(**{"labels": None, "count": 2, "steps": "3"} | asked)


def test_learned_variances_are_those_of_single_steps(tmp_path: Path) -> None:
    learned = SingleModel(write_model(tmp_path / "l", {"diffusion": {"timesteps": 20, "variance": "learned"}}))
    with pytest.raises(
        UserError, match=r"^steps: 3 of 20 with variance learned, .* take steps: 20 or the ddim sampler;"
    ):
        learned.draw(None, 2, steps="3")
    for sampler, steps in (("ancestral", "20"), ("ddim", "3")):
        assert len(learned.draw(None, 2, sampler=sampler, steps=steps)) == 2


def test_no_request_is_blamed_for_a_mistake_of_the_network(model: SingleModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ValueError("of torch")

    monkeypatch.setattr(DiffusionModel, "denoiser", lambda *args: broken)
    with pytest.raises(ValueError, match=r"^of torch$"):
        model.draw(None, 2, steps="3")


def test_eta_changes_what_ddim_draws(model: SingleModel) -> None:
    drawn = [model.draw(None, 2, sampler="ddim", steps="3", eta=eta) for eta in (0.0, 1.0)]
    assert not np.array_equal(*drawn)
