"""U-Net forwards with the weights of improved-diffusion."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from iddpm.nets import SuperResolutionUNet, UNet

from .conftest import golden_files

KNOWN = {
    "in_channels", "out_channels", "model_channels", "num_res_blocks", "attention_resolutions", "channel_mult",
    "num_heads", "use_scale_shift_norm", "num_classes", "image_size", "super_res",
}  # fmt: skip


@pytest.fixture(params=golden_files("unet_*.npz"), ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_forward(path: Path) -> None:
    with np.load(path) as npz:
        arrays = {key: npz[key] for key in npz.files}
    config = json.loads(str(arrays.pop("config")))
    assert config.keys() <= KNOWN, f"{path.name}: unknown settings {sorted(config.keys() - KNOWN)}"
    network = (SuperResolutionUNet if config["super_res"] else UNet)(
        image_size=config["image_size"],
        in_channels=config["in_channels"] * (2 if config["super_res"] else 1),
        out_channels=config["out_channels"],
        width=config["model_channels"],
        channel_mult=config["channel_mult"],
        blocks=config["num_res_blocks"],
        # in the file a downsampling factor, here the size in pixels
        attention_sizes=[config["image_size"] // factor for factor in config["attention_resolutions"]],
        heads=config["num_heads"],
        scale_shift=config["use_scale_shift_norm"],
        classes=config.get("num_classes") or 0,
    )
    weights = {key[2:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith("w/")}
    network.load_state_dict(weights)
    labels = torch.from_numpy(arrays["y"]) if "y" in arrays else None
    extra = {"low_res": torch.from_numpy(arrays["low_res"])} if "low_res" in arrays else {}
    with torch.inference_mode():
        out = network.eval()(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["t"]), labels, **extra)
    expected = torch.from_numpy(arrays["out"])
    assert ((out - expected).norm() / expected.norm()).item() < 1e-5
