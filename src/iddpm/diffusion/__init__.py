"""The mathematics of diffusion: torch and numpy only, no network, no file."""

from iddpm.diffusion.likelihood import BoundTerm, bound_terms, strided_process
from iddpm.diffusion.objectives import IwdiffReduction, Objective, draw_weights, training_losses
from iddpm.diffusion.process import Denoiser, GaussianDiffusion, Mean, Variance
from iddpm.diffusion.sampling import (
    ChainState,
    Handover,
    Sampler,
    ddim_encode,
    hand_over,
    reverse_chain,
    surrogate_start,
    truncated_process,
    upper_process,
)
from iddpm.diffusion.schedules import cosine_betas, linear_betas, space_timesteps
from iddpm.diffusion.timestep_samplers import TimestepSampler, TimestepSampling, draw_timesteps, make_timestep_sampler

__all__ = [
    "BoundTerm",
    "ChainState",
    "Denoiser",
    "GaussianDiffusion",
    "Handover",
    "IwdiffReduction",
    "Mean",
    "Objective",
    "Sampler",
    "TimestepSampler",
    "TimestepSampling",
    "Variance",
    "bound_terms",
    "cosine_betas",
    "ddim_encode",
    "draw_timesteps",
    "draw_weights",
    "hand_over",
    "linear_betas",
    "make_timestep_sampler",
    "reverse_chain",
    "space_timesteps",
    "strided_process",
    "surrogate_start",
    "training_losses",
    "truncated_process",
    "upper_process",
]
