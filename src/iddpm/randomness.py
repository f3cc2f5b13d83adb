"""Counter-based random numbers: every value is a pure function of (seed, purpose, position).

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in integer tensor
arithmetic, so a CPU and a GPU draw the same bits, and nothing depends on batch size, worker count or on
what was drawn before. There is no state to save: resuming needs only the position.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

MASK32 = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox4x32(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Ten rounds of Philox on four int64 tensors that hold uint32 values; returns four of the same kind."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # The int64 product wraps, but its 64 bits are those of the unsigned product.
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        high0, high1 = (product0 >> 32) & MASK32, (product1 >> 32) & MASK32
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, product1 & MASK32, high0 ^ c3 ^ k1, product0 & MASK32
        k0, k1 = (k0 + KEY_INCREMENTS[0]) & MASK32, (k1 + KEY_INCREMENTS[1]) & MASK32
    return [c0, c1, c2, c3]


class PositionalRandom:
    """Random numbers for one purpose, addressed by position.

    `seed` is any integer, `purpose` a name such as "training/noise": streams of different purposes are
    independent. A position is a non-negative integer below 2**63 (a sample's index, or its place in the
    global training order); `draw` (below 2**32) tells several draws at one position apart, such as the
    steps of one sample's chain.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
        self._key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))

    def bits(self, positions: Tensor, count: int, draw: int = 0) -> Tensor:
        """Uniform uint32 values as int64, shape [N, count], for int64 positions of shape [N]."""
        blocks = torch.arange((count + 3) // 4, device=positions.device)
        where = positions.to(torch.int64)[:, None]
        counter = [
            part.expand(len(positions), len(blocks))
            for part in (blocks[None, :], torch.full_like(where, draw), where & MASK32, (where >> 32) & MASK32)
        ]
        return torch.stack(philox4x32(counter, self._key), dim=-1).flatten(1)[:, :count]

    def uniform(self, positions: Tensor, draw: int = 0) -> Tensor:
        """One float64 in [0, 1) per position, shape [N]."""
        return self.bits(positions, 1, draw)[:, 0].to(torch.float64) * 2.0**-32

    def normal(self, positions: Tensor, shape: Sequence[int], draw: int = 0) -> Tensor:
        """Standard normal float32, shape [N, *shape]. Box-Muller in float64, so that devices agree."""
        size = math.prod(shape)
        pairs = (size + 1) // 2
        bits = self.bits(positions, 2 * pairs, draw).to(torch.float64)
        radius = torch.sqrt(-2.0 * torch.log((bits[:, :pairs] + 1.0) * 2.0**-32))
        angle = bits[:, pairs:] * (2.0 * math.pi * 2.0**-32)
        values = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :size]
        return values.to(torch.float32).reshape(len(positions), *shape)

    def permutation(self, size: int, position: int) -> Tensor:
        """A permutation of range(size), int64, computed on the CPU from `position` (an epoch, say)."""
        keys = self.bits(torch.tensor([position]), 2 * size)[0].view(2, size)
        # 63-bit sort keys: a tie is improbable, and the stable sort keeps even that deterministic.
        return torch.argsort(((keys[0] >> 1) << 32) | keys[1], stable=True)
