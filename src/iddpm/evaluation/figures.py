"""Figures, each as PNG and SVG; bytes depend on the data and the matplotlib version alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from cycler import cycler

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

DIFFUSION_CURVES = ("loss", "mse", "vb")
GAN_CURVES = ("discriminator_loss", "generator_loss")

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b")
"""Told apart by colour-blind readers too (Okabe and Ito)."""
ENVELOPE = "#222222"
MARKERS = ("o", "s", "^", "D")
LINES = ("-", "--", ":", "-.")
TICKS = {5: (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), 20: (1, 2, 3, 5), 200: (1, 3), math.inf: (1,)}
"""Of a log axis whose ends have a ratio below the key."""
LEGEND_INSIDE = 6
"""Entries; a longer legend stands beside the axes."""
STYLE = {
    "figure.figsize": (5.6, 3.7),
    "figure.dpi": 140,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.titlesize": "medium",
    "legend.frameon": False,
    "legend.fontsize": "small",
    "svg.hashsalt": "iddpm",
}


LABEL_PLACES = tuple((side * 5, height) for height in (5, -11, 16, -22, 27, -33, 38, 49, 60) for side in (1, -1))
"""Of a point's label, in points of 1/72 inch from it, the first ones first."""
MARKER = 5
"""Its size, in points of 1/72 inch."""


class Point(NamedTuple):
    """A value with the interval of y, None where there is none, and a label to stand beside it."""

    x: float
    y: float
    interval: tuple[float, float] | None = None
    label: str = ""


def series_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each series by its place, for figures that show some of the same series."""
    kinds = len(COLOURS)
    return {
        name: {
            "color": COLOURS[number % kinds],
            "marker": MARKERS[number // kinds % len(MARKERS)],
            "linestyle": LINES[number // kinds % len(LINES)],
        }
        for number, name in enumerate(names)
    }


def training_curves(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    """Metrics over steps, one axis each, from the rows of a metrics log."""
    compared_training_curves({"": rows}, names, path)


def compared_training_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str], path: Path) -> None:
    """Likewise of several trainings, a line each."""
    present = [name for name in names if any(name in row for rows in logs.values() for row in rows)]
    styles = series_styles(list(logs))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(present), figsize=(3.6 * len(present), 2.9), squeeze=False)
        for axis, name in zip(axes[0], present, strict=True):
            smallest = math.inf
            for log, rows in logs.items():
                x, y = ([row[key] for row in rows if name in row] for key in ("step", name))
                axis.plot(x, y, label=log, **styles[log] | {"marker": ""})
                smallest = min(smallest, *y, math.inf)
            axis.set(xlabel="training step", title=name.replace("_", " "))
            if smallest > 0:
                axis.set_yscale("log")
                _plain_numbers(axis.yaxis)
        if len(logs) > 1:
            _legend(figure, axes[0, -1], len(logs))
        _save(figure, path)


def bound_terms_figure(timesteps: Sequence[int], terms: Mapping[str, npt.NDArray[np.float64]], path: Path) -> None:
    """Terms of the variational bound in bits/dim at their timesteps, a line for each split (paper, figure 2).

    Both axes are logarithmic. A strided chain's terms each stand for all the noising steps since the one before; a
    line, the term divided by their number, is what compares with a full chain.
    """
    noising_steps = np.asarray(timesteps) + 1
    spanned = np.diff(noising_steps, prepend=0)
    strided = (spanned > 1).any()
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots()
        for split, vb in terms.items():
            shown = np.maximum(vb, 1e-12)
            label = f"{split} images, per noising step" if strided else f"{split} images"
            (line,) = axis.loglog(noising_steps, shown / spanned, label=label)
            if strided:
                label = f"term of the strided chain ({len(shown)} terms)"
                axis.loglog(noising_steps, shown, ".", color=line.get_color(), label=label)
        axis.set(xlabel="noising step t + 1", ylabel="term of the bound (bits/dim)")
        axis.legend(frameon=False)
        _save(figure, path)


def checkpoints_figure(series: Mapping[str, Sequence[tuple[float, float, float]]], path: Path) -> None:
    """Bits/dim of each split over training as points (step, bits/dim, standard error), from the first step up.

    With train and test, at the same steps, the gap between them below: growing, it is overfitting.
    """
    gap = {"train", "test"} <= series.keys()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1 + gap, 1, sharex=True, squeeze=False, figsize=(6.4, 6.0 if gap else 4.0))
        columns = {
            split: [np.array(column) for column in zip(*points, strict=True)] for split, points in series.items()
        }
        for split, (steps, bits, error) in columns.items():
            axes[0, 0].errorbar(steps, bits, yerr=error, marker="o", capsize=3, label=f"{split} images")
        axes[0, 0].set(ylabel="bits/dim", title="Bits per dimension over training")
        axes[0, 0].legend(frameon=False)
        if gap:
            (steps, train, train_error), (_, test, test_error) = columns["train"], columns["test"]
            error = np.hypot(train_error, test_error)
            axes[1, 0].errorbar(steps, test - train, yerr=error, marker="o", capsize=3, color=COLOURS[2])
            axes[1, 0].axhline(0, linestyle="--", linewidth=1, color="grey")
            axes[1, 0].set(ylabel="test - train (bits/dim)", title="Overfitting gap")
        axes[-1, 0].set(xlabel="training step")
        _save(figure, path)


def scatter_lines(
    series: Mapping[str, Sequence[Point]],
    styles: Mapping[str, Mapping[str, Any]],
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    title: str,
) -> None:
    """Each series as labelled points with their intervals, joined in the order of x, on log axes."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots()
        _joined_points(axis, series, styles)
        axis.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
        axis.set_title(title, loc="left")
        _plain_numbers(axis.xaxis)
        if min(point.y for points in series.values() for point in points) > 0:
            axis.set_yscale("log")
            _plain_numbers(axis.yaxis)
        _legend(figure, axis, len(series))
        _save(figure, path)


def scaling_figure(
    models: Mapping[str, Sequence[Point]],
    envelope: Sequence[tuple[float, float]],
    fits: Mapping[str, Sequence[tuple[float, float]]],
    held_out: tuple[float, float],
    path: Path,
    *,
    ylabel: str,
    title: str,
) -> None:
    """A metric against training compute, both logarithmic, a line for each model (paper, figure 10).

    Points (compute, metric) of the envelope are joined by a dashed line, those of each fit by a thin one.
    """
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.6, 4.4))
        _joined_points(axis, models, series_styles(list(models)))
        axis.plot(*zip(*envelope, strict=True), "--", color=ENVELOPE, linewidth=2.2, alpha=0.55, label="envelope")
        for (name, points), line in zip(fits.items(), ("-", "-."), strict=False):
            axis.plot(*zip(*points, strict=True), line, color=ENVELOPE, linewidth=0.8, label=name)
        axis.plot(*held_out, "o", markersize=12, fillstyle="none", color=ENVELOPE, label="held out")
        axis.set(xscale="log", yscale="log", xlabel="training compute (operations)", ylabel=ylabel)
        axis.set_title(title, loc="left")
        _plain_numbers(axis.yaxis)
        _legend(figure, axis, len(models) + len(fits) + 2)
        _save(figure, path)


def noise_scale_figure(series: Mapping[str, Sequence[tuple[float, float, float]]], path: Path) -> None:
    """Gradient noise scales as points (step, scale, standard error), a line for each training, y logarithmic.

    A scale that is infinite has no place; neither has an error that is.
    """
    styles = series_styles(list(series))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots()
        for name, points in series.items():
            shown = [point for point in sorted(points) if np.isfinite(point[1])]
            x, y, error = (np.array(column) for column in zip(*shown, strict=True)) if shown else (np.array([]),) * 3
            error = np.where(np.isfinite(error), error, np.nan)
            below = np.minimum(error, 0.9 * y)  # a log axis has no place for what lies at or below 0
            axis.errorbar(x, y, yerr=[below, error], capsize=3, label=name, **styles[name])
        axis.set(yscale="log", xlabel="training step (no error bar: unbounded)", ylabel="gradient noise scale (images)")
        _legend(figure, axis, len(series))
        _save(figure, path)


def _joined_points(axis: Axes, series: Mapping[str, Sequence[Point]], styles: Mapping[str, Mapping[str, Any]]) -> None:
    for name, points in series.items():
        ordered = sorted(points, key=lambda point: point.x)
        x, y = [point.x for point in ordered], [point.y for point in ordered]
        axis.plot(x, y, label=name, markersize=MARKER, linewidth=1.4, **styles[name])
        for point in ordered:
            _interval(axis, point, styles[name]["color"])


def _plain_numbers(part: Axis) -> None:
    """Of a log axis: 10 and 0.1 instead of powers, and the more ticks between them the fewer decades it shows."""
    low, high = part.get_view_interval()
    part.set_major_locator(LogLocator(subs=next(ticks for ratio, ticks in TICKS.items() if high < ratio * low)))
    part.set_major_formatter(FuncFormatter(_plain))
    part.set_minor_formatter(NullFormatter())


def _plain(value: float, _: int) -> str:
    return f"{value:g}"


def _interval(axis: Axes, point: Point, colour: str) -> None:
    if point.interval is not None:
        low, high = point.interval
        low = max(low, 0.05 * point.y)  # a log axis has no place for what lies at or below 0
        axis.errorbar(
            point.x,
            point.y,
            yerr=[[max(point.y - low, 0)], [max(high - point.y, 0)]],
            color=colour,
            capsize=2.5,
            elinewidth=1,
        )
    if point.label:
        axis.annotate(
            point.label, (point.x, point.y), textcoords="offset points", xytext=(5, 5), fontsize=8, color=colour
        )


def _legend(figure: Figure, axis: Axes, entries: int) -> None:
    if entries <= LEGEND_INSIDE:
        axis.legend()
        return
    columns = -(-entries // 20)
    figure.set_size_inches(figure.get_figwidth() + 2.6 * columns, max(figure.get_figheight(), 0.19 * min(entries, 20)))
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), ncols=columns)


def _part_labels(figure: Figure) -> None:
    """Each label of a point goes to the first place where no other, no point, title, legend or edge is in its way."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for axis in figure.axes:
        labels = [text for text in axis.texts if isinstance(text, Annotation)]
        others = [each for each in axis.get_children() if isinstance(each, (Legend, Text)) and each not in labels]
        around = [each.get_window_extent(renderer) for each in others]  # titles and legend
        reach = renderer.points_to_pixels(MARKER / 2 + 0.5)  # with half of its edge
        points = [axis.transData.transform(label.xy) for label in labels]
        taken = [Bbox([point - reach, point + reach]) for point in points]
        for own, label in enumerate(labels):
            for label.xyann in LABEL_PLACES:
                label.set_horizontalalignment("left" if label.xyann[0] > 0 else "right")
                box = label.get_window_extent(renderer)
                free = not any(box.overlaps(other) for other in (*around, *taken[:own], *taken[own + 1 :]))
                if free and figure.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1 and box.y0 > axis.bbox.y0:
                    break
            else:
                label.xyann = LABEL_PLACES[0]
                label.set_horizontalalignment("left")
            taken.append(label.get_window_extent(renderer))


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    _part_labels(figure)
    figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
