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

from .test_draw import write_model


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
