"""Golden vectors recorded from openai/improved-diffusion; IDDPM_GOLDEN names another folder of the same formats."""

import os
from collections.abc import Sequence
from pathlib import Path

GOLDEN = Path(os.environ.get("IDDPM_GOLDEN") or Path(__file__).parent / "data")


PATTERNS = ("diffusion_*.npz", "tables*.json", "unet_*.npz")


def golden_files(pattern: str) -> list[Path]:
    """Files of one format; a folder with none of any format is a mistake, not a pass."""
    if not any(path for known in PATTERNS for path in GOLDEN.glob(known)):
        raise FileNotFoundError(f"IDDPM_GOLDEN: none of {', '.join(PATTERNS)} in {GOLDEN}")
    return sorted(GOLDEN.glob(pattern))


def spacing_of(sections: str | int | Sequence[int] | None, timesteps: int) -> str:
    """A file's respacing as `space_timesteps` takes it; nothing ("", [] or null) keeps every timestep."""
    if isinstance(sections, str | int):
        return str(sections) or str(timesteps)
    return ",".join(map(str, sections or [timesteps]))
