"""Feature networks: the space in which sets of images are compared."""

from pathlib import Path

import torch

from iddpm.evaluation.features.inception import find_weights, open_inception
from iddpm.evaluation.features.lite0 import open_lite0
from iddpm.evaluation.features.module import find_code, open_module
from iddpm.evaluation.features.network import (
    MOST_PIXEL_FEATURES,
    PIXELS,
    FeatureNetwork,
    Features,
    PixelFeatures,
)

__all__ = [
    "FEATURE_NETWORKS",
    "MOST_PIXEL_FEATURES",
    "PIXELS",
    "FeatureNetwork",
    "Features",
    "PixelFeatures",
    "find_files",
    "open_network",
]


FEATURE_NETWORKS = "data/raw/features"
"""The project's folder with a folder for each network: `folder` below."""


def find_files(features: str, folder: Path) -> None:
    """UserError when a file that `open_network` needs is missing; nothing is opened."""
    if features == "inception":
        find_weights(folder / features)
    elif features.startswith("module/"):
        find_code(folder / features)


def open_network(features: str, folder: Path, device: torch.device) -> FeatureNetwork:
    """The network that the parameter `features` names, with what it needs from `folder`.

    UserError names what is missing there, or is not what it should be.
    """
    match features.split("/"):
        case ["pixels"]:
            return PixelFeatures()
        case ["lite0"]:
            return open_lite0(device)
        case ["inception"]:
            return open_inception(folder / features, device)
        case ["module", _]:
            return open_module(folder / features, device)
    raise ValueError(f"{features}: no feature network is called so")
