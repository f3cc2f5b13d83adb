"""Gradient noise in the report: every entry in one figure and one table."""

from pathlib import Path

import pytest
from PIL import Image

from ..conftest import tiny_params
from .test_report import Report, Results

ROWS = {
    "hybrid": ["2,12.5,0.25,100,8", "4,25,1,100,4"],
    "resampled": ["2,inf,inf,100,-1", "4,300,inf,100,0.3", "6,200,50,100,0.5"],
}
"""step, noise_scale, standard_error, gradient_variance, squared_gradient"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    model = tiny_params()["models"]["digits"]
    model["training"] |= {"steps": 6, "snapshot_every": 2}
    entry = {"model": "digits", "dataset": "digits", "batches": 25}
    noises = {"hybrid": entry, "resampled": entry | {"model": "other"}}
    made = Results(
        tmp_path_factory.mktemp("report") / "project",
        **{"models": {"digits": model, "other": model}, "gradient_noises": noises},
    )
    for name, rows in ROWS.items():
        folder = f"runs/gradient-noise/{name}"
        made.json(
            f"{folder}/record.json", made.record(f"gradient-noise@{name}") | {"params": noises[name], "batch_size": 16}
        )
        header = "step,noise_scale,standard_error,gradient_variance,squared_gradient"
        (made.root / folder / "gradient_noise.csv").write_text("\n".join([header, *rows]) + "\n")
    return made.report(whole_stage=True)


def test_one_table_has_every_training(report: Report) -> None:
    table = next(table for table in report.tables() if table[0] == ["training step", "hybrid", "resampled"])
    assert table[1:] == [
        ["2", "12.5 (± 0.25)", "unbounded"],
        ["4", "25 (± 1)", "300 (error unbounded)"],
        ["6", "", "200 (± 50)"],
    ]
    row = report.row("`resampled`")
    assert (row["model"], row["objective"]) == ("other", "hybrid")
    assert row["measured at each snapshot"] == "25 batches of 16 images"
    assert "2 gradient noise scales" in report.markdown and "gradient-noise@hybrid" in report.markdown


def test_one_figure_has_a_line_for_each(report: Report) -> None:
    assert report.markdown.count("(gradient_noise.png)") == 1
    with Image.open(report.folder / "gradient_noise.png") as image:
        image.verify()
    drawn = (report.folder / "gradient_noise.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in (*ROWS, "gradient noise scale (images)"))


def test_a_pipeline_without_has_no_such_section(tmp_path: Path) -> None:
    assert "radient noise" not in Results(tmp_path / "project").report().markdown
