"""Feature networks: the space in which sets of images are compared."""

from pathlib import Path

import torch

from iddpm.evaluation.features.inception import open_inception
from iddpm.evaluation.features.lite0 import open_lite0
from iddpm.evaluation.features.module import open_module
from iddpm.evaluation.features.network import (
    MOST_PIXEL_FEATURES,
    PIXELS,
    FeatureNetwork,
    Features,
    PixelFeatures,
)

__all__ = ["MOST_PIXEL_FEATURES", "PIXELS", "FeatureNetwork", "Features", "PixelFeatures", "open_network"]


def open_network(features: str, folder: Path, device: torch.device) -> FeatureNetwork:
    """The network that the parameter `features` names; `folder` is the project's data/raw/features.

    UserError names what is missing there, or is not what it should be.
    """
    match features.split("/"):
        case ["pixels"]:
            return PixelFeatures()
        case ["lite0"]:
            return open_lite0(device)
        case ["inception"]:
            return open_inception(folder, device)
        case ["module", name]:
            return open_module(folder / name, device)
    raise ValueError(f"{features}: no feature network is called so")
