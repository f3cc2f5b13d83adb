"""Which timesteps a training step visits, and the weights that keep the loss unbiased."""

from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor


class TimestepSampling(StrEnum):
    """Names of the timestep samplers."""

    UNIFORM = "uniform"
    LOSS_SECOND_MOMENT = "loss_second_moment"


class TimestepSampler(Protocol):
    """A distribution over timesteps that may learn from the losses seen."""

    def probabilities(self) -> Tensor:
        """float64 [T], sums to 1."""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take in the unweighted losses [N] of a global batch at timesteps t [N], in batch order.

        Those that are not finite are left out: one would decide all later probabilities.
        """

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


def draw_timesteps(sampler: TimestepSampler, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Timesteps int64 [N] for uniforms [N] in [0, 1), and loss weights 1 / (T p) float32 [N].

    Computed on the CPU, so that every device draws the same timesteps.
    """
    probabilities = sampler.probabilities()
    cumulative = probabilities.cumsum(0)
    t = torch.searchsorted(cumulative, uniforms.cpu() * cumulative[-1], right=True).clamp(max=len(probabilities) - 1)
    weights = (1.0 / (len(probabilities) * probabilities[t])).to(torch.float32)
    return t.to(uniforms.device), weights.to(uniforms.device)


class UniformSampler:
    """Every timestep equally often."""

    def __init__(self, timesteps: int) -> None:
        self._probabilities = torch.full((timesteps,), 1.0 / timesteps, dtype=torch.float64)

    def probabilities(self) -> Tensor:
        return self._probabilities

    def update(self, t: Tensor, losses: Tensor) -> None:
        pass

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


class LossSecondMomentSampler:
    """Importance sampling with p_t proportional to sqrt(E[L_t^2]) (paper, eq. 18).

    Keeps the last `history` losses of each timestep; uniform until every timestep has that many, then mixed
    with `uniform_probability` of the uniform distribution.
    """

    def __init__(self, timesteps: int, history: int = 10, uniform_probability: float = 0.001) -> None:
        self.uniform_probability = uniform_probability
        self._losses = torch.zeros(timesteps, history, dtype=torch.float64)
        self._counts = torch.zeros(timesteps, dtype=torch.int64)

    @property
    def warmed_up(self) -> bool:
        return bool((self._counts >= self._losses.shape[1]).all())

    def probabilities(self) -> Tensor:
        timesteps = len(self._counts)
        uniform = torch.full((timesteps,), 1.0 / timesteps, dtype=torch.float64)
        if not self.warmed_up:
            return uniform
        weights = torch.sqrt((self._losses**2).mean(1))
        return weights / weights.sum() * (1 - self.uniform_probability) + uniform * self.uniform_probability

    def update(self, t: Tensor, losses: Tensor) -> None:
        history = self._losses.shape[1]
        t, losses = t.cpu(), losses.detach().cpu().to(torch.float64)
        t, losses = t[torch.isfinite(losses)], losses[torch.isfinite(losses)]
        order = torch.argsort(t, stable=True)
        sorted_t, sorted_losses = t[order], losses[order]
        visits = torch.bincount(sorted_t, minlength=len(self._counts))
        nth_visit = torch.arange(len(sorted_t)) - (visits.cumsum(0) - visits)[sorted_t]
        recent = nth_visit >= visits[sorted_t] - history  # more visits than slots: the last ones stay
        slot = (self._counts[sorted_t] + nth_visit) % history
        self._losses[sorted_t[recent], slot[recent]] = sorted_losses[recent]
        self._counts += visits

    def state_dict(self) -> dict[str, Tensor]:
        return {"losses": self._losses.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._losses.copy_(state["losses"])
        self._counts.copy_(state["counts"])


def make_timestep_sampler(kind: TimestepSampling, timesteps: int) -> TimestepSampler:
    """The sampler of that name, fresh."""
    return UniformSampler(timesteps) if kind is TimestepSampling.UNIFORM else LossSecondMomentSampler(timesteps)
