"""Improved precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), neighbours.

Exact, in float64, tile by tile: memory does not grow with the product of the set sizes. Squared distances of a tile
come from one matrix product of features seen from the reference's mean, |x|^2 + |y|^2 - 2 x y; where their value
matters (radii, neighbours) they are computed again from the differences.

Balls are closed, and ties count as inside: the squared distance of x and y may exceed a squared radius by
TIE * (|x|^2 + |y|^2), far above the rounding of the product and far below what float32 features tell apart. So
no score depends on the tiles or the order of summation. The products take 2 D (N^2 + M^2 + N M) floating-point
operations for N samples and M reference images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from iddpm.randomness import PositionalRandom

NEAREST = 5
"""Reference images found for every sample."""
ROWS, COLUMNS = 1024, 4096
TIE = 1e-10
SPARE = 3
"""Candidates beyond those asked for, so that where the last few tie the lowest index comes first. Where more tie, as
identical images do, which of them are listed is left open; no distance depends on it."""
THIRDS, PARTITIONS = 3, 7
"""The samples are parted so many times at random into thirds, each of which is left out."""
PAIRS_AT_ONCE = 1 << 16


class Neighbours(NamedTuple):
    """Indices int64 [N, k] of the nearest points, nearest first, and their distances float64 [N, k]."""

    indices: Tensor
    distances: Tensor


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two sets of features compared by their neighbours; the four scores are means of their tensors."""

    precision: Tensor
    """Float64 [N]: 1 where the sample lies in the reference's manifold, the balls that reach the k-th neighbour."""
    density: Tensor
    """Float64 [N]: how many of these balls hold the sample, divided by k."""
    recall: Tensor
    """Float64 [R]: 1 where the reference image lies in the samples' manifold."""
    coverage: Tensor
    """Float64 [R]: 1 where the reference image's ball holds a sample."""
    nearest: Neighbours
    """Of each sample among all reference images: max(NEAREST, k), or as many as there are."""
    own_distance: Tensor
    """Float64 [N]: from the sample's nearest reference image to that one's nearest other reference image."""
    chosen: Tensor
    """Int64 [R]: the reference images of the four scores."""
    left_out: Neighbours
    """Of each of them among all other reference images: k."""
    recall_without: Tensor
    """Float64 [PARTITIONS, THIRDS]: the mean of recall without each third of the samples."""
    holders: Tensor
    """Float64 [3, R]: how many samples each reference image's ball holds; the sum of their places; that of squares.

    Of one or two samples the three tell which they are.
    """


def compare(samples: Tensor, reference: Tensor, neighbours: int, chosen: int | None, seed: int) -> Comparison:
    """Compare features [N, D] and [M, D] with k = `neighbours`.

    Precision, recall, density and coverage take the first `chosen` images of a seeded permutation of the reference
    (None: all); others part the samples. ValueError with fewer than k + 1 images on a side.
    """
    used = len(reference) if chosen is None else chosen
    _refuse_too_few(len(samples), len(reference), used, neighbours)
    centre = torch.stack([block.double().sum(0) for block in torch.split(reference, COLUMNS)]).sum(0) / len(reference)
    order = _order(len(reference), used, seed).to(reference.device)
    real, real_chosen = _Points(reference, centre, order), _Points(reference, centre, order[:used])
    drawn = _Points(samples, centre, torch.arange(len(samples), device=samples.device))

    among_chosen = _neighbours(real_chosen, real_chosen, neighbours, others=True)
    # So many that k of them are left without any third, but for one set in a million.
    among_drawn = _neighbours(drawn, drawn, min(4 * neighbours + 20, len(samples) - 1), others=True)
    thirds = _thirds(among_drawn, neighbours, seed)
    balls = _Balls(drawn, real, among_drawn.distances[:, neighbours - 1], among_chosen.distances[:, -1], thirds)
    nearest = _neighbours(drawn, real, max(NEAREST, neighbours), balls=balls)

    # The sorted reference images whose own neighbours are asked for: all of them, if all are chosen.
    first = nearest.indices[:, 0].contiguous()
    asked = torch.unique(torch.cat([first, real_chosen.order]))
    left_out = among_chosen
    if used < len(reference):
        left_out = _neighbours(_Points(reference, centre, asked), real, neighbours, others=True)
    row = torch.searchsorted(asked, real_chosen.order)
    return Comparison(
        precision=(balls.holding > 0).double(),
        density=balls.holding.double() / neighbours,
        recall=balls.recalled.double(),
        coverage=(balls.holders[0] > 0).double(),
        nearest=nearest,
        own_distance=left_out.distances[torch.searchsorted(asked, first), 0],
        chosen=real_chosen.order,
        left_out=Neighbours(left_out.indices[row], left_out.distances[row]),
        recall_without=balls.recalled_without.double().mean(1).view(PARTITIONS, THIRDS),
        holders=balls.holders,
    )


def _refuse_too_few(samples: int, reference: int, chosen: int, neighbours: int) -> None:
    if chosen > reference:
        raise ValueError(f"manifold_reference: {chosen} is more than the {reference} reference images")
    for count, name in ((samples, "samples"), (chosen, "reference images")):
        if count <= neighbours:
            raise ValueError(f"neighbours: {neighbours} neighbours need more than {count} {name}")


def _order(count: int, used: int, seed: int) -> Tensor:
    """Reference images with the chosen ones first."""
    if used == count:
        return torch.arange(count)
    return PositionalRandom(seed, "evaluation/manifold").permutation(count, 0)


class _Points:
    """Features [N, D] in an order, seen from a centre, converted to float64 block by block."""

    def __init__(self, features: Tensor, centre: Tensor, order: Tensor) -> None:
        self.features, self.centre, self.order = features, centre, order
        self.squares = torch.cat([self.block(part).square().sum(1) for part in torch.split(order, COLUMNS)])

    def block(self, indices: Tensor) -> Tensor:
        return self.features[indices].double() - self.centre

    def parts(self, size: int) -> Iterator[slice]:
        """Places in the order, block by block."""
        return (slice(first, min(first + size, len(self.order))) for first in range(0, len(self.order), size))


def _tiles(rows: _Points, place: slice, columns: _Points) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of some rows to all columns: tiles [rows, columns] with the columns' place."""
    block = rows.block(rows.order[place])
    for part in columns.parts(COLUMNS):
        points = columns.block(columns.order[part])
        yield part, torch.addmm(columns.squares[part], block, points.T, alpha=-2).add_(rows.squares[place, None])


class _Closest:
    """The points closest to some rows, over tiles that come one after another."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.squared: list[Tensor] = []
        self.indices: list[Tensor] = []

    def add(self, squared: Tensor, indices: Tensor) -> None:
        near = squared.topk(min(self.count, squared.shape[1]), dim=1, largest=False)
        self.squared.append(near.values)
        self.indices.append(indices[near.indices])

    def neighbours(self, block: Tensor, points: _Points, count: int) -> Neighbours:
        """The `count` nearest, with distances from differences; ties among the candidates in order of the indices."""
        squared, indices = torch.cat(self.squared, 1), torch.cat(self.indices, 1)
        kept = squared.topk(min(self.count, squared.shape[1]), dim=1, largest=False).indices
        indices = indices.gather(1, kept).sort(dim=1).values
        columns = [(block - points.block(column)).square().sum(1) for column in indices.unbind(1)]
        distances = torch.stack(columns, 1).sqrt()
        # float32 makes equal what differs by the rounding of float64 alone
        nearest = distances.float().sort(dim=1, stable=True).indices[:, :count]
        return Neighbours(indices.gather(1, nearest), distances.gather(1, nearest))


def _thirds(nearest: Neighbours, neighbours: int, seed: int) -> Tensor:
    """Squared radii float64 [N, PARTITIONS * THIRDS] of samples' balls without each third; -inf of its own samples.

    `nearest` are each sample's nearest others. Where fewer than k of these are left, the farthest stands in.
    """
    (count, candidates), reaches = nearest.indices.shape, []
    random = PositionalRandom(seed, "evaluation/manifold/thirds")
    for partition in range(PARTITIONS):
        third = random.permutation(count, partition).to(nearest.indices.device) % THIRDS
        for out in range(THIRDS):
            left = (third[nearest.indices] != out).cumsum(1)
            place = (left < neighbours).sum(1, keepdim=True).clamp(max=candidates - 1)
            reaches.append(nearest.distances.gather(1, place).square()[:, 0].masked_fill(third == out, -torch.inf))
    return torch.stack(reaches, 1)


class _Balls:
    """Which samples and chosen reference images (the first of the reference) lie in whose ball."""

    def __init__(
        self, drawn: _Points, real: _Points, drawn_radii: Tensor, real_radii: Tensor, reach_without: Tensor
    ) -> None:
        self.drawn, self.real = drawn, real
        self.drawn_reach, self.real_reach = drawn_radii.square(), real_radii.square()
        self.reach_without, self.furthest = reach_without, reach_without.amax(1, keepdim=True)
        self.powers = torch.vander(drawn.order.double(), 3, increasing=True).T.contiguous()
        self.holding = torch.zeros_like(self.drawn_reach, dtype=torch.int32)
        self.holders = self.powers.new_zeros(3, len(real_radii))
        self.recalled = torch.zeros_like(self.real_reach, dtype=torch.bool)
        self.recalled_without = self.recalled.repeat(reach_without.shape[1], 1)

    def add(self, squared: Tensor, place: slice, columns: slice) -> None:
        """A tile of samples at `place` and reference images at `columns`."""
        columns = slice(columns.start, min(columns.stop, len(self.real_reach)))
        if columns.start < columns.stop:
            slack = TIE * (self.drawn.squares[place, None] + self.real.squares[columns])
            squared = squared[:, : columns.stop - columns.start] - slack
            within = squared <= self.real_reach[columns]
            self.holding[place] += within.sum(1, dtype=torch.int32)
            self.holders[:, columns] += self.powers[:, place] @ within.double()
            self.recalled[columns] |= (squared <= self.drawn_reach[place, None]).any(0)
            self._recall_without(squared, place, columns)

    def _recall_without(self, squared: Tensor, place: slice, columns: slice) -> None:
        """Whatever third is left out, most images are soon known to be recalled; then few pairs are near enough."""
        in_doubt = ~self.recalled_without[:, columns].all(0)
        for pairs in torch.split(((squared <= self.furthest[place]) & in_doubt).nonzero(), PAIRS_AT_ONCE):
            row, column = pairs.unbind(1)
            pair, third = (squared[row, column, None] <= self.reach_without[place][row]).nonzero(as_tuple=True)
            self.recalled_without[third, columns.start + column[pair]] = True


def _neighbours(
    rows: _Points, points: _Points, count: int, *, others: bool = False, balls: _Balls | None = None
) -> Neighbours:
    """The `count` points nearest to each row; with `others` a row, which is among the points, leaves itself out."""
    candidates = min(count + SPARE, len(points.order) - others)
    parts = []
    for place in rows.parts(ROWS):
        closest, own = _Closest(candidates), rows.order[place]
        for columns, squared in _tiles(rows, place, points):
            indices = points.order[columns]
            if others:
                squared.masked_fill_(own[:, None] == indices, torch.inf)
            closest.add(squared, indices)
            if balls is not None:
                balls.add(squared, place, columns)
        parts.append(closest.neighbours(rows.block(own), points, count))
    return Neighbours(torch.cat([part.indices for part in parts]), torch.cat([part.distances for part in parts]))
