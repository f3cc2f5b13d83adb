"""Feature networks without their weights, which neither cost nor time depend on."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from iddpm.evaluation.features import PIXELS, FeatureNetwork, open_network
from iddpm.evaluation.features.inception import Inception
from iddpm.evaluation.features.lite0 import Lite0
from iddpm.evaluation.features.network import ModuleFeatures

EMBEDDED: dict[str, Callable[[], nn.Module]] = {"lite0": Lite0, "inception": Inception}


class FeatureCost(NamedTuple):
    """Multiply-adds for one image, and what comes out: features and class probabilities."""

    multiply_adds: int
    dimensions: int
    classes: int


def feature_cost(features: str, shape: tuple[int, int, int], folder: Path) -> FeatureCost:
    """For images (height, width, channels). UserError when a network of the user's own in `folder` cannot be opened."""
    if features == PIXELS:
        return FeatureCost(0, shape[0] * shape[1] * shape[2], 0)
    with FlopCounterMode(display=False) as counter:
        if features in EMBEDDED:
            with torch.device("meta"), torch.no_grad():
                outputs = EMBEDDED[features]().eval()(torch.zeros(1, 3, *shape[:2], dtype=torch.uint8))
        else:
            found = open_network(features, folder, torch.device("cpu"))(np.zeros((1, *shape), np.uint8))
            outputs = tuple(torch.from_numpy(part) for part in found if part is not None)
    sizes = [output.shape[1] for output in outputs]
    return FeatureCost(counter.get_total_flops() // 2, sizes[0], sizes[1] if len(sizes) > 1 else 0)


def untrained_network(features: str, folder: Path, device: torch.device) -> FeatureNetwork:
    """As `open_network`, with random weights where these would have to be downloaded first."""
    if features in EMBEDDED:
        return ModuleFeatures(EMBEDDED[features](), {"name": features}, features, device)
    return open_network(features, folder, device)
