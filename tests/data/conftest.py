"""The real CIFAR-10, where it can be had."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder cifar-10-batches-py: below IDDPM_CIFAR10, below data/raw/cifar10, or unpacked from ../shared/data."""
    for place in (os.environ.get("IDDPM_CIFAR10", ""), ROOT / "data" / "raw" / "cifar10"):
        if (folder := Path(place) / "cifar-10-batches-py").is_dir():
            return folder
    unpack = ROOT.parent / "shared" / "data" / "unpack_cifar10.py"
    if not unpack.exists():
        pytest.skip("no cifar-10-batches-py below IDDPM_CIFAR10 or data/raw/cifar10")
    target = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(unpack), str(target)], check=True, capture_output=True)
    return target / "cifar-10-batches-py"
