"""The mathematics of diffusion: torch and numpy only, no network, no file."""

from iddpm.diffusion.likelihood import BoundTerm, bound_terms
from iddpm.diffusion.objectives import Objective, training_losses
from iddpm.diffusion.process import Denoiser, GaussianDiffusion, Mean, Variance
from iddpm.diffusion.sampling import Sampler, reverse_chain, surrogate_start, truncated_process
from iddpm.diffusion.schedules import cosine_betas, linear_betas, space_timesteps
from iddpm.diffusion.timestep_samplers import TimestepSampler, TimestepSampling, draw_timesteps, make_timestep_sampler

__all__ = [
    "BoundTerm",
    "Denoiser",
    "GaussianDiffusion",
    "Mean",
    "Objective",
    "Sampler",
    "TimestepSampler",
    "TimestepSampling",
    "Variance",
    "bound_terms",
    "cosine_betas",
    "draw_timesteps",
    "linear_betas",
    "make_timestep_sampler",
    "reverse_chain",
    "space_timesteps",
    "surrogate_start",
    "training_losses",
    "truncated_process",
]
