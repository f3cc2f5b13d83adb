"""tables.json: schedules, respacing, timestep embedding, a history of the loss-second-moment sampler."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iddpm.diffusion import cosine_betas, linear_betas, space_timesteps
from iddpm.diffusion.timestep_samplers import LossSecondMomentSampler
from iddpm.nets import timestep_embedding

from .conftest import golden_files, spacing_of

SCHEDULES = {"linear": linear_betas, "cosine": cosine_betas}


@pytest.fixture(params=golden_files("tables*.json"), ids=lambda path: path.stem)
def tables(request: pytest.FixtureRequest) -> dict[str, Any]:
    path: Path = request.param
    return json.loads(path.read_text())


def test_every_section_is_known(tables: dict[str, Any]) -> None:
    assert tables.keys() <= {"betas", "space_timesteps", "timestep_embedding", "loss_second_moment"}


def test_betas(tables: dict[str, Any]) -> None:
    for name, expected in tables["betas"].items():
        schedule, timesteps = name.rsplit("-", 1)
        np.testing.assert_allclose(SCHEDULES[schedule](int(timesteps)), expected, rtol=1e-10)


def test_space_timesteps(tables: dict[str, Any]) -> None:
    for case in tables["space_timesteps"]:
        assert space_timesteps(case["T"], spacing_of(case["sections"], case["T"])) == case["steps"]


def test_timestep_embedding(tables: dict[str, Any]) -> None:
    for case in tables["timestep_embedding"]:
        actual = timestep_embedding(torch.tensor(case["t"]), case["dim"])
        torch.testing.assert_close(actual, torch.tensor(case["out"]), rtol=1e-5, atol=1e-5)


def test_loss_second_moment(tables: dict[str, Any]) -> None:
    case = tables["loss_second_moment"]
    sampler = LossSecondMomentSampler(case["num_timesteps"], case["history"], case["uniform_prob"])
    t, losses = torch.tensor(case["ts"]), torch.tensor(case["losses"], dtype=torch.float64)
    for start in range(0, len(t), case["batch"]):
        sampler.update(t[start : start + case["batch"]], losses[start : start + case["batch"]])
    expected = torch.tensor(case["weights"], dtype=torch.float64)
    torch.testing.assert_close(sampler.probabilities(), expected / expected.sum(), rtol=1e-10, atol=0)
