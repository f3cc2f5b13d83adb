"""What a feature network is, and what all of them share."""

import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from iddpm.errors import UserError

Array = npt.NDArray[np.float32]


PIXELS = "pixels"
MOST_PIXEL_FEATURES = 4096
"""Grey levels of an image: beyond, covariances of pixels take more time and memory than they tell."""


class Features(NamedTuple):
    """Of N images: features float32 [N, D], and class probabilities float32 [N, classes] where there are classes."""

    features: Array
    probabilities: Array | None


class FeatureNetwork(Protocol):
    """Maps images to features. `distance` is what a Frechet distance of them is called.

    `identity` is JSON, and holds all that the features depend on besides the images.
    """

    @property
    def identity(self) -> dict[str, Any]: ...

    @property
    def distance(self) -> str: ...

    def __call__(self, images: npt.NDArray[np.uint8]) -> Features:
        """Of images uint8 [N, H, W, C], with 1 or 3 channels."""


class PixelFeatures:
    """The images themselves: grey levels in [0, 1], flattened."""

    identity: dict[str, Any] = {"name": PIXELS, "scaling": "x / 255", "resize": "none"}  # noqa: RUF012
    distance = "fd-pixels"

    def __call__(self, images: npt.NDArray[np.uint8]) -> Features:
        return Features(images.reshape(len(images), -1).astype(np.float32) / np.float32(255), None)


class ModuleFeatures:
    """A torch module that takes uint8 [N, 3, H, W] and gives features [N, D], or these and class logits [N, classes].

    Grey images get three equal channels. Computed without TF32, so that devices agree as far as they can.
    """

    def __init__(self, module: nn.Module, identity: dict[str, Any], distance: str, device: torch.device) -> None:
        self._module, self._device = module.to(device).eval().requires_grad_(False), device
        self.identity, self.distance = identity, distance

    @torch.inference_mode()
    def __call__(self, images: npt.NDArray[np.uint8]) -> Features:
        x = torch.from_numpy(images.copy()).to(self._device).permute(0, 3, 1, 2)
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            outputs = self._module(x.expand(-1, 3, -1, -1).contiguous())
        if isinstance(outputs, Tensor):
            return Features(_array(outputs), None)
        features, logits = outputs
        return Features(_array(features), _array(logits.float().softmax(1)))


def _array(x: Tensor) -> Array:
    array: Array = x.float().cpu().numpy()
    return array


def load_weights(path: Path, sha256: str, mend: str) -> dict[str, Tensor]:
    """A file of tensors whose sha256 is as published. UserError, with the `mend`, for any other file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(f"{path}: sha256 {found} is not the published {sha256}: damaged or another file; {mend}")
    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return weights
