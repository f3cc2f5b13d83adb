"""Philox against its published vectors, and independence from everything but the position."""

import pytest
import torch

from iddpm.randomness import PositionalRandom, philox4x32

POSITIONS = torch.tensor([0, 1, 2, 12_345_678_901, 2**62])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known-answer vectors of the Random123 library
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    out = philox4x32([torch.tensor([value]) for value in counter], (key[0], key[1]))
    assert [int(part) for part in out] == expected


def test_depends_on_position_alone() -> None:
    random = PositionalRandom(3, "noise")
    together = random.normal(POSITIONS, (3, 5, 5), draw=7)
    apart = torch.cat([random.normal(position[None], (3, 5, 5), draw=7) for position in POSITIONS])
    assert torch.equal(together, apart)
    assert torch.equal(random.uniform(POSITIONS.flip(0)).flip(0), random.uniform(POSITIONS))


@pytest.mark.parametrize("other", [(4, "noise", 7), (3, "other", 7), (3, "noise", 8)])
def test_seed_purpose_and_draw_differ(other: tuple[int, str, int]) -> None:
    seed, purpose, draw = other
    ours = PositionalRandom(3, "noise").normal(POSITIONS, (64,), draw=7)
    theirs = PositionalRandom(seed, purpose).normal(POSITIONS, (64,), draw=draw)
    assert (ours != theirs).double().mean() > 0.99


def test_normal_moments() -> None:
    values = PositionalRandom(0, "moments").normal(torch.arange(2000), (101,)).double()
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.05
    neighbours = torch.corrcoef(values[:2].repeat(1, 1))[0, 1]
    assert abs(neighbours) < 0.4


def test_uniform_covers_the_interval_evenly() -> None:
    values = PositionalRandom(0, "uniform").uniform(torch.arange(40_000))
    assert values.min() >= 0 and values.max() < 1
    counts = torch.histc(values, 20, 0, 1)
    assert (counts - 2000).abs().max() < 200


def test_permutation() -> None:
    random = PositionalRandom(0, "order")
    first, second = random.permutation(1000, 0), random.permutation(1000, 1)
    assert sorted(first.tolist()) == list(range(1000))
    assert torch.equal(first, random.permutation(1000, 0))
    assert (first == second).sum() < 20
