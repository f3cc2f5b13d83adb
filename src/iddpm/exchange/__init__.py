"""Models of public code: improved-diffusion's checkpoints and flags, diffusers' UNet2DModel folders."""

from iddpm.exchange.flags import architecture_from_flags, flags_from_architecture
from iddpm.exchange.folders import (
    ImportedModel,
    export_pt,
    export_unet2d,
    import_pt,
    import_unet2d,
    refuse_existing,
    release_flags,
)
from iddpm.exchange.openai import read_pt

__all__ = [
    "ImportedModel",
    "architecture_from_flags",
    "export_pt",
    "export_unet2d",
    "flags_from_architecture",
    "import_pt",
    "import_unet2d",
    "read_pt",
    "refuse_existing",
    "release_flags",
]
