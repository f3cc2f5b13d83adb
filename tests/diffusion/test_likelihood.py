"""The bound of whole images, over the full chain and over a strided one."""

import pytest
import torch
from torch import Tensor

from iddpm.diffusion import Denoiser, GaussianDiffusion, Variance, bound_terms, cosine_betas, strided_process

from . import gaussian

X = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
NOISE = gaussian.normal(0, 2, 3, 4, 4)


def bits_per_dim(process: GaussianDiffusion, denoiser: Denoiser, x: Tensor) -> float:
    terms = bound_terms(process, denoiser, x, lambda step: gaussian.normal(1 + process.timestep_map[step], *x.shape))
    return float((sum(term.vb for term in terms) + process.prior_bits_per_dim(x)).mean())


def test_bound_is_near_zero_for_the_true_posterior_mean() -> None:
    """With eps known exactly and the posterior variance, every KL term vanishes."""
    process = GaussianDiffusion(cosine_betas(50), variance=Variance.FIXED_SMALL)
    terms = list(bound_terms(process, lambda x, timestep: NOISE, X, lambda step: NOISE, clip=False))
    assert [term.step for term in terms] == list(reversed(range(50)))
    assert all(float(term.vb.abs().max()) < 1e-4 for term in terms[:-1])
    assert float(terms[-1].vb.min()) > 0  # the decoder still has to name one of 256 grey levels


@pytest.mark.parametrize(
    ("steps", "dense", "strided"),
    [(10, 10, [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]), (4, 25, [0, 33, 66, 99]), (50, 2, None)],
)
def test_a_strided_chain_keeps_its_stride_and_the_dense_start(
    steps: int, dense: int, strided: list[int] | None
) -> None:
    """K strided timesteps, and every one of the first T / K."""
    process = GaussianDiffusion(cosine_betas(100))
    chain = strided_process(process, steps)
    kept = set(strided or process.respaced(str(steps)).timestep_map) | set(range(dense))
    assert chain.timestep_map == sorted(kept)
    torch.testing.assert_close(
        torch.tensor(chain.alphas_cumprod), torch.tensor(process.alphas_cumprod)[chain.timestep_map]
    )


def test_as_many_strided_steps_as_there_are_is_the_full_bound() -> None:
    process = gaussian.process(50)
    chain, denoiser = strided_process(process, 50), gaussian.denoiser(process)
    x = gaussian.images(4, 4)
    for strided, full in zip(
        *(bound_terms(p, denoiser, x, lambda step: gaussian.normal(step, *x.shape)) for p in (chain, process)),
        strict=True,
    ):
        assert strided.step == full.step
        torch.testing.assert_close(strided.vb, full.vb, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="51"):
        strided_process(process, 51)


@pytest.mark.parametrize("steps", [None, 10, 25, 50])
def test_a_fixed_variance_bounds_the_true_likelihood_from_above(steps: int | None) -> None:
    process = gaussian.process(100, Variance.FIXED_LARGE)
    chain = strided_process(process, steps) if steps else process
    above = bits_per_dim(chain, gaussian.denoiser(process), gaussian.images(64, 8)) - gaussian.true_bits_per_dim()
    assert 0.05 < above < 0.4


@pytest.mark.parametrize("steps", [None, 10, 25])
def test_the_exact_reverse_process_has_the_true_likelihood(steps: int | None) -> None:
    """Full or strided: a respaced chain is a model of its own, whose exact variance makes its bound tight."""
    process = gaussian.process(100, Variance.LEARNED)
    chain = strided_process(process, steps) if steps else process
    exact = gaussian.with_exact_variance(chain, gaussian.denoiser(process))
    assert bits_per_dim(chain, exact, gaussian.images(256, 8)) == pytest.approx(gaussian.true_bits_per_dim(), abs=0.02)


def test_clipping_bounds_the_predicted_x_start() -> None:
    process = gaussian.process(20)
    far = [
        max(
            float(term.x_start_mse.max())
            for term in bound_terms(process, lambda x, t: x * 3, X, gaussian_noise, clip=c)
        )
        for c in (True, False)
    ]
    assert far[0] <= 4.0 < far[1]


def gaussian_noise(step: int) -> Tensor:
    return gaussian.normal(step, *X.shape)
