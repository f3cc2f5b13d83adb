"""Figures: what they show, and that they repeat."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iddpm.evaluation.figures import (
    COLOURS,
    Point,
    compared_training_curves,
    scatter_lines,
    series_styles,
    training_curves,
)

TITLE = "a title that is as wide as the axes below it, or a little wider"
SERIES = {
    "a": [Point(100, 0.5, (0.4, 0.6)), Point(25, 0.9, (0.8, 1.0), "25")],
    "b": [Point(50, 0.7)],
}


def draw(path: Path, series: dict[str, list[Point]] = SERIES) -> str:
    styles = series_styles(list(series))
    scatter_lines(series, styles, path, xlabel="steps", ylabel="fd-pixels", title=TITLE)
    return path.with_suffix(".svg").read_text()


def numbers(svg: str) -> set[str]:
    """Texts of the figure; matplotlib writes each into a comment before its glyphs."""
    return set(re.findall(r"<!-- (.+?) -->", svg))


def test_a_figure_is_a_png_and_an_svg_of_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = (draw(tmp_path / name) for name in ("first", "second"))
    assert first == second
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with Image.open(tmp_path / "first.png") as image:
        assert image.width > 700 and len(np.unique(np.asarray(image))) > 50


def test_labels_axes_and_series_are_named(tmp_path: Path) -> None:
    assert {"steps", "fd-pixels", TITLE, "a", "b", "25"} <= numbers(draw(tmp_path / "figure"))


def test_labels_of_points_that_lie_close_do_not_cover_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    monkeypatch.setattr("iddpm.evaluation.figures.plt.close", kept.append)
    draw(
        tmp_path / "figure",
        {"a": [Point(1, 0.01, label="far"), *(Point(9.9, 0.1, label=f"{n} near") for n in "12345678")]},
    )
    (figure,) = kept
    (axis,) = figure.axes
    renderer = figure.canvas.get_renderer()  # not that of the SVG, the last one used
    boxes = [text.get_window_extent(renderer) for text in axis.texts]
    assert len(boxes) == 9
    around = [each.get_window_extent(renderer) for each in (axis._left_title, axis.get_legend())]
    assert not any(one.overlaps(other) for one, other in combinations([*boxes, *around], 2))
    assert all(figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1) for box in boxes)


def test_a_narrow_log_axis_has_plain_numbers_on_it(tmp_path: Path) -> None:
    series = {"a": [Point(1, 0.085), Point(2, 0.19)]}
    shown = numbers(draw(tmp_path / "figure", series))
    assert {"0.1", "0.12", "0.15"} <= shown


@pytest.mark.parametrize("interval", [(-0.2, 1.0), (0.5, 0.5), (0.6, 0.4)])
def test_any_interval_can_be_drawn(tmp_path: Path, interval: tuple[float, float]) -> None:
    draw(tmp_path / "figure", {"a": [Point(1, 0.5, interval), Point(1, 0.5)]})


def test_distances_of_zero_take_a_linear_axis(tmp_path: Path) -> None:
    assert "0.00" in " ".join(numbers(draw(tmp_path / "figure", {"a": [Point(1, 0.0), Point(2, 0.1)]})))


def test_series_keep_their_colour_and_are_told_apart() -> None:
    names = [str(number) for number in range(20)]
    styles = series_styles(names)
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == 20
    assert series_styles(names[:3]) == {name: styles[name] for name in names[:3]}
    assert styles["0"]["color"] == COLOURS[0]


def test_a_long_legend_stands_beside_the_axes(tmp_path: Path) -> None:
    many = {f"series {number}": [Point(1, number + 1), Point(2, number + 1)] for number in range(30)}
    draw(tmp_path / "few")
    draw(tmp_path / "many", many)
    widths = [Image.open(tmp_path / f"{name}.png").width for name in ("few", "many")]
    assert widths[1] > 1.5 * widths[0]


def test_training_curves_show_what_was_logged(tmp_path: Path) -> None:
    rows = [{"step": 1.0, "loss": 2.0, "mse": 1.0}, {"step": 2.0, "loss": 1.0, "mse": 0.5}]
    training_curves(rows, ("loss", "mse", "vb"), tmp_path / "one")
    shown = numbers((tmp_path / "one.svg").read_text())
    assert {"loss", "mse", "training step"} <= shown and "vb" not in shown
    compared_training_curves(
        {"first": rows, "second": [*rows, {"step": 3.0, "vb": 0.1}]}, ("mse", "vb"), tmp_path / "two"
    )
    assert {"first", "second", "mse", "vb"} <= numbers((tmp_path / "two.svg").read_text())
