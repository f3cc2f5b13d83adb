"""Noise schedules and respacing. Tables are float64 numpy arrays; timesteps are 0-based."""

import math
import re

import numpy as np
import numpy.typing as npt

FloatTable = npt.NDArray[np.float64]


def linear_betas(timesteps: int, start: float | None = None, end: float | None = None) -> FloatTable:
    """Betas evenly spaced from `start` to `end`, shape [T].

    Without endpoints, the 1e-4 .. 0.02 of Ho et al. at T = 1000, scaled by 1000/T so that another T
    reaches the same noise level. With endpoints (the coursework's T = 100 has 4e-4 .. 0.18) both are needed.
    ValueError says what keeps the betas from rising within (0, 1).
    """
    scale = 1000 / timesteps
    first = scale * 1e-4 if start is None else start
    last = scale * 0.02 if end is None else end
    if first > last:
        raise ValueError(f"beta_start = {first:g} is more than beta_end = {last:g}; betas rise")
    if not 0 < first <= last < 1:
        cause = f": T = {timesteps} is too short without beta_start and beta_end; more than 20 will do"
        raise ValueError(f"betas from {first:g} to {last:g} do not lie in (0, 1){cause if end is None else ''}")
    return np.linspace(first, last, timesteps, dtype=np.float64)


def cosine_betas(timesteps: int, offset: float = 0.008, max_beta: float = 0.999) -> FloatTable:
    """Cosine schedule (Nichol & Dhariwal 2021, eq. 17), shape [T]; only the last beta meets `max_beta`."""

    def f(fraction: float) -> float:
        return math.cos((fraction + offset) / (1 + offset) * math.pi / 2) ** 2

    return np.array(
        [min(1 - f((i + 1) / timesteps) / f(i / timesteps), max_beta) for i in range(timesteps)], dtype=np.float64
    )


def space_timesteps(timesteps: int, spacing: str) -> list[int]:
    """The original timesteps that a respaced chain keeps, ascending.

    `spacing` is a comma-separated list of section counts ("250", or "10,8,6": the first count is for the
    section nearest to the data), or "ddimN" for N steps of one integer stride (Song et al. 2020).
    Raises ValueError naming the spacing when it cannot be met.
    """
    if not re.fullmatch(r"(ddim)?[0-9]+|[0-9]+(,[0-9]+)*", spacing):
        raise ValueError(f"{spacing!r} is neither a step count, nor section counts 'a,b,c', nor 'ddimN'")
    if spacing.startswith("ddim"):
        count = int(spacing.removeprefix("ddim"))
        for whole in range(1, timesteps + 1):
            if len(range(0, timesteps, whole)) == count:
                return list(range(0, timesteps, whole))
        raise ValueError(f"{spacing!r}: no integer stride gives exactly {count} of {timesteps} timesteps")
    counts = [int(part) for part in spacing.split(",")]
    size, remainder = divmod(timesteps, len(counts))
    kept: set[int] = set()
    start = 0
    for section, count in enumerate(counts):
        length = size + (1 if section < remainder else 0)
        if not 1 <= count <= length:
            raise ValueError(f"{spacing!r}: cannot take {count} steps from a section of {length} of T = {timesteps}")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):  # accumulated, not multiplied: the rounding of the original code
            kept.add(start + round(position))
            position += stride
        start += length
    return sorted(kept)


def respaced_betas(betas: FloatTable, kept: list[int]) -> FloatTable:
    """Betas of the chain that visits only `kept`: its alpha-bar equals the original's there (eq. 19)."""
    alphas_cumprod = np.cumprod(1.0 - betas)[kept]
    previous = np.append(1.0, alphas_cumprod[:-1])
    respaced: FloatTable = 1.0 - alphas_cumprod / previous
    return respaced
