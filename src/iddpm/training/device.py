"""From the parameter compute.device to a device."""

import os

import torch

from iddpm.errors import UserError
from iddpm.params import Device


def resolve_device(device: Device, key: str = "compute.device") -> torch.device:
    """The device to use; UserError, naming the parameter or option `key`, when CUDA is asked for and absent."""
    if device is Device.CUDA and not torch.cuda.is_available():
        raise UserError(f"{key}: cuda, but torch sees no GPU here; set it to auto or cpu")
    if device is Device.CPU or not torch.cuda.is_available():
        return torch.device("cpu")
    _ask_for_determinism()
    return torch.device("cuda", torch.cuda.current_device())


def device_name(device: torch.device) -> str:
    """As it stands in a record: cpu, or cuda and what GPU that was."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _ask_for_determinism() -> None:
    """The same kernels in every run: a resumed run must equal an uninterrupted one."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
