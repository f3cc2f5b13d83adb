"""Denoisers that are exact: the data are Gaussian, so the optimal noise prediction is known in closed form."""

import numpy as np
import torch
from torch import Tensor

from iddpm.diffusion import Denoiser, GaussianDiffusion, Variance, cosine_betas

MEAN, DEVIATION = 0.1, 0.25


def process(timesteps: int, variance: Variance = Variance.FIXED_SMALL) -> GaussianDiffusion:
    return GaussianDiffusion(cosine_betas(timesteps), variance=variance)


def denoiser(full: GaussianDiffusion, *, constant: bool = False) -> Denoiser:
    """For images of independent pixels, or (`constant`) of one grey level all over, each N(MEAN, DEVIATION^2).

    E[x_start | x_t] weighs the prior against the pixels that tell of the same grey level: one, or all of them.
    """

    def denoise(x_t: Tensor, model_timestep: Tensor) -> Tensor:
        t = (model_timestep * full.original_timesteps / 1000).round().long()
        abar = torch.from_numpy(full.alphas_cumprod)[t].float().reshape(-1, 1, 1, 1)
        pixels = x_t[0].numel() if constant else 1
        seen = x_t.mean((1, 2, 3), keepdim=True) if constant else x_t
        gain = pixels * abar / (1 - abar)
        x_start = (MEAN / DEVIATION**2 + gain * seen / abar.sqrt()) / (1 / DEVIATION**2 + gain)
        return (x_t - abar.sqrt() * x_start) / (1 - abar).sqrt()

    return denoise


def with_exact_variance(chain: GaussianDiffusion, mean_denoiser: Denoiser) -> Denoiser:
    """Beside the noise of independent pixels, the log variance of the true p(x_{t-1} | x_t): a Gaussian here.

    `chain` has a learned variance and may be respaced: the variance belongs to its steps.
    """
    abar = chain.alphas_cumprod
    of_x_start = 1 / (1 / DEVIATION**2 + abar / (1 - abar))
    log_variance = np.log(chain.posterior_variance + chain.posterior_mean_coef1**2 * of_x_start)
    scale = 1000 / chain.original_timesteps

    def denoise(x_t: Tensor, model_timestep: Tensor) -> Tensor:
        step = chain.timestep_map.index(round(float(model_timestep[0]) / scale))
        return torch.cat([mean_denoiser(x_t, model_timestep), torch.full_like(x_t, log_variance[step])], dim=1)

    return denoise


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(count: int, size: int, seed: int = 0) -> Tensor:
    """Independent pixels, rounded to the 256 grey levels."""
    x = MEAN + DEVIATION * normal(seed, count, 1, size, size)
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def true_bits_per_dim() -> float:
    """Entropy of a pixel's grey level."""
    return float(0.5 * np.log2(2 * np.pi * np.e * DEVIATION**2) - np.log2(2 / 255))
