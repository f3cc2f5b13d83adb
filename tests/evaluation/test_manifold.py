"""Neighbours and what is counted with them, against prdc and against integer arithmetic."""

from collections.abc import Callable

import numpy as np
import prdc
import pytest
import torch
from torch import Tensor

from iddpm.evaluation import manifold
from iddpm.evaluation.manifold import Comparison, compare
from iddpm.randomness import PositionalRandom

FOUR = ("precision", "recall", "density", "coverage")


def means(found: Comparison) -> dict[str, float]:
    return {name: float(getattr(found, name).mean()) for name in FOUR}


def continuous() -> tuple[Tensor, Tensor]:
    """Samples and a reference, far from 0."""
    generator = np.random.default_rng(1)
    sets = generator.normal(100.3, 0.9, size=(250, 8)), generator.normal(100, 1, size=(300, 8))
    return torch.tensor(sets[0], dtype=torch.float32), torch.tensor(sets[1], dtype=torch.float32)


def lattice() -> tuple[Tensor, Tensor]:
    """Grey levels, so that many distances are equal, and some samples are reference images."""
    generator = np.random.default_rng(2)
    sets = [generator.integers(0, 9, size=(count, 6)) for count in (150, 200)]
    sets[0][:5] = sets[1][:5]
    return torch.tensor(sets[0], dtype=torch.float32) / 16, torch.tensor(sets[1], dtype=torch.float32) / 16


@pytest.mark.parametrize("neighbours", [1, 3, 7])
def test_equals_prdc(neighbours: int) -> None:
    samples, reference = continuous()
    expected = prdc.compute_prdc(reference.double().numpy(), samples.double().numpy(), nearest_k=neighbours)
    assert means(compare(samples, reference, neighbours, None, 0)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tile", [(7, 11), (64, 1000), (1024, 4096)])
def test_equals_integer_arithmetic_with_ties_whatever_the_tiles(
    tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifold, "ROWS", tile[0])
    monkeypatch.setattr(manifold, "COLUMNS", tile[1])
    samples, reference = lattice()
    found = compare(samples, reference, 3, None, 0)

    drawn, real = ((x * 16).round().long() for x in (samples, reference))
    within, to_drawn, to_real = (
        (a[:, None] - b[None]).square().sum(2) for a, b in ((drawn, real), (drawn, drawn), (real, real))
    )
    drawn_reach, real_reach = (x.sort(dim=1).values[:, 3] for x in (to_drawn, to_real))
    assert (within == real_reach).sum() > 20 and (within == drawn_reach[:, None]).sum() > 20
    assert torch.equal(found.precision.bool(), (within <= real_reach).any(1))
    assert torch.equal(found.density * 3, (within <= real_reach).sum(1).double())
    assert torch.equal(found.recall.bool(), (within <= drawn_reach[:, None]).any(0))
    assert torch.equal(found.coverage.bool(), (within <= real_reach).any(0))
    powers = torch.arange(len(drawn))[:, None] ** torch.arange(3)
    assert torch.equal(found.holders.long(), powers.T @ (within <= real_reach).long())

    ordered = within.sort(dim=1, stable=True)
    assert torch.equal(found.nearest.indices, ordered.indices[:, :5])
    assert torch.allclose(found.nearest.distances * 16, ordered.values[:, :5].double().sqrt(), atol=1e-12)
    assert (found.nearest.distances[:5, 0] == 0).all()
    own = to_real.fill_diagonal_(10**6)
    assert torch.allclose(found.own_distance * 16, own[ordered.indices[:, 0]].amin(1).double().sqrt(), atol=1e-12)
    assert torch.equal(found.left_out.indices, own.sort(dim=1, stable=True).indices[:, :3])


def test_results_do_not_depend_on_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, reference = continuous()
    whole = compare(samples, reference, 3, 100, 5)
    monkeypatch.setattr(manifold, "ROWS", 13)
    monkeypatch.setattr(manifold, "COLUMNS", 29)
    parts = compare(samples, reference, 3, 100, 5)
    for name in (*FOUR, "chosen", "recall_without", "holders"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    assert torch.equal(whole.nearest.indices, parts.nearest.indices)
    assert torch.equal(whole.left_out.indices, parts.left_out.indices)
    assert torch.allclose(whole.own_distance, parts.own_distance, rtol=1e-12)


@pytest.mark.parametrize("sets", [continuous, lattice])
@pytest.mark.parametrize("chosen", [None, 90])
def test_recall_without_a_third_is_that_of_the_other_samples(
    sets: Callable[[], tuple[Tensor, Tensor]], chosen: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where many samples are the same, and are thus each other's nearest."""
    monkeypatch.setattr(manifold, "PAIRS_AT_ONCE", 10)
    samples, reference = sets()
    samples[20:60] = samples[60:100]
    samples[100:120] = samples[120]
    whole = compare(samples, reference, 3, chosen, 4)
    random, found = PositionalRandom(4, "evaluation/manifold/thirds"), []
    for partition in range(7):
        third = random.permutation(len(samples), partition) % 3
        found.append([means(compare(samples[third != out], reference, 3, chosen, 4))["recall"] for out in range(3)])
    assert np.allclose(whole.recall_without, found, rtol=0, atol=1e-12)
    assert np.std(found) > 0


def test_manifold_reference_limits_the_four_scores_alone() -> None:
    samples, reference = continuous()
    everything, some = compare(samples, reference, 3, None, 0), compare(samples, reference, 3, 120, 0)
    assert len(some.chosen.unique()) == 120
    alone = compare(samples, reference[some.chosen], 3, None, 0)
    assert means(some) == pytest.approx(means(alone), abs=1e-12)
    assert means(some) != pytest.approx(means(everything), abs=1e-12)
    assert torch.equal(some.nearest.indices, everything.nearest.indices)
    assert torch.equal(some.own_distance, everything.own_distance)
    assert torch.equal(some.left_out.indices, everything.left_out.indices[some.chosen])
    assert not torch.equal(some.chosen, compare(samples, reference, 3, 120, 1).chosen)


def test_fewer_reference_images_than_are_shown() -> None:
    samples, reference = continuous()
    assert compare(samples, reference[:4], 3, None, 0).nearest.indices.shape == (250, 4)


def test_too_few_images_are_refused() -> None:
    samples, reference = continuous()
    with pytest.raises(ValueError, match="neighbours: 5 neighbours need more than 5 samples"):
        compare(samples[:5], reference, 5, None, 0)
    with pytest.raises(ValueError, match="neighbours: 5 neighbours need more than 5 reference images"):
        compare(samples, reference, 5, 5, 0)
    with pytest.raises(ValueError, match="manifold_reference: 301 is more than the 300 reference images"):
        compare(samples, reference, 5, 301, 0)
