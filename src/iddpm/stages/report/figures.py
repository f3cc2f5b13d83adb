"""The report's own figures; evaluations of different protocols never share one."""

from pathlib import Path

from iddpm.evaluation.figures import (
    DIFFUSION_CURVES,
    GAN_CURVES,
    Point,
    compared_training_curves,
    scatter_lines,
    series_styles,
    training_curves,
)
from iddpm.params import SnganSurrogate
from iddpm.stages.evaluated import Evaluated, Interval
from iddpm.stages.report.blocks import Picture
from iddpm.stages.report.gather import Results
from iddpm.stages.report.groups import Group

COMPARED_CURVES = ("mse", "vb")
"""Of trainings with different objectives: their losses are not one quantity."""
LABELLED = 24
"""Points; more labels would hide one another."""
CAPTIONS = {
    "distance_against_steps": "Distance to the reference against network evaluations per image, from noise. "
    "Bars: the table's 95 % intervals",
    "distance_against_time": "Speed against quality; labels are network evaluations, or t_mid. Bars: the table's 95 % "
    "intervals",
}


def draw_distances(groups: list[Group], folder: Path) -> dict[str, list[Picture]]:
    """Distance against steps and, where surrogates started chains, against time, of each group by its title.

    Files are numbered from the second group on. Bars are 95 % intervals.
    """
    named = {_series(one): None for group in groups for one in group.samplings}
    styles = series_styles(list(named))
    drawn: dict[str, list[Picture]] = {}
    for number, group in enumerate(groups, 1):
        from_noise = [one for one in group.samplings if one.surrogate is None]
        figures = {}
        if len({one.made["network_evaluations"] for one in from_noise}) > 1:
            figures["distance_against_steps"] = (from_noise, _steps, "network evaluations per image")
        if len(group.samplings) > len(from_noise):
            figures["distance_against_time"] = (group.samplings, _time, "seconds per image")
        for name, (evaluations, point, xlabel) in figures.items():
            series: dict[str, list[Point]] = {}
            for one in evaluations:
                series.setdefault(_series(one), []).append(point(one, len(evaluations) <= LABELLED))
            path = folder / (name if number == 1 else f"{name}_{number}")
            scatter_lines(series, styles, path, xlabel=xlabel, ylabel=group.distance, title=group.title)
            drawn.setdefault(group.title, []).append(Picture.of(path.with_suffix(".png"), CAPTIONS[name]))
    return drawn


def _series(one: Evaluated) -> str:
    if one.surrogate:
        return f"{one.model}, from {one.surrogate}"
    start = [] if one.start == "noise" else [f"from {one.start}"]
    return ", ".join([one.model, *start, one.sampler])


def _steps(one: Evaluated, labelled: bool) -> Point:
    return Point(one.made["network_evaluations"], *_distance(one), _labelled(one) if labelled else "")


def _time(one: Evaluated, labelled: bool) -> Point:
    effort = f"t_mid {one.sampling['t_mid']}" if one.surrogate else str(one.made["network_evaluations"])
    return Point(one.seconds_per_image, *_distance(one), _labelled(one, effort) if labelled else "")


def _labelled(one: Evaluated, *parts: str) -> str:
    return ", ".join([*parts, *([f"{len(one.seeds)} seeds"] if one.seeds else [])])


def _distance(one: Evaluated) -> tuple[float, Interval | None]:
    return one.scores["frechet_distance"], one.intervals.get("frechet_distance")


def draw_training(results: Results, folder: Path) -> tuple[list[Picture], list[Picture]]:
    """Curves that compare the trainings, if there are several diffusion models, and those of each training."""
    each, diffusion = [], {}
    for path, rows in results.logs.items():
        if not rows:  # shorter than the interval of the log
            continue
        _, group, name = path.split("/")
        gan = group == "surrogates" and isinstance(results.params.surrogates[name], SnganSurrogate)
        if not gan:
            diffusion[name if group == "models" else f"surrogate {name}"] = rows
        figure = folder / f"{group}-{name}-metrics"
        training_curves(rows, GAN_CURVES if gan else DIFFUSION_CURVES, figure)
        each.append(Picture.of(figure.with_suffix(".png"), f"`{name}`, step {int(rows[-1]['step']):,}"))
    if len(diffusion) < 2:
        return [], each
    compared_training_curves(diffusion, COMPARED_CURVES, folder / "training")
    return [Picture.of(folder / "training.png", "Squared error of eps, and the term of the bound in bits/dim")], each
