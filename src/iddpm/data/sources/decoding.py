"""From a file's bytes to an 8-bit grey or colour image."""

import io
from typing import Literal

import numpy as np
import PIL.Image

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
"""File suffix -> Pillow's name of the format. A suffix need not tell the truth: any of these is read."""


def decode(content: bytes, channels: Literal[1, 3]) -> PIL.Image.Image:
    """The image in mode L or RGB; ValueError when it cannot be decoded.

    Any mode is converted: a transparent image is laid on white, 16 bits of grey are scaled to 8, CMYK and palettes
    become colours, colours become grey by their luma. EXIF orientation is ignored, as the original does.
    """
    image: PIL.Image.Image
    try:
        image = PIL.Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values())))
        image.load()
    except MemoryError:
        raise
    except PIL.UnidentifiedImageError:  # whose message holds an address in memory
        raise ValueError("not a JPEG, PNG or WebP image") from None
    except Exception as error:  # on damaged data the decoders raise nearly anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    if image.mode.startswith("I"):
        image = PIL.Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")
