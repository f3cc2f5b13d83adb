"""The forward process q and the reverse process p as one object, free of any network."""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iddpm.diffusion.schedules import FloatTable, respaced_betas, space_timesteps

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""A network with its conditioning bound: (x_t [N,C,H,W], model timestep [N] float) -> [N, C or 2C, H, W]."""


class Mean(StrEnum):
    """What the network's first C channels predict."""

    EPS = "eps"
    X_START = "x_start"


class Variance(StrEnum):
    """Where the variance of p(x_{t-1} | x_t) comes from."""

    FIXED_SMALL = "fixed_small"
    FIXED_LARGE = "fixed_large"
    LEARNED = "learned"
    LEARNED_RANGE = "learned_range"

    @property
    def learned(self) -> bool:
        return self in (Variance.LEARNED, Variance.LEARNED_RANGE)


class ReverseStep(NamedTuple):
    """p(x_{t-1} | x_t): mean, variance, log variance and the x_start it rests on, each [N, C, H, W]."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x_start: Tensor


class GaussianDiffusion:
    """A diffusion of T steps, betas float64 [T] in (0, 1].

    `timestep_map` holds, for a respaced chain, the original timestep of each kept step; the network always
    sees the original one (times 1000 / original T when `rescale_timesteps`). Timesteps t are int64 [N] in
    [0, T); t = 0 is one noising step.
    """

    def __init__(
        self,
        betas: FloatTable,
        *,
        mean: Mean = Mean.EPS,
        variance: Variance = Variance.LEARNED_RANGE,
        rescale_timesteps: bool = True,
        timestep_map: list[int] | None = None,
        original_timesteps: int | None = None,
    ) -> None:
        if betas.ndim != 1 or not ((betas > 0) & (betas <= 1)).all():
            raise ValueError("betas must be one-dimensional and lie in (0, 1]")
        self.mean, self.variance, self.rescale_timesteps = mean, variance, rescale_timesteps
        self.timesteps = len(betas)
        self.original_timesteps = original_timesteps or self.timesteps
        self.timestep_map = timestep_map or list(range(self.timesteps))
        self.betas = betas
        self.alphas_cumprod = np.cumprod(1.0 - betas)
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        self.posterior_variance = betas * (1.0 - self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        # The posterior variance is 0 at t = 0: its logarithm borrows that of t = 1.
        clipped = np.append(self.posterior_variance[min(1, self.timesteps - 1)], self.posterior_variance[1:])
        with np.errstate(divide="ignore"):
            self.posterior_log_variance_clipped = np.log(clipped)
            # beta_0 would spoil the decoder's likelihood at t = 0: that of the posterior stands there.
            fixed_large_log_variance = np.log(np.append(clipped[0], betas[1:]))
        # eq. 11: coefficients of x_start and x_t in the posterior mean
        self.posterior_mean_coef1 = betas * np.sqrt(self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        self.posterior_mean_coef2 = (
            (1.0 - self.alphas_cumprod_prev) * np.sqrt(1.0 - betas) / (1.0 - self.alphas_cumprod)
        )
        self._tables = {
            "alphas_cumprod": self.alphas_cumprod,
            "alphas_cumprod_prev": self.alphas_cumprod_prev,
            "alphas_cumprod_next": np.append(self.alphas_cumprod[1:], 0.0),
            "sqrt_alphas_cumprod": np.sqrt(self.alphas_cumprod),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - self.alphas_cumprod),
            "log_one_minus_alphas_cumprod": np.log(1.0 - self.alphas_cumprod),
            "sqrt_recip_alphas_cumprod": np.sqrt(1.0 / self.alphas_cumprod),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1.0 / self.alphas_cumprod - 1.0),
            "posterior_mean_coef1": self.posterior_mean_coef1,
            "posterior_mean_coef2": self.posterior_mean_coef2,
            "posterior_variance": self.posterior_variance,
            "posterior_log_variance_clipped": self.posterior_log_variance_clipped,
            "log_betas": np.log(betas),
            "fixed_large_log_variance": fixed_large_log_variance,
            "original_timestep": np.array(self.timestep_map, dtype=np.float64),
        }
        self._on_device: dict[tuple[str, torch.device], Tensor] = {}

    def at(self, table: str, t: Tensor, like: Tensor) -> Tensor:
        """Entries of a table at t [N], gathered in float64, then float32 and shaped to broadcast over `like`."""
        return self._gather(table, t).reshape(-1, *[1] * (like.ndim - 1))

    def _gather(self, table: str, t: Tensor) -> Tensor:
        key = (table, t.device)
        if key not in self._on_device:
            self._on_device[key] = torch.from_numpy(self._tables[table]).to(t.device)
        return self._on_device[key][t].to(torch.float32)

    def respaced(self, spacing: str) -> "GaussianDiffusion":
        """The chain over a subset of the timesteps, `spacing` as in `space_timesteps`."""
        return self.keeping(space_timesteps(self.timesteps, spacing))

    def keeping(self, kept: list[int]) -> "GaussianDiffusion":
        """The chain that visits only the timesteps `kept`, ascending; alpha-bar is the same there (eq. 19)."""
        return GaussianDiffusion(
            respaced_betas(self.betas, kept),
            mean=self.mean,
            variance=self.variance,
            rescale_timesteps=self.rescale_timesteps,
            timestep_map=[self.timestep_map[i] for i in kept],
            original_timesteps=self.original_timesteps,
        )

    def model_timestep(self, t: Tensor) -> Tensor:
        """What the network is told, float32 [N]: the original timestep, in units of T = 1000 if rescaled."""
        original = self._gather("original_timestep", t)
        return original * (1000.0 / self.original_timesteps) if self.rescale_timesteps else original

    def q_sample(self, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_start), eq. 9."""
        signal = self.at("sqrt_alphas_cumprod", t, x_start)
        return signal * x_start + self.at("sqrt_one_minus_alphas_cumprod", t, x_start) * noise

    def q_posterior(self, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [N, C, H, W] and clipped log variance [N, 1, 1, 1] of q(x_{t-1} | x_t, x_start), eq. 10-12."""
        mean = self.at("posterior_mean_coef1", t, x_t) * x_start + self.at("posterior_mean_coef2", t, x_t) * x_t
        return mean, self.at("posterior_log_variance_clipped", t, x_t)

    def x_start_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Solve eq. 9 for x_start."""
        return self.at("sqrt_recip_alphas_cumprod", t, x_t) * x_t - self.at("sqrt_recipm1_alphas_cumprod", t, x_t) * eps

    def eps_from_x_start(self, x_t: Tensor, t: Tensor, x_start: Tensor) -> Tensor:
        """Solve eq. 9 for the noise."""
        scaled = self.at("sqrt_recip_alphas_cumprod", t, x_t) * x_t
        return (scaled - x_start) / self.at("sqrt_recipm1_alphas_cumprod", t, x_t)

    def log_variance(self, output: Tensor | None, t: Tensor, like: Tensor) -> Tensor:
        """Log variance of p(x_{t-1} | x_t), shape of `like`; `output` is the network's variance channels."""
        if self.variance is Variance.LEARNED:
            assert output is not None
            return output
        if self.variance is Variance.LEARNED_RANGE:
            assert output is not None
            fraction = (output + 1.0) / 2.0  # eq. 15: interpolate log variances; v is not squashed
            largest = self.at("log_betas", t, like)
            return fraction * largest + (1.0 - fraction) * self.at("posterior_log_variance_clipped", t, like)
        large = self.variance is Variance.FIXED_LARGE
        table = "fixed_large_log_variance" if large else "posterior_log_variance_clipped"
        return self.at(table, t, like).expand_as(like)

    def split_output(self, output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
        """The network's output as (mean channels, variance channels or None); refuses a wrong channel count."""
        expected = 2 * channels if self.variance.learned else channels
        if output.shape[1] != expected:
            raise ValueError(
                f"variance {self.variance.value} needs {expected} output channels, the network gave {output.shape[1]}"
            )
        return (output[:, :channels], output[:, channels:]) if self.variance.learned else (output, None)

    def reverse_step(self, output: Tensor, x_t: Tensor, t: Tensor, *, clip: bool) -> ReverseStep:
        """p(x_{t-1} | x_t) from the network's output; `clip` limits x_start to [-1, 1] before the mean."""
        mean_output, variance_output = self.split_output(output, x_t.shape[1])
        x_start = self.x_start_from_eps(x_t, t, mean_output) if self.mean is Mean.EPS else mean_output
        if clip:
            x_start = x_start.clamp(-1.0, 1.0)
        log_variance = self.log_variance(variance_output, t, x_t)
        variance = torch.exp(log_variance)
        if self.variance is Variance.FIXED_SMALL:  # truly 0 at t = 0, where the log variance is a stand-in
            variance = self.at("posterior_variance", t, x_t).expand_as(x_t)
        return ReverseStep(self.q_posterior(x_start, x_t, t)[0], variance, log_variance, x_start)

    def prior_bits_per_dim(self, x_start: Tensor) -> Tensor:
        """KL(q(x_T | x_start) || N(0, I)), bits per dimension, shape [N]: the part of the bound not trained."""
        t = torch.full((len(x_start),), self.timesteps - 1, dtype=torch.int64, device=x_start.device)
        mean = self.at("sqrt_alphas_cumprod", t, x_start) * x_start
        log_variance = self.at("log_one_minus_alphas_cumprod", t, x_start)
        kl = 0.5 * (-1.0 - log_variance + torch.exp(log_variance) + mean**2)
        return kl.flatten(1).mean(1) / math.log(2.0)
