"""IWDiff's weights, and the meaning of the hybrid's lambda."""

import pytest
import torch

from iddpm.diffusion import (
    GaussianDiffusion,
    IwdiffReduction,
    Objective,
    Variance,
    cosine_betas,
    draw_weights,
    linear_betas,
    training_losses,
)

LOSSES = torch.tensor([[0.9, 1.0], [1.1, 1.0], [1.0, 1.0]], requires_grad=True)


def test_iwdiff_prefers_the_harder_draw() -> None:
    weights = draw_weights(LOSSES, 64, objective=Objective.IWDIFF)
    torch.testing.assert_close(weights, torch.softmax(LOSSES.detach(), dim=0))
    assert weights[1, 0] > weights[2, 0] > weights[0, 0]
    assert not weights.requires_grad


def test_at_3072_dimensions_the_mean_almost_averages_and_the_sum_almost_takes_the_maximum() -> None:
    mean = draw_weights(LOSSES, 3072, objective=Objective.IWDIFF, reduction=IwdiffReduction.MEAN)
    assert float((mean - 1 / 3).abs().max()) < 0.04
    largest = draw_weights(LOSSES, 3072, objective=Objective.IWDIFF, reduction=IwdiffReduction.SUM)
    torch.testing.assert_close(largest[:, 0], torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(largest[:, 1], torch.full((3,), 1 / 3))


@pytest.mark.parametrize("objective", [Objective.SIMPLE, Objective.HYBRID, Objective.VLB])
def test_the_others_average(objective: Objective) -> None:
    torch.testing.assert_close(draw_weights(LOSSES, 64, objective=objective), torch.full((3, 2), 1 / 3))


@pytest.mark.parametrize("timesteps", [50, 200])
def test_hybrid_is_simple_plus_lambda_times_the_whole_bound(timesteps: int) -> None:
    """The mean of the hybrid over all t equals L_simple + lambda * (sum of the bound's terms)."""
    process = GaussianDiffusion(cosine_betas(timesteps), variance=Variance.LEARNED_RANGE)

    def denoiser(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.3 * x, 0.1 * x], dim=1)

    t = torch.arange(timesteps)
    x_start = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4).expand(timesteps, -1, -1, -1)
    noise = torch.randn(timesteps, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    losses = training_losses(process, denoiser, x_start, t, noise, objective=Objective.HYBRID, vlb_weight=0.02)
    expected = losses["mse"].mean() + 0.02 * losses["vb"].sum()
    torch.testing.assert_close(losses["loss"].mean(), expected)


def test_the_short_process_has_its_endpoints() -> None:
    """The coursework's T = 100."""
    betas = linear_betas(100, 4e-4, 0.18)
    assert betas[0] == pytest.approx(4e-4) and betas[-1] == pytest.approx(0.18) and len(betas) == 100
    assert GaussianDiffusion(betas).alphas_cumprod[-1] < 1e-4
