"""Reverse chains: ancestral and DDIM steps, whole chains, and the start from a surrogate's samples."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from iddpm.diffusion.process import Denoiser, GaussianDiffusion
from iddpm.diffusion.schedules import space_timesteps

StepNoise = Callable[[int], Tensor]
"""step (counted down to 0) -> standard normal noise [N, C, H, W] for the transition at that step."""


class Sampler(StrEnum):
    """How one reverse step is taken."""

    ANCESTRAL = "ancestral"
    DDIM = "ddim"


class Handover(StrEnum):
    """What a low-resolution chain hands to the one that goes on at full resolution."""

    X_START = "x_start"
    X_T = "x_t"


class ChainState(NamedTuple):
    """Where a reverse chain stands after a step: x, and the x_start predicted in that step; each [N, C, H, W]."""

    x: Tensor
    x_start: Tensor


def ancestral_step(
    process: GaussianDiffusion, denoiser: Denoiser, x_t: Tensor, t: Tensor, noise: Tensor, *, clip: bool = True
) -> ChainState:
    """x_{t-1} ~ p(x_{t-1} | x_t): mean + exp(log_variance / 2) * noise, without noise at t = 0."""
    step = process.reverse_step(denoiser(x_t, process.model_timestep(t)), x_t, t, clip=clip)
    noisy = (t != 0).to(x_t.dtype).reshape(-1, *[1] * (x_t.ndim - 1))
    return ChainState(step.mean + noisy * torch.exp(0.5 * step.log_variance) * noise, step.x_start)


def ddim_step(
    process: GaussianDiffusion,
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    eta: float = 0.0,
    clip: bool = True,
) -> ChainState:
    """One DDIM step (Song et al. 2020, eq. 12 and 16); eta = 0 is deterministic, eta = 1 ancestral-like."""
    x_start = process.reverse_step(denoiser(x_t, process.model_timestep(t)), x_t, t, clip=clip).x_start
    eps = process.eps_from_x_start(x_t, t, x_start)  # again, so that it agrees with the clipped x_start
    # Arithmetic after the gather is in float32, as in the original: 1 - abar near t = 0 shows the difference.
    now = process.at("alphas_cumprod", t, x_t)
    previous = process.at("alphas_cumprod_prev", t, x_t)
    sigma = eta * torch.sqrt((1 - previous) / (1 - now)) * torch.sqrt(1 - now / previous)
    mean = torch.sqrt(previous) * x_start + torch.sqrt(1 - previous - sigma**2) * eps
    noisy = (t != 0).to(x_t.dtype).reshape(-1, *[1] * (x_t.ndim - 1))
    return ChainState(mean + noisy * sigma * noise, x_start)


def ddim_reverse_step(
    process: GaussianDiffusion, denoiser: Denoiser, x_t: Tensor, t: Tensor, *, clip: bool = True
) -> Tensor:
    """x_{t+1} on the deterministic DDIM path: encodes an image into noise."""
    x_start = process.reverse_step(denoiser(x_t, process.model_timestep(t)), x_t, t, clip=clip).x_start
    eps = process.eps_from_x_start(x_t, t, x_start)
    following = process.at("alphas_cumprod_next", t, x_t)
    return torch.sqrt(following) * x_start + torch.sqrt(1 - following) * eps


def ddim_encode(process: GaussianDiffusion, denoiser: Denoiser, x: Tensor, *, clip: bool = True) -> Iterator[Tensor]:
    """Walk images x [N, C, H, W], taken for x at step 0, up to the last step; `reverse_chain` with DDIM leads back."""
    for step in range(process.timesteps - 1):
        x = ddim_reverse_step(process, denoiser, x, torch.full((len(x),), step, device=x.device), clip=clip)
        yield x


def reverse_chain(
    process: GaussianDiffusion,
    denoiser: Denoiser,
    x_t: Tensor,
    noise: StepNoise,
    *,
    sampler: Sampler = Sampler.ANCESTRAL,
    eta: float = 0.0,
    clip: bool = True,
    last_step: int = 0,
) -> Iterator[ChainState]:
    """Walk x_t [N, C, H, W] from the last step of `process` down to `last_step`, yielding the state after each."""
    for step in reversed(range(last_step, process.timesteps)):
        t = torch.full((len(x_t),), step, dtype=torch.int64, device=x_t.device)
        if sampler is Sampler.DDIM:
            state = ddim_step(process, denoiser, x_t, t, noise(step), eta=eta, clip=clip)
        else:
            state = ancestral_step(process, denoiser, x_t, t, noise(step), clip=clip)
        x_t = state.x
        yield state


def truncated_process(process: GaussianDiffusion, spacing: str, t_mid: int) -> GaussianDiffusion:
    """The respaced chain over the first `t_mid` noising steps, 1 <= t_mid <= T, for a surrogate start.

    A chain that stops short of t_mid would begin at another noise level than it was given: ValueError. The stride of
    a "ddimN" spacing is therefore counted from t_mid - 1 downwards.
    """
    if not 1 <= t_mid <= process.timesteps:
        raise ValueError(f"t_mid = {t_mid} is not in [1, {process.timesteps}]")
    kept = space_timesteps(t_mid, spacing)
    if t_mid < process.timesteps and spacing.startswith("ddim"):
        kept = [t_mid - 1 - step for step in reversed(kept)]
    if t_mid < process.timesteps and kept[-1] != t_mid - 1:
        raise ValueError(
            f"steps {spacing!r} end at timestep {kept[-1]}, not at t_mid - 1 = {t_mid - 1}; "
            "use a section count of at least 2"
        )
    return process.keeping(kept)


def surrogate_start(process: GaussianDiffusion, x_start: Tensor, noise: Tensor, t_mid: int) -> Tensor:
    """x_mid ~ q(x_{t_mid} | x_start) after exactly t_mid noising steps of the full process, 0 <= t_mid <= T.

    t_mid = 0 returns the surrogate's samples untouched; t_mid = T forgets them: ordinary sampling from noise.
    """
    if t_mid == 0:
        return x_start
    if t_mid == process.timesteps:
        return noise
    t = torch.full((len(x_start),), t_mid - 1, dtype=torch.int64, device=x_start.device)
    return process.q_sample(x_start, t, noise)


def upper_process(process: GaussianDiffusion, spacing: str, t_mid: int) -> GaussianDiffusion:
    """The respaced chain from T down to the noise level of `t_mid` noising steps, 0 <= t_mid < T, for a surrogate.

    With t_mid > 0 its step 0 stands for that level and is never taken: `reverse_chain(..., last_step=1)`.
    ValueError when the chain would not begin at T - 1, except with "ddimN", which does not in ordinary sampling either.
    """
    if not 0 <= t_mid < process.timesteps:
        raise ValueError(f"t_mid = {t_mid} is not in [0, {process.timesteps})")
    above = [t_mid + step for step in space_timesteps(process.timesteps - t_mid, spacing)]
    if above[-1] != process.timesteps - 1 and not spacing.startswith("ddim"):
        raise ValueError(f"steps {spacing!r} begin at timestep {above[-1]}, not at the last; use at least 2 steps")
    return process.keeping([t_mid - 1, *above] if t_mid else above)


def hand_over(
    process: GaussianDiffusion, state: ChainState, size: int, noise: Tensor, t_mid: int, handover: Handover
) -> Tensor:
    """x_mid [N, C, size, size] for the full-resolution `process` from a low-resolution chain that stopped at t_mid.

    x_start: its predicted x_start, resized bilinearly and noised again, so that the noise is white at full size;
    x_t: its noisy x itself, resized, whose noise is then smooth (the ablation). t_mid = 0 is its images, resized.
    """
    if t_mid == 0 or handover is Handover.X_T:
        return _resized(state.x, size)
    return surrogate_start(process, _resized(state.x_start, size), noise, t_mid)


def _resized(x: Tensor, size: int) -> Tensor:
    return torch.nn.functional.interpolate(x, (size, size), mode="bilinear", align_corners=False)
