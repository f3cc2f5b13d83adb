"""Training objectives. Every loss is per sample, shape [N]; callers weight and average."""

import math
from enum import StrEnum

import torch
from torch import Tensor

from iddpm.diffusion.process import Denoiser, GaussianDiffusion, Mean


class Objective(StrEnum):
    """Which loss trains the network (paper, section 3; iwdiff: coursework)."""

    SIMPLE = "simple"
    HYBRID = "hybrid"
    VLB = "vlb"
    IWDIFF = "iwdiff"

    @property
    def trains_variance(self) -> bool:
        """Whether a learned variance gets a gradient."""
        return self in (Objective.HYBRID, Objective.VLB)


class IwdiffReduction(StrEnum):
    """How IWDiff's weights reduce squared errors over the dimensions."""

    MEAN = "mean"
    SUM = "sum"


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N1 || N2) per element, nats."""
    return 0.5 * (
        -1.0
        + log_variance2
        - log_variance1
        + torch.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    )


def _approx_standard_normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretized_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability, nats per element, of the grey level of x under a Gaussian integrated over its bin.

    x comes from 8-bit images scaled to [-1, 1] (Ho et al. 2020, eq. 13): bins reach 1/255 to either side,
    the outermost ones to infinity. `log_scale` is the log standard deviation.
    """
    inverse_scale = torch.exp(-log_scale)
    cdf_upper = _approx_standard_normal_cdf(inverse_scale * (x - mean + 1.0 / 255.0))
    cdf_lower = _approx_standard_normal_cdf(inverse_scale * (x - mean - 1.0 / 255.0))
    log_upper = torch.log(cdf_upper.clamp(min=1e-12))
    log_above = torch.log((1.0 - cdf_lower).clamp(min=1e-12))
    log_bin = torch.log((cdf_upper - cdf_lower).clamp(min=1e-12))
    return torch.where(x < -0.999, log_upper, torch.where(x > 0.999, log_above, log_bin))


def vb_term(
    process: GaussianDiffusion, output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor, *, clip: bool
) -> tuple[Tensor, Tensor]:
    """One term of the variational bound (eq. 4 to 7), bits per dimension, shape [N], and the predicted x_start.

    t = 0 gives the decoder's negative log likelihood, any other t the KL between posterior and p.
    """
    true_mean, true_log_variance = process.q_posterior(x_start, x_t, t)
    step = process.reverse_step(output, x_t, t, clip=clip)
    kl = normal_kl(true_mean, true_log_variance, step.mean, step.log_variance)
    decoder = -discretized_gaussian_log_likelihood(x_start, step.mean, 0.5 * step.log_variance)
    per_sample = torch.where(t == 0, decoder.flatten(1).mean(1), kl.flatten(1).mean(1))
    return per_sample / math.log(2.0), step.x_start


def training_losses(
    process: GaussianDiffusion,
    denoiser: Denoiser,
    x_start: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    objective: Objective,
    vlb_weight: float = 0.001,
) -> dict[str, Tensor]:
    """Losses of x_start [N, C, H, W] in [-1, 1] noised to t [N]: "loss" and its parts "mse", "vb", each [N].

    simple and iwdiff: mse of the predicted noise (or x_start), eq. 14; `draw_weights` makes the difference.
    vlb: T * L_t, the unbiased estimate of the bound from one timestep, in bits per dimension.
    hybrid: mse + vlb_weight * T * L_t, eq. 16, where the mean inside L_t is detached, so that only the variance
    learns from it. `vlb_weight` is the paper's lambda. With t uniform in [0, T), the mean of T * L_t is the sum of
    all terms, the bound L_vlb (without its constant prior), so mse + lambda * T * L_t estimates L_simple + lambda *
    L_vlb without bias. The public code writes the second part as L_t * T / 1000, hence lambda = 0.001 for every T;
    its variant without that factor (weight 1 on L_t, used for the released class-conditional, upsampler and LSUN
    models) is lambda = 1 / T: 0.00025 at T = 4000. T is the length of `process`, respaced or not.
    A fixed variance has nothing to learn from L_t, so hybrid refuses it.
    """
    x_t = process.q_sample(x_start, t, noise)
    output = denoiser(x_t, process.model_timestep(t))
    mean_output, variance_output = process.split_output(output, x_start.shape[1])
    target = noise if process.mean is Mean.EPS else x_start
    losses = {"mse": ((target - mean_output) ** 2).flatten(1).mean(1)}
    if objective is Objective.VLB:
        losses["vb"], _ = vb_term(process, output, x_start, x_t, t, clip=False)
        losses["loss"] = losses["vb"] * process.timesteps
    elif objective is Objective.HYBRID:
        if variance_output is None:
            raise ValueError(f"objective hybrid needs a learned variance, not {process.variance.value}")
        frozen = torch.cat([mean_output.detach(), variance_output], dim=1)
        losses["vb"], _ = vb_term(process, frozen, x_start, x_t, t, clip=False)
        losses["loss"] = losses["mse"] + vlb_weight * process.timesteps * losses["vb"]
    else:
        losses["loss"] = losses["mse"]
    return losses


def draw_weights(
    losses: Tensor, dimensions: int, *, objective: Objective, reduction: IwdiffReduction = IwdiffReduction.MEAN
) -> Tensor:
    """Weights [k, N] of k noise draws for the same images and timesteps, from their losses [k, N]; columns sum to 1.

    iwdiff: softmax over the draws of the squared error, detached (coursework): the harder draws count
    more. Its text sums the squared error over the image's `dimensions`, at which softmax is almost a hard maximum;
    its experiments averaged it, at which the weights are almost equal. `reduction` chooses; the loss that is
    weighed stays the mean over dimensions, so learning rate and gradient clipping keep their meaning.
    Any other objective: 1 / k, plain averaging, which is also iwdiff's control at equal compute.
    """
    if objective is not Objective.IWDIFF:
        return torch.full_like(losses, 1.0 / len(losses))
    scale = dimensions if reduction is IwdiffReduction.SUM else 1
    return torch.softmax(losses.detach() * scale, dim=0)
