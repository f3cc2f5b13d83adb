"""Improved precision and recall (Kynkaanniemi et al. 2019): exact, blockwise, in bounded memory."""

import torch
from torch import Tensor

BLOCK = 1024


def precision_recall(samples: Tensor, reference: Tensor, neighbours: int) -> tuple[float, float]:
    """Precision and recall of features [N, D] and [M, D] with k = `neighbours`, each in [0, 1].

    Precision is the fraction of samples within the reference's manifold, the union of balls around its
    points that reach the k-th nearest neighbour; recall is the same with the roles exchanged.
    """
    return _covered(samples, reference, neighbours), _covered(reference, samples, neighbours)


def _covered(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    radii = neighbour_distances(manifold, neighbours)
    inside = [
        (torch.cdist(block, manifold, compute_mode="donot_use_mm_for_euclid_dist") <= radii).any(1)
        for block in torch.split(points, BLOCK)
    ]
    return float(torch.cat(inside).double().mean())


def neighbour_distances(points: Tensor, neighbours: int) -> Tensor:
    """Distance of each point [N, D] to its k-th nearest other point, [N]. ValueError with fewer than k + 1 points."""
    if len(points) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more than {len(points)} points")
    distances = [
        torch.cdist(block, points, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(neighbours + 1, dim=1).values
        for block in torch.split(points, BLOCK)
    ]
    return torch.cat(distances)
