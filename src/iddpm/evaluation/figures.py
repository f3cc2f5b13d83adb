"""Figures, each as PNG and SVG; bytes depend on the data and the matplotlib version alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

DIFFUSION_CURVES = ("loss", "mse", "vb")
GAN_CURVES = ("discriminator_loss", "generator_loss")

Point = tuple[float, float, str]
STYLE = {
    "figure.figsize": (6.4, 4.0),
    "figure.dpi": 120,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "iddpm",
}


def training_curves(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    """Metrics over steps, one axis each, from the rows of a metrics log."""
    present = [name for name in names if name in rows[-1]]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(present), figsize=(4.2 * len(present), 3.2), squeeze=False)
        for axis, name in zip(axes[0], present, strict=True):
            axis.plot([row["step"] for row in rows if name in row], [row[name] for row in rows if name in row])
            axis.set(xlabel="step", title=name.replace("_", " "))
            if min(row[name] for row in rows if name in row) > 0:
                axis.set_yscale("log")
        _save(figure, path)


def bound_terms_figure(timesteps: Sequence[int], vb: npt.NDArray[np.float64], path: Path) -> None:
    """Terms of the variational bound in bits/dim at their timesteps, both axes logarithmic (paper, figure 2).

    A strided chain's terms each stand for all the noising steps since the one before; a second line, the term
    divided by their number, is what compares with a full chain.
    """
    noising_steps, shown = np.asarray(timesteps) + 1, np.maximum(vb, 1e-12)
    spanned = np.diff(noising_steps, prepend=0)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots()
        if (spanned > 1).any():
            axis.loglog(noising_steps, shown, ".", label=f"term of the strided chain ({len(shown)} terms)")
            axis.loglog(noising_steps, shown / spanned, label="the same per noising step")
            axis.legend(frameon=False)
        else:
            axis.loglog(noising_steps, shown)
        axis.set(xlabel="noising step t + 1", ylabel="term of the bound (bits/dim)")
        _save(figure, path)


def scatter_lines(
    series: Mapping[str, Sequence[Point]],
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    levels: Mapping[str, float] | None = None,
) -> None:
    """Each series as labelled points (x, y, label) joined in the order of x, on log axes; levels as dashed lines."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots()
        for name, points in series.items():
            ordered = sorted(points)
            axis.plot([x for x, _, _ in ordered], [y for _, y, _ in ordered], marker="o", label=name)
            _annotate(axis, ordered)
        for name, level in (levels or {}).items():
            axis.axhline(level, linestyle="--", linewidth=1, color="grey", label=name)
        axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel, title=title)
        _plain_numbers(axis)
        axis.legend(frameon=False)
        _save(figure, path)


def lines_with_errors(
    series: Mapping[str, Sequence[tuple[float, float, float]]], path: Path, *, xlabel: str, ylabel: str
) -> None:
    """Each series as points (x, y, standard error of y) joined in the order of x, y on a log axis."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots()
        for name, points in series.items():
            shown = [point for point in sorted(points) if np.isfinite(point[1])]
            x, y, error = (np.array(column) for column in zip(*shown, strict=True)) if shown else (np.array([]),) * 3
            below = np.minimum(error, 0.9 * y)  # a log axis has no place for what lies at or below 0
            axis.errorbar(x, y, yerr=[below, error], marker="o", capsize=3, label=name)
        axis.set(yscale="log", xlabel=xlabel, ylabel=ylabel)
        axis.legend(frameon=False)
        _save(figure, path)


def _plain_numbers(axis: Axes) -> None:
    """10 and 0.1 instead of powers; between the decades too where an axis shows hardly more than one."""
    for part in (axis.xaxis, axis.yaxis):
        low, high = part.get_view_interval()
        part.set_major_formatter(FuncFormatter(_plain))
        part.set_minor_formatter(FuncFormatter(_plain_between) if high < 20 * low else NullFormatter())


def _plain(value: float, _: int) -> str:
    return f"{value:g}"


def _plain_between(value: float, _: int) -> str:
    """Without 9, 90, ..., which would touch the next decade's label."""
    return "" if f"{value:e}".startswith("9") else f"{value:g}"


def _annotate(axis: Axes, points: Sequence[Point]) -> None:
    for x, y, label in points:
        axis.annotate(label, (x, y), textcoords="offset points", xytext=(5, 5), fontsize=8)


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
