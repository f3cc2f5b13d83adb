"""Reconstructions: how true upsampled images are to the originals, beside interpolation."""

from pathlib import Path

from iddpm.stages.context import Stage
from iddpm.stages.evaluated import Json
from iddpm.stages.report.blocks import Block, Cell, Column, Table, Text, number
from iddpm.stages.report.gather import Results
from iddpm.stages.report.sections import gallery, taken_picture

METHODS = {"": "upsampler", "bilinear_": "bilinear", "bicubic_": "bicubic"}
MEANING = (
    "Real images, averaged down and upsampled again, against the originals. PSNR and SSIM reward the mean of all the "
    "images that may be meant: one sharp sample of them can lose to a blurred interpolation. Distances of features see "
    "the blur: of the two sets of images (KID, without the pairs of an image and its own original), and of each image "
    "from its own original (mean squared). KIDs of one reconstruction are of the same images: compare them by their "
    "difference, whose error is smaller than theirs."
)


def reconstruction_blocks(stage: Stage, results: Results, folder: Path) -> list[Block]:
    """A table with a row for each reconstruction and method, and the images."""
    if not results.reconstructions:
        return []
    rows = [_row(name, prefix, fidelity) for name, fidelity in results.reconstructions.items() for prefix in METHODS]
    texts = ("reconstruction", "method", "pixels", "images of")
    numbers = (
        "images",
        "PSNR, dB",
        "SSIM",
        "KID × 1,000",
        "above the upsampler's",
        "distance of each from its original",
    )
    columns = [*(Column(title, False) for title in texts), *(Column(title) for title in numbers)]
    pictures = [
        picture
        for name in results.reconstructions
        for picture in taken_picture(stage, f"runs/reconstructions/{name}/comparison.png", folder, f"`{name}`")
    ]
    shown = gallery("From left to right: the original, in low resolution, bilinear, upsampled.", pictures)
    return [Text(MEANING), Table(columns, rows, "Means over images with their standard errors."), *shown]


def _row(name: str, prefix: str, fidelity: Json) -> list[Cell]:
    protocol = fidelity["protocol"]
    upsampler, told = protocol["record"]["params"]["upsampler"], protocol["augmentation"]
    made = f"{upsampler}, {protocol['network_evaluations']} steps" + (f", augmentation {told:g}" if told else "")
    cells = [Cell(f"`{name}`"), Cell(METHODS[prefix], "" if prefix else made)]
    cells.append(Cell(f"{protocol['low_size']} → {protocol['size']}"))
    cells += [Cell(f"{protocol['dataset']}, {protocol['split']}"), Cell(number(protocol["images"]))]
    for score in ("psnr", "ssim"):
        value, error = (fidelity[f"{prefix}{score}{suffix}"] for suffix in ("", "_standard_error"))
        text = "exact copies" if value is None else number(value, 4)
        cells.append(Cell(text, "" if error is None else f"± {number(error, 2)}"))
    kid, kid_error = (1000 * fidelity[f"{prefix}kid{suffix}"] for suffix in ("", "_standard_error"))
    own, error = (fidelity[f"{prefix}feature_distance{suffix}"] for suffix in ("", "_standard_error"))
    cells.append(Cell(number(kid, 4), f"± {number(kid_error, 2)}, {protocol['features']['name']}"))
    above = Cell("")
    if prefix:
        more, more_error = (1000 * fidelity[f"{prefix}kid_above_upsampled{end}"] for end in ("", "_standard_error"))
        above = Cell(f"{more:+.4g}", f"± {number(more_error, 2)}")
    return [*cells, above, Cell(number(own, 4), f"± {number(error, 2)}")]
