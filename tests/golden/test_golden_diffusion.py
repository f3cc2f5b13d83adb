"""One diffusion process per file: tables, losses, single steps, whole chains, the whole bound."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iddpm.diffusion import (
    GaussianDiffusion,
    Mean,
    Objective,
    Sampler,
    Variance,
    bound_terms,
    cosine_betas,
    linear_betas,
    reverse_chain,
    training_losses,
)
from iddpm.diffusion.sampling import ancestral_step, ddim_reverse_step, ddim_step

from .conftest import golden_files, spacing_of

SCHEDULES = {"linear": linear_betas, "cosine": cosine_betas}
VARIANCES = {
    "FIXED_SMALL": Variance.FIXED_SMALL,
    "FIXED_LARGE": Variance.FIXED_LARGE,
    "LEARNED": Variance.LEARNED,
    "LEARNED_RANGE": Variance.LEARNED_RANGE,
}
MEANS = {"EPSILON": Mean.EPS, "START_X": Mean.X_START}
LOSSES = {"MSE", "RESCALED_MSE", "KL", "RESCALED_KL"}
KNOWN = {
    "schedule", "diffusion_steps", "respacing", "variance", "mean", "loss", "rescale_timesteps", "clip_denoised",
    "model", "note",
}  # fmt: skip
FORMULA = (
    "eps = 0.9*x + 0.1*cos(3*x) - 0.2*tt ; v = tanh(0.7*x + tt) ; tt = model_timestep/1000 ; "
    "learned-variance models return concat([eps, v], channel axis)"
)


@dataclass
class Case:
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    process: GaussianDiffusion

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def denoiser(self, x: Tensor, model_timestep: Tensor) -> Tensor:
        tt = model_timestep.reshape(-1, 1, 1, 1) / 1000
        eps = 0.9 * x + 0.1 * torch.cos(3 * x) - 0.2 * tt
        return torch.cat([eps, torch.tanh(0.7 * x + tt)], 1) if self.process.variance.learned else eps


def load(path: Path) -> Case:
    with np.load(path) as npz:
        arrays = {key: npz[key] for key in npz.files}
    config = json.loads(str(arrays.pop("config")))
    assert config.keys() <= KNOWN, f"{path.name}: unknown settings {sorted(config.keys() - KNOWN)}"
    for key, supported in (
        ("schedule", SCHEDULES), ("variance", VARIANCES), ("mean", MEANS), ("loss", LOSSES), ("model", {FORMULA})
    ):  # fmt: skip
        assert config[key] in supported, f"{path.name}: unknown setting {key} = {config[key]!r}"
    process = GaussianDiffusion(
        SCHEDULES[config["schedule"]](config["diffusion_steps"]),
        mean=MEANS[config["mean"]],
        variance=VARIANCES[config["variance"]],
        rescale_timesteps=config["rescale_timesteps"],
    )
    return Case(config, arrays, process.respaced(spacing_of(config["respacing"], config["diffusion_steps"])))


@pytest.fixture(params=golden_files("diffusion_*.npz"), ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-5) -> None:
    """Relative to the largest entry of each sample, so that entries near zero do not demand more than float32 has."""
    scale = expected.abs().amax(dim=tuple(range(1, expected.ndim)), keepdim=True).clamp(min=1e-30)
    torch.testing.assert_close(actual / scale, expected / scale, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    "name",
    [
        "timestep_map", "betas", "alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
        "posterior_mean_coef1", "posterior_mean_coef2",
    ],
)  # fmt: skip
def test_tables(case: Case, name: str) -> None:
    np.testing.assert_allclose(getattr(case.process, name), case.arrays[name], rtol=1e-10)


def test_q_sample(case: Case) -> None:
    close(case.process.q_sample(case["x0"], case["t"], case["noise"]), case["x_t"])


def test_losses(case: Case) -> None:
    loss, learned = case.config["loss"], case.process.variance.learned
    steps = case.process.timesteps
    weight = 0.001 if loss == "RESCALED_MSE" else 1 / steps
    objective = Objective.VLB if "KL" in loss else Objective.HYBRID if learned else Objective.SIMPLE
    losses = training_losses(
        case.process, case.denoiser, case["x0"], case["t"], case["noise"], objective=objective, vlb_weight=weight
    )
    if loss == "KL":  # the original's plain KL leaves out the factor T
        losses["loss"] /= steps
    if objective is Objective.HYBRID:  # it records the vb term with its weight
        losses["vb"] = losses["vb"] * weight * steps
    names = [key.removeprefix("loss/") for key in case.arrays if key.startswith("loss/")]
    assert "loss" in names
    for name in names:
        torch.testing.assert_close(losses[name], case[f"loss/{name}"], rtol=1e-5, atol=1e-7)


def test_reverse_step(case: Case) -> None:
    output = case.denoiser(case["x_t"], case.process.model_timestep(case["t"]))
    step = case.process.reverse_step(output, case["x_t"], case["t"], clip=case.config["clip_denoised"])
    close(step.mean, case["p/mean"])
    close(step.variance.expand_as(step.mean), case["p/variance"])
    close(step.log_variance.expand_as(step.mean), case["p/log_variance"])
    close(step.x_start, case["p/pred_xstart"])


def test_single_steps(case: Case) -> None:
    clip = case.config["clip_denoised"]
    arguments = (case.process, case.denoiser, case["x_t"], case["t"])
    close(ancestral_step(*arguments, case["p_sample_noise"], clip=clip).x, case["p_sample"])
    for key in case.arrays:
        if key.startswith("ddim_sample/eta"):
            eta = key.removeprefix("ddim_sample/eta")
            actual = ddim_step(*arguments, case[f"ddim_noise/eta{eta}"], eta=float(eta), clip=clip)
            close(actual.x, case[key])
    close(ddim_reverse_step(*arguments, clip=clip), case["ddim_reverse"])


def test_ancestral_chain(case: Case) -> None:
    noise = case["chain_noise"].flip(0)
    *_, state = reverse_chain(
        case.process,
        case.denoiser,
        case["chain_xT"],
        lambda step: noise[step],
        sampler=Sampler.ANCESTRAL,
        clip=case.config["clip_denoised"],
    )
    close(state.x, case["chain_x0"], rtol=1e-4)


def test_bits_per_dim(case: Case) -> None:
    noise = case["bpd_noise"].flip(0)
    terms = list(
        bound_terms(
            case.process, case.denoiser, case["x0"], lambda step: noise[step], clip=case.config["clip_denoised"]
        )
    )
    vb = torch.stack([term.vb for term in terms], dim=1)
    prior = case.process.prior_bits_per_dim(case["x0"])
    torch.testing.assert_close(vb, case["bpd/vb"], rtol=1e-4, atol=1e-6)
    for name, errors in (("xstart_mse", [term.x_start_mse for term in terms]), ("mse", [term.mse for term in terms])):
        torch.testing.assert_close(torch.stack(errors, dim=1), case[f"bpd/{name}"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(prior, case["bpd/prior_bpd"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(vb.sum(1) + prior, case["bpd/total_bpd"], rtol=1e-4, atol=1e-6)
