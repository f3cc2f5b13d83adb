"""Images are brought to size as improved-diffusion does it."""

import numpy as np
import PIL.Image
import pytest

from iddpm.data.resizing import resize_and_crop


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2, which Pillow's bicubic is."""
    x = np.abs(x)
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def grey_levels(image: np.ndarray) -> np.ndarray:
    return np.floor(image + 0.5).clip(0, 255)


def bicubic(image: np.ndarray, length: int) -> np.ndarray:
    """Rows of `image` resampled to `length`; the kernel is widened by the scale when there are fewer."""
    scale = len(image) / length
    centres = (np.arange(length) + 0.5) * scale
    weights = cubic((np.arange(len(image)) + 0.5 - centres[:, None]) / max(scale, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    return grey_levels(np.tensordot(weights, image, axes=1))


def expected(image: np.ndarray, halvings: int, height: int, width: int, size: int) -> np.ndarray:
    """Columns first, then rows, each pass rounded, as 8-bit images are resized."""
    pixels = image.astype(np.float64)
    for _ in range(halvings):
        pixels = grey_levels((pixels[:, ::2] + pixels[:, 1::2]) / 2)
        pixels = grey_levels((pixels[::2] + pixels[1::2]) / 2)
    pixels = bicubic(pixels.swapaxes(0, 1), width).swapaxes(0, 1)
    pixels = bicubic(pixels, height)
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("height", "width", "size", "halvings", "resized"),
    [
        (64, 64, 16, 2, (16, 16)),  # halvings alone
        (64, 96, 16, 2, (16, 24)),  # and a crop
        (24, 40, 16, 0, (16, 27)),  # 26.7 columns round to 27
        (120, 88, 32, 1, (44, 32)),  # 43.6 rows round to 44
        (6, 9, 16, 0, (16, 24)),  # enlarged
        (16, 21, 16, 0, (16, 21)),  # a crop alone: (21 - 16) // 2 from the left
    ],
)
def test_halved_resized_cropped(height: int, width: int, size: int, halvings: int, resized: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    image = np.kron(generator.integers(0, 256, (height // 2, width, 3)), np.ones((2, 1, 1))).astype(np.uint8)
    ours = resize_and_crop(PIL.Image.fromarray(image), size)
    assert ours.shape == (size, size, 3) and ours.dtype == np.uint8
    difference = np.abs(ours - expected(image, halvings, *resized, size))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # a half that another arithmetic rounds down


def test_grey_keeps_its_channel_axis_and_a_gradient_is_averaged_exactly() -> None:
    gradient = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))  # 0, 4, 8, ...: boxes of 4 average to 6, 22, ...
    ours = resize_and_crop(PIL.Image.fromarray(gradient), 16)
    assert ours.shape == (16, 16, 1)
    assert np.array_equal(ours[:, :, 0], np.tile(np.arange(6, 256, 16), (16, 1)))


def test_an_image_too_long_and_narrow_is_refused() -> None:
    with pytest.raises(ValueError, match="1 x 100000 pixels are too long and narrow"):
        resize_and_crop(PIL.Image.new("L", (1, 100_000)), 256)
