"""From a file's bytes to an 8-bit grey or colour image."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

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
    with _value_errors():
        image = PIL.Image.open(io.BytesIO(content), formats=sorted(set(FORMATS.values())))
        image.load()
    if image.mode.startswith("I"):
        image = PIL.Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


class Header(NamedTuple):
    """What an image file says of itself before its pixels."""

    height: int
    width: int
    channels: Literal[1, 3]


def read_header(path: Path) -> Header:
    """Size in pixels, and 1 channel for the grey modes or 3 for all others; ValueError when it cannot be read."""
    with _value_errors(), PIL.Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
        return Header(image.height, image.width, 1 if image.mode[0] in "1IL" else 3)


@contextlib.contextmanager
def _value_errors() -> Iterator[None]:
    """Whatever Pillow raises, as a ValueError of one line."""
    try:
        yield
    except MemoryError:
        raise
    except PIL.UnidentifiedImageError:  # whose message holds an address in memory
        raise ValueError("not a JPEG, PNG or WebP image") from None
    except Exception as error:  # on damaged data the decoders raise nearly anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
