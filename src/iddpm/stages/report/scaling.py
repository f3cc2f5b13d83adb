"""Scaling studies on the page: the figure, the fits, and what these say."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from iddpm.evaluation.confidence import NORMAL_REACH
from iddpm.evaluation.figures import Point, scaling_figure
from iddpm.evaluation.scaling_laws import Form, PowerLaw, ScalingPoint
from iddpm.stages.context import Stage
from iddpm.stages.report.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Heading,
    Notes,
    Picture,
    Pictures,
    Table,
    Text,
    number,
)
from iddpm.stages.report.gather import Results
from iddpm.stages.report.scaling_points import FIGURE_10, Studied, studied, write_points
from iddpm.stages.report.scaling_verdict import comparisons, held_out_error, verdict

CSV_FILE = "scaling.csv"
BEYOND = 1.4
"""The last compute times this is where a fit's line ends."""
INTRODUCTION = (
    "Training compute C is counted as in the paper: two operations for a multiply-add of one forward pass, three "
    "passes for every image seen. Laws are fitted to the envelope, the best that any model reached with as much "
    "compute, as in the paper, but with their constants, which the paper assumed. Whether the metric has a constant is "
    "asked of a joint law of parameters and images instead, fitted to all points: an envelope may bend for no other "
    "reason than that all models end at the same step. Fits are least squares of the logarithm. Intervals are meant to "
    "be 95 %. They assume that the law has this form, that chance is normal in the logarithm, and that what chance "
    "does to a training shifts all its points alike; they come from redraws of such chance, those of the joint law "
    "from leaving out one model after the other too, and are wide with four models. Points are weighted "
    "by their standard errors where these are independent. Those of bits/dim are not, since all points share images "
    "and noise, nor those of samples of one seed, which share noise: there the scatter about the law tells what chance "
    f"does. `{CSV_FILE}` has every point."
)


def scaling_blocks(stage: Stage, results: Results, folder: Path) -> list[Block]:
    """Each study with its figure, fits and verdict, then studies of one metric side by side; scaling.csv on the way."""
    entries = results.params.report.scaling
    if not entries:
        return []
    found = [studied(stage, results, name, entry) for name, entry in entries.items()]
    studies = [one for one in found if isinstance(one, Studied)]
    write_points(folder / CSV_FILE, studies)
    blocks: list[Block] = [Text(INTRODUCTION), *(Text(one) for one in found if isinstance(one, str))]
    for one in studies:
        blocks += [
            Heading(f"`{one.name}`: {one.unit} on {one.data}"),
            Pictures([_draw(one, folder)]),
            *([Text(one.bias)] if one.bias else []),
            *([Notes("", one.left_out)] if one.left_out else []),
            *([_joint_table(one)] if one.study.joint else []),
            Text(verdict(one.study, one.biased_by_samples)),
            *([_envelope_table(one)] if one.study.fits else []),
            Fold(f"The {len(one.study.points)} points", [_points_table(one)]),
        ]
    together = comparisons(studies)
    return [*blocks, Notes("", together)] if together else blocks


def _draw(one: Studied, folder: Path) -> Picture:
    models: dict[str, list[Point]] = {}
    for name in sorted(one.costs, key=lambda name: one.costs[name].multiply_adds):
        cost = one.costs[name]
        label = f"{name}: width {cost.width}, {_short(cost.parameters)} parameters"
        models[label] = [_shown(point) for point in one.study.points if point.model == name]
    first, last, held_out = one.study.points[0], one.study.points[-1], one.study.held_out
    computes = np.geomspace(first.compute, BEYOND * last.compute, 100)
    path = folder / f"scaling_{one.name}"
    scaling_figure(
        models,
        [(point.compute, point.value) for point in one.study.envelope],
        {_formula(fit.law): list(zip(computes, fit.law.at(computes), strict=True)) for fit in one.study.fits.values()},
        (held_out.compute, held_out.value),
        path,
        ylabel=one.unit,
        title=f"{one.unit} on {one.data}",
    )
    return Picture.of(path.with_suffix(".png"), f"`{one.name}`: {one.unit} against training compute")


def _shown(point: ScalingPoint) -> Point:
    reach = None if point.error is None else NORMAL_REACH * point.error
    return Point(point.compute, point.value, None if reach is None else (point.value - reach, point.value + reach))


def _formula(law: PowerLaw) -> str:
    """As matplotlib writes mathematics."""
    mantissa, power = _scientific(law.log10_scale)
    constant = f"{number(law.constant, 3)} + " if law.constant else ""
    return rf"${constant}({mantissa}\cdot 10^{{{power}}}\,C)^{{{-law.exponent:.2g}}}$"


def _scientific(log10: float) -> tuple[str, int]:
    """Mantissa with two digits and power of ten of a number that may be too small for a float."""
    power = math.floor(log10)
    mantissa = f"{10 ** (log10 - power):.2g}"
    return ("1", power + 1) if mantissa == "10" else (mantissa, power)


def _scale(log10: float) -> str:
    mantissa, power = _scientific(log10)
    return f"{mantissa}e{power}"


def _short(count: int) -> str:
    for unit, size in (("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{number(count / size, 3)} {unit}"
    return str(count)


def _joint_table(one: Studied) -> Table:
    study, rows = one.study, []
    for form, fit in study.joint.items():
        ends = fit.intervals
        cells = [
            Cell(_scale(fit.law.log10_model_scale), _interval(ends, "log10_model_scale", _scale)),
            Cell(number(fit.law.model_exponent, 3), _interval(ends, "model_exponent")),
            Cell(_scale(fit.law.log10_data_scale), _interval(ends, "log10_data_scale", _scale)),
            Cell(number(fit.law.data_exponent, 3), _interval(ends, "data_exponent")),
            _constant(form, fit.law.constant, ends),
            Cell(f"{100 * fit.scatter:.2f} %"),
            Cell("" if fit.predicted is None else number(fit.predicted)),
            Cell(held_out_error(study, form)),
        ]
        rows.append([Cell(form.value.capitalize()), *cells])
    titles = ("A", "exponent a", "B", "exponent b", "constant c", "scatter", "prediction", "its error")
    target = study.held_out
    caption = (
        f"y = c + A N^-a + B D^-b, N parameters and D images, on all {len(study.points)} points. Held out: "
        f"{target.model}, its last is {number(target.value)} at step {target.step:,}; it is predicted by laws fitted "
        "to the other models."
    )
    return Table([Column("joint law", False), *(Column(title) for title in titles)], rows, caption)


def _envelope_table(one: Studied) -> Table:
    rows = []
    for form, fit in one.study.fits.items():
        cells = [
            Cell(_scale(fit.law.log10_scale), _interval(fit.intervals, "log10_scale", _scale)),
            Cell(number(fit.law.exponent, 3), _interval(fit.intervals, "exponent")),
            _constant(form, fit.law.constant, fit.intervals),
            Cell(f"{100 * fit.scatter:.2f} %"),
        ]
        rows.append([Cell(form.value.capitalize()), *cells])
    law, published = one.published, "Published, other data" if one.other_data else "Published"
    assumed = Cell(f"{law.constant:.2f}", "assumed, not fitted")
    values = [Cell(_scale(law.log10_scale)), Cell(number(law.exponent, 3)), assumed, Cell("")]
    rows.append([Cell(published, FIGURE_10.source), *values])
    caption = (
        f"y = c + (a C)^-b on the {len(one.study.envelope)} points of the envelope, c fitted with a and b. Intervals "
        "say what chance does to this curve; a constant may be there because all models end at one step, and be none "
        "of theirs. The paper assumed its constants: for FID about that of images of the data itself, for bits/dim the "
        "best then known, rounded down. Its a and b rest on them"
    ) + (
        "; its law is of downsampled ImageNet at 64 pixels and does not compare with these."
        if one.other_data
        else ", and compare at most with a fit to downsampled ImageNet, measured as the paper measured, whose constant "
        "is the same."
    )
    titles = ("a", "exponent b", "constant c", "scatter")
    return Table([Column("envelope", False), *(Column(title) for title in titles)], rows, caption)


def _constant(form: Form, constant: float, ends: dict[str, tuple[float, float]]) -> Cell:
    return Cell("", "none") if form is Form.WITHOUT_CONSTANT else Cell(number(constant), _interval(ends, "constant"))


def _interval(ends: dict[str, tuple[float, float]], key: str, shown: Callable[[float], str] = number) -> str:
    return f"{shown(ends[key][0])} to {shown(ends[key][1])}" if key in ends else ""


def _points_table(one: Studied) -> Table:
    rows = []
    for point in one.study.points:
        cost = one.costs[point.model]
        error = "" if point.error is None else f"± {number(point.error, 2)}"
        mark = "best" if point in one.study.envelope else ""
        cells = [Cell(f"{point.step:,}"), Cell(f"{cost.images(point.step):,}"), Cell(f"{point.compute:.3g}")]
        seconds = cost.seconds(point.step)
        cells += [Cell("" if seconds is None else number(seconds)), Cell(number(point.value), error, mark)]
        rows.append([Cell(f"`{point.model}`", f"width {cost.width}, {cost.multiply_adds / 1e9:.3g} G"), *cells])
    titles = ("step", "images", "C", "training seconds", one.unit)
    caption = (
        "In small print the multiply-adds of one forward pass; marked, the envelope. C is compute as counted, training "
        "seconds are as measured: steps times the median pace of the training's log."
    )
    return Table([Column("model", False), *(Column(title) for title in titles)], rows, caption)
