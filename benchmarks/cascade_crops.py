"""How sure is it that cascade-small's upsampler is nearer to real crops than interpolation?

    python benchmarks/cascade_crops.py work/siblings/cascade-small

Its test crops overlap, and its number of DDIM steps was chosen on them. So the KID of interpolations above the
upsampler's has a jackknife over bands of the photographs here, and the steps are also chosen on the crops that lie in
one half of the photographs' height and scored on those in the other.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iddpm.data import ShardFolder
from iddpm.data.sources.photos import HEIGHT, Photos
from iddpm.diffusion import Sampler
from iddpm.evaluation.features import open_network
from iddpm.evaluation.kernel import Jackknifed, paired_kernel_distance
from iddpm.params import PhotosDataset, Source, Weights
from iddpm.stages.draw import LowResolution, draw
from iddpm.stages.models import DiffusionModel
from iddpm.stages.reconstruct import INTERPOLATIONS, average_down, features_of, interpolated

CROPS, SIZE = 300, 64
STEPS = (1, 2, 3, 4, 6, 8)
BANDS = 6
"""Of each photograph."""
Rows = np.ndarray[Any, np.dtype[np.int64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="where cascade-small has run")
    clone = parser.parse_args().clone
    images, labels = ShardFolder(clone / "data/shards/crops").read_split("test", CROPS)
    known = _tops()
    tops = np.array([known[image.tobytes()] for image in images])
    bands = labels * BANDS + np.minimum(tops * BANDS // (HEIGHT - SIZE + 1), BANDS - 1)
    features, originals = _features(DiffusionModel(clone / "runs/models/upsampler", Weights.EMA), images, labels)

    everything = np.arange(len(images))
    upper, lower = everything[tops + SIZE <= HEIGHT // 2], everything[tops >= HEIGHT // 2]
    _show("all, 2 steps", everything, features, originals, 2, bands)
    for name, choose, score in (("lower", lower, upper), ("upper", upper, lower)):
        kids = {steps: _kid(features[steps], originals, choose) for steps in STEPS}
        best = min(kids, key=lambda steps: kids[steps])
        found = ", ".join(f"{steps}: {kid:.3f}" for steps, kid in kids.items())
        print(f"KID by steps in the {name} half: {found}")
        _show(f"the other half, {best} steps", score, features, originals, best, bands)


def _tops() -> Mapping[bytes, int]:
    """First rows of the test crops in their photographs, by their pixels: shards are shuffled."""
    photos = Photos(PhotosDataset(source=Source.PHOTOS, size=SIZE))
    tops = photos.corners["test"][:, 0].tolist()
    return {np.ascontiguousarray(photos.read("test", index)[0]).tobytes(): top for index, top in enumerate(tops)}


def _features(model: DiffusionModel, images: Any, labels: Any) -> tuple[dict[str | int, Tensor], Tensor]:
    """Of each interpolation and number of steps, and of the originals."""
    network = open_network("lite0", Path("data/raw/features"), torch.device("cpu"))
    originals, low_res = average_down(model, images, labels, 2, 50)
    features: dict[str | int, Tensor] = {
        mode: features_of(interpolated(low_res, SIZE, mode), network) for mode in INTERPOLATIONS
    }
    for steps in STEPS:
        shown = LowResolution(low_res, 0.0)
        drawn = draw(
            model, len(images), steps=str(steps), labels=labels, sampler=Sampler.DDIM, batch_size=50, low_res=shown
        )
        features[steps] = features_of(drawn.images, network)
    return features, features_of(originals, network)


def _kid(features: Tensor, originals: Tensor, rows: Rows) -> float:
    return paired_kernel_distance(features[rows], originals[rows]).value


def _show(
    name: str, rows: Rows, features: Mapping[str | int, Tensor], originals: Tensor, steps: int, bands: Rows
) -> None:
    subsets: Sequence[Rows] = [rows, *(rows[bands[rows] != band] for band in np.unique(bands[rows]))]
    ours = [_kid(features[steps], originals, subset) for subset in subsets]
    for mode in INTERPOLATIONS:
        above, *without = (
            _kid(features[mode], originals, subset) - own for subset, own in zip(subsets, ours, strict=True)
        )
        error = Jackknifed(above, torch.tensor(without, dtype=torch.float64)).standard_error
        print(f"{name}: {len(rows)} crops, KID {ours[0]:.3f}, {mode} {above:+.3f} (± {error:.3f})")


if __name__ == "__main__":
    main()
