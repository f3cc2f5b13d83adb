"""Images as PNG files, which other tools score and an image folder as source reads back."""

import csv
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from iddpm.errors import UserError
from iddpm.evaluation.images import ImageSet

IMAGES_AT_ONCE = 256


def write_pngs(images: ImageSet, folder: Path) -> Iterator[int]:
    """000000.png, 000001.png, ... in a new folder, and labels.csv where the images have labels; yields their number."""
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a folder to be made")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from None
    names: list[str] = []
    for batch in images.batches(IMAGES_AT_ONCE):
        for image in batch:
            names.append(f"{len(names):06d}.png")
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / names[-1])
        yield len(names)
    if images.labels is not None:
        with open(folder / "labels.csv", "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "label"])
            writer.writerows(zip(names, images.labels.tolist(), strict=True))
