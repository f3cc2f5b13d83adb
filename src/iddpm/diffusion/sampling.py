"""Reverse chains: ancestral and DDIM steps, whole chains, and the start from a surrogate's samples."""

from collections.abc import Callable, Iterator
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from iddpm.diffusion.process import Denoiser, GaussianDiffusion, expand_table

StepNoise = Callable[[int], Tensor]
"""step (counted down to 0) -> standard normal noise [N, C, H, W] for the transition at that step."""


class Sampler(StrEnum):
    """How one reverse step is taken."""

    ANCESTRAL = "ancestral"
    DDIM = "ddim"


def ancestral_step(
    process: GaussianDiffusion, denoiser: Denoiser, x_t: Tensor, t: Tensor, noise: Tensor, *, clip: bool = True
) -> Tensor:
    """x_{t-1} ~ p(x_{t-1} | x_t): mean + exp(log_variance / 2) * noise, without noise at t = 0."""
    step = process.reverse_step(denoiser(x_t, process.model_timestep(t)), x_t, t, clip=clip)
    noisy = (t != 0).to(x_t.dtype).reshape(-1, *[1] * (x_t.ndim - 1))
    return step.mean + noisy * torch.exp(0.5 * step.log_variance) * noise


def ddim_step(
    process: GaussianDiffusion,
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    eta: float = 0.0,
    clip: bool = True,
) -> Tensor:
    """One DDIM step (Song et al. 2020, eq. 12 and 16); eta = 0 is deterministic, eta = 1 ancestral-like."""
    x_start = process.reverse_step(denoiser(x_t, process.model_timestep(t)), x_t, t, clip=clip).x_start
    eps = process.eps_from_x_start(x_t, t, x_start)  # again, so that it agrees with the clipped x_start
    # Arithmetic after the gather is in float32, as in the original: 1 - abar near t = 0 shows the difference.
    now = expand_table(process.alphas_cumprod, t, x_t)
    previous = expand_table(process.alphas_cumprod_prev, t, x_t)
    sigma = eta * torch.sqrt((1 - previous) / (1 - now)) * torch.sqrt(1 - now / previous)
    mean = torch.sqrt(previous) * x_start + torch.sqrt(1 - previous - sigma**2) * eps
    noisy = (t != 0).to(x_t.dtype).reshape(-1, *[1] * (x_t.ndim - 1))
    return mean + noisy * sigma * noise


def ddim_reverse_step(
    process: GaussianDiffusion, denoiser: Denoiser, x_t: Tensor, t: Tensor, *, clip: bool = True
) -> Tensor:
    """x_{t+1} on the deterministic DDIM path: encodes an image into noise."""
    x_start = process.reverse_step(denoiser(x_t, process.model_timestep(t)), x_t, t, clip=clip).x_start
    eps = process.eps_from_x_start(x_t, t, x_start)
    alphas_cumprod_next = np.append(process.alphas_cumprod[1:], 0.0)
    following = expand_table(alphas_cumprod_next, t, x_t)
    return torch.sqrt(following) * x_start + torch.sqrt(1 - following) * eps


def reverse_chain(
    process: GaussianDiffusion,
    denoiser: Denoiser,
    x_t: Tensor,
    noise: StepNoise,
    *,
    sampler: Sampler = Sampler.ANCESTRAL,
    eta: float = 0.0,
    clip: bool = True,
) -> Iterator[Tensor]:
    """Walk x_t [N, C, H, W] from the last step of `process` down to 0, yielding x after every step."""
    for step in reversed(range(process.timesteps)):
        t = torch.full((len(x_t),), step, dtype=torch.int64, device=x_t.device)
        if sampler is Sampler.DDIM:
            x_t = ddim_step(process, denoiser, x_t, t, noise(step), eta=eta, clip=clip)
        else:
            x_t = ancestral_step(process, denoiser, x_t, t, noise(step), clip=clip)
        yield x_t


def truncated_process(process: GaussianDiffusion, spacing: str, t_mid: int) -> GaussianDiffusion:
    """The respaced chain over the first `t_mid` noising steps, 1 <= t_mid <= T, for a surrogate start.

    A chain that stops short of t_mid would begin at another noise level than it was given: ValueError.
    """
    if not 1 <= t_mid <= process.timesteps:
        raise ValueError(f"t_mid = {t_mid} is not in [1, {process.timesteps}]")
    truncated = process.respaced(spacing, below=t_mid)
    if truncated.timestep_map[-1] != process.timestep_map[t_mid - 1] and t_mid < process.timesteps:
        raise ValueError(
            f"steps {spacing!r} end at timestep {truncated.timestep_map[-1]}, not at t_mid - 1 = {t_mid - 1}; "
            "use a section count of at least 2"
        )
    return truncated


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
