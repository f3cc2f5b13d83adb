"""Reverse chains: where they begin and end, what they hand over, and that they sample the right distribution."""

import numpy as np
import pytest
import torch
from torch import Tensor

from iddpm.diffusion import (
    ChainState,
    GaussianDiffusion,
    Handover,
    Sampler,
    Variance,
    cosine_betas,
    ddim_encode,
    hand_over,
    reverse_chain,
    surrogate_start,
    truncated_process,
    upper_process,
)
from iddpm.diffusion.sampling import StepNoise, ancestral_step, ddim_step

from . import gaussian

PROCESS = GaussianDiffusion(cosine_betas(100))
X = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
NOISE = gaussian.normal(0, 2, 3, 4, 4)


def learned(x: Tensor, timestep: Tensor) -> Tensor:
    return torch.cat([0.5 * x, torch.sin(x + timestep.reshape(-1, 1, 1, 1) / 1000)], dim=1)


def step_noise(x: Tensor, seed: int) -> StepNoise:
    return lambda step: gaussian.normal(1000 * seed + step, *x.shape)


def test_ddim_without_noise_ignores_the_noise() -> None:
    chain = PROCESS.respaced("10")
    *_, a = reverse_chain(chain, learned, NOISE, lambda step: NOISE, sampler=Sampler.DDIM)
    *_, b = reverse_chain(chain, learned, NOISE, lambda step: -NOISE, sampler=Sampler.DDIM)
    assert torch.equal(a.x, b.x)


@pytest.mark.parametrize("spacing", ["100", "20", "10,8,6", "ddim20"])
def test_ddim_with_eta_1_is_ancestral_with_the_posterior_variance(spacing: str) -> None:
    """Song et al., after eq. 16: the variance and the mean are those of q(x_{t-1} | x_t, x_start)."""
    process = gaussian.process(100).respaced(spacing)
    for step in (0, 1, process.timesteps // 2, process.timesteps - 1):
        arguments = (process, lambda x, timestep: 0.5 * x, NOISE, torch.full((2,), step), X)
        ddim, ancestral = ddim_step(*arguments, eta=1.0), ancestral_step(*arguments)
        torch.testing.assert_close(ddim.x, ancestral.x, rtol=1e-3, atol=1e-4)
        quiet = ddim_step(*arguments, eta=0.0)
        assert step == 0 or not torch.allclose(ddim.x, quiet.x, atol=1e-3)


def test_surrogate_start_at_both_ends() -> None:
    assert surrogate_start(PROCESS, X, NOISE, 0) is X
    assert surrogate_start(PROCESS, X, NOISE, 100) is NOISE
    middle = surrogate_start(PROCESS, X, NOISE, 40)
    torch.testing.assert_close(middle, PROCESS.q_sample(X, torch.tensor([39, 39]), NOISE))


def test_truncated_chain_begins_where_the_noise_ends() -> None:
    chain = truncated_process(PROCESS, "8", 40)
    assert chain.timesteps == 8 and chain.timestep_map[-1] == 39
    assert truncated_process(PROCESS, "8", 100).timestep_map == PROCESS.respaced("8").timestep_map
    assert truncated_process(PROCESS, "ddim8", 40).timestep_map == [4, 9, 14, 19, 24, 29, 34, 39]
    with pytest.raises(ValueError, match="t_mid - 1 = 39"):
        truncated_process(PROCESS, "1", 40)
    with pytest.raises(ValueError, match="t_mid = 101"):
        truncated_process(PROCESS, "8", 101)


@pytest.mark.parametrize(
    ("t_mid", "below", "above"),
    [(1, "1", "99"), (1, "1", "2"), (40, "40", "60"), (40, "8", "15"), (40, "5,3", "2,4"), (98, "98", "2")],
)
def test_both_chains_meet_at_the_noise_level_of_t_mid(t_mid: int, below: str, above: str) -> None:
    lower, upper = truncated_process(PROCESS, below, t_mid), upper_process(PROCESS, above, t_mid)
    levels = [lower.alphas_cumprod[-1], upper.alphas_cumprod[0]]
    np.testing.assert_allclose(levels, PROCESS.alphas_cumprod[t_mid - 1], rtol=1e-12)
    np.testing.assert_allclose(upper.alphas_cumprod, PROCESS.alphas_cumprod[upper.timestep_map], rtol=1e-9)
    assert upper.timestep_map[-1] == 99 and upper.timestep_map[:2] == [t_mid - 1, t_mid]
    if int(below.split(",")[0]) == t_mid and above == str(100 - t_mid):
        assert lower.timestep_map + upper.timestep_map[1:] == list(range(100))


def test_the_upper_chain_covers_everything_at_t_mid_0_and_refuses_what_it_cannot_cover() -> None:
    assert upper_process(PROCESS, "25", 0).timestep_map == PROCESS.respaced("25").timestep_map
    with pytest.raises(ValueError, match=r"t_mid = 100 is not in \[0, 100\)"):
        upper_process(PROCESS, "10", 100)
    with pytest.raises(ValueError, match="begin at timestep 40, not at the last"):
        upper_process(PROCESS, "1", 40)
    with pytest.raises(ValueError, match="'61'"):
        upper_process(PROCESS, "61", 40)


def test_a_chain_stops_after_its_last_step() -> None:
    upper = upper_process(PROCESS, "6", 40)
    states = list(reverse_chain(upper, learned, NOISE, lambda step: NOISE, last_step=1))
    assert len(states) == 6
    assert not torch.equal(states[-1].x, states[-1].x_start) and states[-1].x_start.abs().max() <= 1


def neighbours_correlation(x: Tensor) -> float:
    left, right = x[..., :-1].flatten(), x[..., 1:].flatten()
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1])


def test_what_is_handed_over() -> None:
    """x_start: its content and white noise of the right variance; x_t: smooth noise of too little variance."""
    state = ChainState(gaussian.normal(1, 64, 1, 8, 8), torch.full((64, 1, 8, 8), 0.5))
    noise, abar = gaussian.normal(2, 64, 1, 32, 32), PROCESS.alphas_cumprod[39]
    from_x_start = hand_over(PROCESS, state, 32, noise, 40, Handover.X_START)
    assert float(from_x_start.mean()) == pytest.approx(0.5 * abar**0.5, abs=0.01)
    assert float(from_x_start.var()) == pytest.approx(1 - abar, rel=0.02)
    assert abs(neighbours_correlation(from_x_start)) < 0.02
    from_x_t = hand_over(PROCESS, state, 32, noise, 40, Handover.X_T)
    assert float(from_x_t.var()) < 0.6 * float(state.x.var()) and neighbours_correlation(from_x_t) > 0.8
    for handover in Handover:
        assert torch.equal(hand_over(PROCESS, state, 32, noise, 0, handover), from_x_t)


@pytest.mark.parametrize(("sampler", "eta"), [("ancestral", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0)])
@pytest.mark.parametrize("t_mid", [None, 30, 150])
def test_chains_sample_the_data(sampler: str, eta: float, t_mid: int | None) -> None:
    """One chain, or an upper one whose x_t goes on below: independent pixels keep their mean and variance."""
    process = gaussian.process(200)
    denoiser, x = gaussian.denoiser(process), gaussian.normal(0, 1024, 1, 4, 4)
    settings = {"sampler": Sampler(sampler), "eta": eta}
    below = process
    if t_mid is not None:
        upper = upper_process(process, str(200 - t_mid), t_mid)
        *_, state = reverse_chain(upper, denoiser, x, step_noise(x, 1), **settings, last_step=1)
        x = hand_over(process, state, 4, x, t_mid, Handover.X_T)
        below = truncated_process(process, str(t_mid), t_mid)
    *_, state = reverse_chain(below, denoiser, x, step_noise(x, 2), **settings)
    assert float(state.x.mean()) == pytest.approx(gaussian.MEAN, abs=0.01)
    assert float(state.x.std()) == pytest.approx(gaussian.DEVIATION, rel=0.06)  # T = 200 leaves a few percent


def test_a_low_resolution_chain_hands_over_to_a_full_one() -> None:
    """Images of one grey level: both denoisers are exact, resizing changes nothing, the distribution must survive."""
    process = gaussian.process(200, Variance.FIXED_LARGE)
    denoiser = gaussian.denoiser(process, constant=True)
    low, noise = gaussian.normal(0, 2048, 1, 8, 8), gaussian.normal(1, 2048, 1, 16, 16)
    *_, state = reverse_chain(upper_process(process, "90", 20), denoiser, low, step_noise(low, 1), last_step=1)
    x = hand_over(process, state, 16, noise, 20, Handover.X_START)
    *_, state = reverse_chain(truncated_process(process, "10", 20), denoiser, x, step_noise(x, 2))
    levels = state.x.mean((1, 2, 3))
    assert float(levels.mean()) == pytest.approx(gaussian.MEAN, abs=0.02)
    assert float(levels.std()) == pytest.approx(gaussian.DEVIATION, rel=0.06)
    assert float((state.x - levels[:, None, None, None]).std()) < 1e-4


def test_ddim_encodes_into_standard_noise_and_back() -> None:
    process = gaussian.process(1000)
    denoiser, x = gaussian.denoiser(process), gaussian.images(256, 4)
    errors = []
    for steps in (10, 50, 250):
        chain = process.respaced(str(steps))
        encoded = list(ddim_encode(chain, denoiser, x, clip=False))
        assert len(encoded) == steps - 1
        *_, decoded = reverse_chain(chain, denoiser, encoded[-1], lambda step: x, sampler=Sampler.DDIM, clip=False)
        errors.append(float((decoded.x - x).abs().mean()) * 127.5)
    assert errors[0] > 2 * errors[1] > 6 * errors[2] and errors[2] < 1  # grey levels
    assert float(encoded[-1].mean()) == pytest.approx(0, abs=0.05)
    assert float(encoded[-1].std()) == pytest.approx(1, abs=0.05)
