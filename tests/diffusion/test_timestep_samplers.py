"""Importance weights keep the loss unbiased; the history is exact and part of the state."""

import torch

from iddpm.diffusion import TimestepSampling, draw_timesteps, make_timestep_sampler
from iddpm.diffusion.timestep_samplers import LossSecondMomentSampler
from iddpm.randomness import PositionalRandom


def warmed_up() -> LossSecondMomentSampler:
    sampler = LossSecondMomentSampler(8)
    t = torch.arange(8).repeat(12)
    sampler.update(t, (t + 1.0) ** 2)
    return sampler


def test_uniform_until_every_timestep_has_a_full_history() -> None:
    sampler = LossSecondMomentSampler(8)
    for _ in range(9):
        sampler.update(torch.arange(8), torch.arange(8.0))
    sampler.update(torch.arange(7), torch.arange(7.0))
    assert torch.equal(sampler.probabilities(), torch.full((8,), 1 / 8, dtype=torch.float64))
    sampler.update(torch.tensor([7]), torch.tensor([7.0]))
    assert sampler.probabilities()[7] > sampler.probabilities()[1]


def test_weights_are_unbiased() -> None:
    """E[weight * f(t)] over the sampler equals the plain mean of f."""
    sampler = warmed_up()
    t, weights = draw_timesteps(sampler, PositionalRandom(0, "t").uniform(torch.arange(200_000)))
    f = torch.cos(torch.arange(8.0)) + 2
    assert abs(float((weights * f[t]).mean()) - float(f.mean())) < 0.03
    seen = torch.bincount(t, minlength=8) / len(t)
    torch.testing.assert_close(seen.double(), sampler.probabilities(), rtol=0.05, atol=0.003)


def test_a_batch_equals_its_samples_one_by_one() -> None:
    together, apart = LossSecondMomentSampler(4), LossSecondMomentSampler(4)
    t = torch.tensor([0, 1, 0, 2, 3, 0] * 30)
    losses = torch.arange(len(t), dtype=torch.float64)
    together.update(t, losses)
    for one_t, one_loss in zip(t, losses, strict=True):
        apart.update(one_t[None], one_loss[None])
    torch.testing.assert_close(together.probabilities(), apart.probabilities(), rtol=1e-12, atol=0)


def test_state_survives() -> None:
    sampler, other = warmed_up(), LossSecondMomentSampler(8)
    other.load_state_dict(sampler.state_dict())
    for each in (sampler, other):
        each.update(torch.tensor([3, 3]), torch.tensor([9.0, 8.0]))
    assert torch.equal(sampler.probabilities(), other.probabilities())


def test_uniform_covers_all_timesteps() -> None:
    sampler = make_timestep_sampler(TimestepSampling.UNIFORM, 10)
    t, weights = draw_timesteps(sampler, torch.tensor([0.0, 0.05, 0.55, 0.999999999], dtype=torch.float64))
    assert t.tolist() == [0, 0, 5, 9]
    torch.testing.assert_close(weights, torch.ones(4))


def test_a_loss_that_is_not_finite_teaches_nothing() -> None:
    sampler, other = warmed_up(), warmed_up()
    t, losses = torch.tensor([3, 2, 3, 1]), torch.tensor([9.0, float("inf"), float("nan"), 8.0])
    sampler.update(t, losses)
    other.update(t[[0, 3]], losses[[0, 3]])
    assert torch.equal(sampler.probabilities(), other.probabilities())
    assert torch.isfinite(sampler.probabilities()).all()
