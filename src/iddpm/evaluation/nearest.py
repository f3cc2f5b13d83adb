"""Nearest training neighbours: whether samples are copies of what a model was trained on."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iddpm.evaluation.images import ImageSet

SHOWN = 10
LEFT, HEAD, FIRST_NEIGHBOUR, STEP = 1.1, 0.8, 1.25, (1.08, 1.26)
"""Inches of the figure: left of and above the first sample, to its first neighbour, from one image to the next."""
HASHED_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Nearest:
    """Of each of N samples its nearest reference images in feature space, nearest first."""

    indices: npt.NDArray[np.int64]
    """[N, at most 5]"""
    distances: npt.NDArray[np.float64]
    """[N, at most 5]"""
    ratio: npt.NDArray[np.float64]
    """[N]: distance to the nearest reference image, divided by that image's distance to its nearest other one.

    Below 1 a sample is nearer to that image than any real one is; 0 for no distance at all.
    """
    copies: npt.NDArray[np.bool_]
    """[N]: a reference image has the very same pixels."""


def distance_ratio(distance: npt.NDArray[np.float64], own_distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """distance / own_distance [N]; 0 where both are 0 (a copy of an image that is there twice)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / own_distance)


def identical_images(samples: ImageSet, reference: ImageSet) -> npt.NDArray[np.bool_]:
    """Bool [N]: whether the sample's pixels are those of a reference image. Memory: 100 bytes per reference image."""
    known = set(_digests(reference))
    return np.fromiter((digest in known for digest in _digests(samples)), np.bool_, samples.count)


def _digests(images: ImageSet) -> Iterator[bytes]:
    for batch in images.batches(HASHED_AT_ONCE):
        for image in batch:
            yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def nearest_figure(samples: ImageSet, reference: ImageSet, nearest: Nearest, path: Path) -> None:
    """PNG of the samples with the smallest ratio, each beside its nearest reference images."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = np.argsort(nearest.ratio, kind="stable")[:SHOWN]
    unique, places = np.unique(nearest.indices[shown], return_inverse=True)
    neighbours = reference.take(unique.tolist())[places.reshape(len(shown), -1)]
    rows, columns = neighbours.shape[:2]
    width, height = LEFT + FIRST_NEIGHBOUR + columns * STEP[0], HEAD + rows * STEP[1]
    with matplotlib.rc_context({"font.size": 8, "figure.dpi": 120}):
        figure = Figure(figsize=(width, height))
        # One axis in inches with its origin at the upper left image: 70 axes would take seconds.
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.text(0.1 - LEFT, 0.1 - HEAD, _title(rows, samples.count), va="top")
        axis.text(0, -0.08, "sample")
        axis.text(FIRST_NEIGHBOUR, -0.08, f"its {columns} nearest reference images (index, distance)")
        for row, (sample, image) in enumerate(zip(shown, samples.take(shown.tolist()), strict=True)):
            top = row * STEP[1]
            state = "identical pixels" if nearest.copies[sample] else f"ratio {nearest.ratio[sample]:.3g}"
            axis.text(-0.12, top + 0.5, f"{sample}\n{state}", ha="right", va="center")
            _draw(axis, image, 0, top)
            for column, neighbour in enumerate(neighbours[row]):
                left = FIRST_NEIGHBOUR + column * STEP[0]
                index, distance = nearest.indices[sample, column], nearest.distances[sample, column]
                axis.text(left + 0.5, top + 1.14, f"{index}, {distance:.3g}", ha="center", size=7)
                _draw(axis, neighbour, left, top)
        axis.set(xlim=(-LEFT, width - LEFT), ylim=(height - HEAD, -HEAD), aspect="auto")
        figure.savefig(path, metadata={"Software": None})


def _title(rows: int, count: int) -> str:
    return (
        f"Memorisation check: the {rows} of {count:,} samples closest to a reference image\n"
        "ratio: distance to that image / distance from there to its own nearest other;\n"
        "below 1 a sample is closer to it than any other real image is"
    )


def _draw(axis: Any, image: npt.NDArray[np.uint8], left: float, top: float) -> None:
    """One inch wide and high."""
    place = (left, left + 1, top + 1, top)
    axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=place)
