"""Golden vectors recorded from openai/improved-diffusion; IDDPM_GOLDEN names another folder of the same formats."""

import os
from pathlib import Path

GOLDEN = Path(os.environ.get("IDDPM_GOLDEN") or Path(__file__).parent / "data")


def golden_files(pattern: str) -> list[Path]:
    files = sorted(GOLDEN.glob(pattern))
    if not files and "IDDPM_GOLDEN" not in os.environ:
        raise FileNotFoundError(f"no {pattern} in {GOLDEN}")
    return files
