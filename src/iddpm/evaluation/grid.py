"""A contact sheet of images."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def image_grid(images: npt.NDArray[np.uint8], path: Path, columns: int = 10, smallest: int = 40) -> None:
    """Tile uint8 images [N, H, W, C] row by row, enlarged by whole factors to at least `smallest` pixels."""
    factor = max(1, -(-smallest // images.shape[1]))
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, channels = large.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), 255, dtype=np.uint8)
    for number, image in enumerate(large):
        top, left = 2 + number // columns * (height + 2), 2 + number % columns * (width + 2)
        canvas[top : top + height, left : left + width] = image
    Image.fromarray(canvas[..., 0] if channels == 1 else canvas).save(path, optimize=True)


def enlarged(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Images [N, h, w, C] as [N, size, size, C], each pixel repeated, so that they stand beside larger ones."""
    rows, columns = (np.arange(size) * pixels // size for pixels in images.shape[1:3])
    large: npt.NDArray[np.uint8] = images.take(rows, axis=1).take(columns, axis=2)
    return large
