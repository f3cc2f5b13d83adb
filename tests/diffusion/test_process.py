"""Properties that hold for every process."""

import numpy as np
import pytest
import torch
from torch import Tensor

from iddpm.diffusion import (
    GaussianDiffusion,
    Mean,
    Objective,
    Variance,
    cosine_betas,
    linear_betas,
    space_timesteps,
    training_losses,
)

PROCESS = GaussianDiffusion(cosine_betas(100))
X = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
NOISE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "middle", "last"),
    [  # reference literals
        ("linear1000", 7.7796658365e-02, 4.0358297654e-05),
        ("linear4000", 7.8746475224e-02, 4.2466522758e-05),
        ("cosine1000", 4.9228517245e-01, 2.4287669070e-09),
        ("cosine4000", 4.9345397967e-01, 1.5179804689e-10),
    ],
)
def test_alphas_cumprod_literals(name: str, middle: float, last: float) -> None:
    timesteps = int(name[6:])
    betas = {"linear": linear_betas, "cosine": cosine_betas}[name[:6]](timesteps)
    alphas_cumprod = GaussianDiffusion(betas).alphas_cumprod
    np.testing.assert_allclose([alphas_cumprod[timesteps // 2], alphas_cumprod[-1]], [middle, last], rtol=1e-9)


def test_short_process_endpoints() -> None:
    betas = linear_betas(100, 4e-4, 0.18)
    assert betas[0] == pytest.approx(4e-4) and betas[-1] == pytest.approx(0.18)


@pytest.mark.parametrize("spacing", ["100", "25", "10,8,6", "ddim20"])
def test_a_respaced_chain_keeps_alpha_bar(spacing: str) -> None:
    respaced = PROCESS.respaced(spacing)
    np.testing.assert_allclose(respaced.alphas_cumprod, PROCESS.alphas_cumprod[respaced.timestep_map], rtol=1e-12)
    shown = respaced.model_timestep(torch.arange(respaced.timesteps))
    torch.testing.assert_close(shown, torch.tensor(respaced.timestep_map) * 10.0)


@pytest.mark.parametrize("spacing", ["101", "0", "60,60", "ddim33", "fast", "10,", "-3"])
def test_impossible_spacings_are_named(spacing: str) -> None:
    with pytest.raises(ValueError, match=f"'{spacing}'"):
        space_timesteps(100, spacing)


def test_x_start_and_eps_are_inverse() -> None:
    t = torch.tensor([3, 80])
    x_t = PROCESS.q_sample(X, t, NOISE)
    torch.testing.assert_close(PROCESS.x_start_from_eps(x_t, t, NOISE), X, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(PROCESS.eps_from_x_start(x_t, t, X), NOISE, rtol=1e-3, atol=1e-4)


def test_posterior_is_the_bayes_posterior() -> None:
    """q(x_{t-1} | x_t, x_0) by completing the square in q(x_t | x_{t-1}) q(x_{t-1} | x_0)."""
    t = 40
    beta, abar_prev = PROCESS.betas[t], PROCESS.alphas_cumprod[t - 1]
    precision = (1 - beta) / beta + 1 / (1 - abar_prev)
    x_t = torch.full((1, 1, 1, 1), 0.3)
    expected = (np.sqrt(1 - beta) / beta * 0.3 + np.sqrt(abar_prev) / (1 - abar_prev) * -0.7) / precision
    mean, log_variance = PROCESS.q_posterior(torch.full((1, 1, 1, 1), -0.7), x_t, torch.tensor([t]))
    assert float(mean) == pytest.approx(expected, rel=1e-5)
    assert float(log_variance.exp()) == pytest.approx(1 / precision, rel=1e-5)


def test_hybrid_teaches_the_mean_as_simple_does() -> None:
    """Section 3.1: the bound's term moves only the variance, with the weight lambda * T."""
    t = torch.tensor([5, 70])

    def gradients(objective: Objective, weight: float) -> Tensor:
        output = torch.cat([0.1 * X, 0.2 * X], dim=1).requires_grad_()
        losses = training_losses(
            PROCESS, lambda x, timestep: output, X, t, NOISE, objective=objective, vlb_weight=weight
        )
        losses["loss"].sum().backward()
        assert output.grad is not None
        return output.grad

    simple, hybrid = gradients(Objective.SIMPLE, 0.0), gradients(Objective.HYBRID, 0.001)
    torch.testing.assert_close(hybrid[:, :3], simple[:, :3])
    assert simple[:, 3:].abs().max() == 0 and hybrid[:, 3:].abs().max() > 0
    torch.testing.assert_close(gradients(Objective.HYBRID, 0.002)[:, 3:], 2 * hybrid[:, 3:])
    assert gradients(Objective.VLB, 0.0)[:, :3].abs().max() > 0


def test_hybrid_refuses_a_fixed_variance() -> None:
    process = GaussianDiffusion(cosine_betas(50), variance=Variance.FIXED_LARGE)
    with pytest.raises(ValueError, match="fixed_large"):
        training_losses(process, lambda x, t: x, X, torch.tensor([1, 2]), NOISE, objective=Objective.HYBRID)


def test_wrong_channel_count_is_named() -> None:
    with pytest.raises(ValueError, match="needs 6 output channels, the network gave 3"):
        PROCESS.reverse_step(X, X, torch.tensor([1, 2]), clip=True)


def test_x_start_prediction_is_taken_as_it_is() -> None:
    process = GaussianDiffusion(cosine_betas(50), mean=Mean.X_START, variance=Variance.FIXED_SMALL)
    step = process.reverse_step(X * 2, NOISE, torch.tensor([10, 20]), clip=True)
    assert torch.equal(step.x_start, (X * 2).clamp(-1, 1))
