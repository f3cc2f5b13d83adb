"""The real CIFAR-10, where it can be had."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = "cifar-10-batches-py"


@pytest.fixture(scope="session")
def cifar10(request: pytest.FixtureRequest) -> Path:
    """The folder cifar-10-batches-py: below IDDPM_CIFAR10 or data/raw/cifar10, or unpacked once from ../shared/data."""
    for place in (os.environ.get("IDDPM_CIFAR10", ""), ROOT / "data" / "raw" / "cifar10"):
        if (folder := Path(place) / FOLDER).is_dir():
            return folder
    unpack = ROOT.parent / "shared" / "data" / "unpack_cifar10.py"
    if not unpack.exists():
        pytest.skip(f"no {FOLDER} below IDDPM_CIFAR10 or data/raw/cifar10")
    kept = request.config.cache.mkdir("cifar10")
    with filelock.FileLock(kept / "lock"):
        if not (kept / FOLDER).is_dir():
            with tempfile.TemporaryDirectory(dir=kept) as unfinished:
                subprocess.run([sys.executable, str(unpack), unfinished], check=True, capture_output=True)
                Path(unfinished, FOLDER).rename(kept / FOLDER)
    return kept / FOLDER
