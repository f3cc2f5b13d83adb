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
from iddpm.stages.single_model import SingleModel, draw_images, served_defaults

from .test_draw import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    return DiffusionModel(write_model(tmp_path_factory.mktemp("model") / "digits"))


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
    model = SingleModel(write_model(tmp_path / "m", {"diffusion": diffusion}))
    defaults: dict[str, Any] = served_defaults(model.checkpoint, None)
    assert (defaults["steps"], defaults["sampler"]) == (steps, "ancestral")
    assert model.draw(None, 1, **defaults).shape == (1, 8, 8, 1)


def test_a_sampling_is_drawn_as_it_says(tmp_path: Path) -> None:
    model = SingleModel(write_model(tmp_path / "m"))
    entry = {"model": "m", "count": 5, "steps": "6,4", "sampler": "ddim", "eta": 0.5, "batch_size": 2, "seed": 7}
    sampling = Sampling.model_validate_json(json.dumps(entry | {"clip": False, "weights": "raw"}))
    defaults: dict[str, Any] = served_defaults(model.checkpoint, sampling)
    raw = DiffusionModel(tmp_path / "m", Weights.RAW)
    settings: dict[str, Any] = {"sampler": sampling.sampler, "eta": 0.5, "clip": False, "batch_size": 2, "seed": 7}
    expected = draw(raw, 5, steps="6,4", labels=raw.labels(5), **settings).images
    assert np.array_equal(model.draw(None, 5, **defaults), expected)
    for changed in ({"weights": "ema"}, {"clip": True}, {"seed": 8}, {"eta": 0.0}):
        assert not np.array_equal(model.draw(None, 5, **(defaults | changed)), expected)
    with pytest.raises(UserError, match=r"^batch_size 0: draw one image at once at least$"):
        model.draw(None, 5, **(defaults | {"batch_size": 0}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "euler"}, "sampler euler: choose ancestral or ddim"),
        ({"eta": 0.5}, "eta 0.5: only the ddim sampler has it"),
        ({"sampler": "ddim", "eta": 1.5}, "eta 1.5: lies between 0 and 1"),
        ({"steps": "21"}, "steps: '21'"),
        ({"labels": np.array([10, 0])}, "label 10: the model has classes 0 to 9"),
    ],
)
def test_what_cannot_be_drawn_is_named(model: DiffusionModel, settings: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"labels": None, "count": 2, "sampler": "ancestral", "steps": "3", "seed": 0} | settings
    with pytest.raises(UserError, match=message):
        draw_images(model, **asked)


def test_learned_variances_are_those_of_single_steps(tmp_path: Path) -> None:
    learned = DiffusionModel(write_model(tmp_path / "l", {"diffusion": {"timesteps": 20, "variance": "learned"}}))
    with pytest.raises(UserError, match="steps 3: the model's variances are those of single steps; take all 20"):
        draw_images(learned, None, 2, "ancestral", "3", 0)
    for sampler, steps in (("ancestral", "20"), ("ddim", "3")):
        assert len(draw_images(learned, None, 2, sampler, steps, 0)) == 2


def test_eta_changes_what_ddim_draws(model: DiffusionModel) -> None:
    drawn = [draw_images(model, None, 2, "ddim", "3", 0, eta) for eta in (0.0, 1.0)]
    assert not np.array_equal(*drawn)
