"""The variational bound of whole images, term by term."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from iddpm.diffusion.objectives import vb_term
from iddpm.diffusion.process import Denoiser, GaussianDiffusion
from iddpm.diffusion.sampling import StepNoise
from iddpm.diffusion.schedules import space_timesteps


class BoundTerm(NamedTuple):
    """The bound at one step: vb in bits per dimension, squared errors of x_start and eps; each [N]."""

    step: int
    vb: Tensor
    x_start_mse: Tensor
    mse: Tensor


def strided_process(process: GaussianDiffusion, steps: int) -> GaussianDiffusion:
    """The chain whose bound needs about `steps` + T / `steps` terms instead of T.

    It keeps `steps` evenly strided timesteps and every one of the first T / `steps`, where most of the bound lies
    (paper, figure 2). A respaced chain is a model of its own: its bound is exact, not an estimate.
    """
    kept = set(space_timesteps(process.timesteps, str(steps))) | set(range(process.timesteps // steps))
    return process.keeping(sorted(kept))


def bound_terms(
    process: GaussianDiffusion, denoiser: Denoiser, x_start: Tensor, noise: StepNoise, *, clip: bool = True
) -> Iterator[BoundTerm]:
    """Every term of the bound of x_start [N, C, H, W] in [-1, 1], from the last step down to 0.

    Total bits/dim (eq. 4) = the sum over vb + `process.prior_bits_per_dim(x_start)`.
    """
    for step in reversed(range(process.timesteps)):
        t = torch.full((len(x_start),), step, dtype=torch.int64, device=x_start.device)
        step_noise = noise(step)
        x_t = process.q_sample(x_start, t, step_noise)
        output = denoiser(x_t, process.model_timestep(t))
        vb, predicted = vb_term(process, output, x_start, x_t, t, clip=clip)
        eps = process.eps_from_x_start(x_t, t, predicted)
        yield BoundTerm(
            step,
            vb,
            ((predicted - x_start) ** 2).flatten(1).mean(1),
            ((eps - step_noise) ** 2).flatten(1).mean(1),
        )
