"""Gradient noise: the noise scales of all trainings over their steps, in one figure and one table."""

import math
from pathlib import Path

from iddpm.evaluation.figures import noise_scale_figure
from iddpm.stages.report.beside import objective_of
from iddpm.stages.report.blocks import Block, Cell, Column, Picture, Pictures, Table, Text, number
from iddpm.stages.report.gather import GradientNoise, Results

FIGURE = "gradient_noise"
MEANING = (
    "Gradient noise scale, in images: the variance of a single image's gradient over the square of the mean gradient "
    "(McCandlish et al. 2018, appendix A). In the gradient of a batch of so many images noise and mean weigh the same. "
    "Measured at the snapshots of each training, under its own objective and timestep sampler."
)
UNBOUNDED = "unbounded"


def gradient_noise_blocks(results: Results, folder: Path) -> list[Block]:
    """The figure, what was measured, and the values: a row for each training step."""
    entries = results.gradient_noises
    if not entries:
        return []
    series = {
        one.name: [(int(row["step"]), float(row["noise_scale"]), float(row["standard_error"])) for row in one.rows]
        for one in entries
    }
    noise_scale_figure(series, folder / FIGURE)
    picture = Picture.of((folder / FIGURE).with_suffix(".png"), "Gradient noise scale over training, standard errors")
    steps = sorted({step for points in series.values() for step, *_ in points})
    cells = {(name, step): _cell(scale, error) for name, points in series.items() for step, scale, error in points}
    rows = [[Cell(f"{step:,}"), *(cells.get((name, step), Cell("")) for name in series)] for step in steps]
    columns = [Column("training step", False), *(Column(name) for name in series)]
    caption = f"Images, with their standard error; {UNBOUNDED}: the mean gradient cannot be told from 0."
    return [Text(MEANING), Pictures([picture]), _measured(entries, results), Table(columns, rows, caption)]


def _measured(entries: list[GradientNoise], results: Results) -> Table:
    titles = ("gradient noise", "model", "dataset", "objective", "measured at each snapshot")
    rows = []
    for one in entries:
        entry, training = one.record["params"], results.models[one.record["params"]["model"]]["params"]["training"]
        gradients = f"{entry['batches']:,} batches of {one.record['batch_size']:,} images"
        texts = (f"`{one.name}`", entry["model"], entry["dataset"], objective_of(training), gradients)
        rows.append([Cell(text) for text in texts])
    return Table([Column(title, False) for title in titles], rows)


def _cell(scale: float, error: float) -> Cell:
    if not math.isfinite(scale):
        return Cell(UNBOUNDED)
    return Cell(number(scale, 3), f"± {number(error, 2)}" if math.isfinite(error) else f"error {UNBOUNDED}")
