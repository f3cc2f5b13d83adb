"""Times beside published ones: no ratio where the seeds of one row contradict each other."""

import json
from pathlib import Path

import pytest
import yaml

from iddpm.stages.context import Stage
from iddpm.stages.report.beside import beside_published
from iddpm.stages.report.blocks import Cell, Table
from iddpm.stages.report.gather import gather

from ..conftest import ROOT
from .test_report import Results


def project(root: Path, preset: str) -> Results:
    """Every training took 0.412 seconds a step, every sampling 2 seconds."""
    made = Results(root, **yaml.safe_load((ROOT / f"presets/{preset}.yaml").read_text()))
    for number, name in enumerate(made.params.evaluations):
        made.evaluated(name, {"frechet_distance": 0.5 + number / 50})
        made.timed(f"runs/models/{name}", 0.412)
    return made


def beside(made: Results, column: str) -> tuple[dict[str, Cell], str]:
    """What stands in that column of our rows, and the caption of the table."""
    table = next(
        block for block in beside_published(gather(Stage("report", "", made.root))) if isinstance(block, Table)
    )
    at = [one.title for one in table.columns].index(column)
    return {row[0].text.removesuffix(" (2 training seeds)"): row[at] for row in table.rows if "ours" in row[0].note}, (
        table.caption
    )


LEFT_OUT = "Ratios to and of these times are left out, since one seed took more than 1.25 times as long as another"


def test_relative_times_of_unsteady_seeds_are_left_out(tmp_path: Path) -> None:
    made = project(tmp_path / "project", "objectives-small")
    cells, caption = beside(made, "training time, relative")
    assert cells["DDPM"] == Cell("≠ 1", "288 s") and cells["both"] == Cell("≠ 1", "seeds 1 to 1, 288 s")
    assert LEFT_OUT not in caption
    made.timed("runs/models/both-1", 0.5)  # less than a quarter more
    made.timed("runs/models/IWDiff-1", 1.15)
    cells, caption = beside(made, "training time, relative")
    assert cells["both"] == Cell("≠ 1.11", "seeds 1 to 1.21, 319 s")
    assert cells["IWDiff"] == Cell("") and cells["DDPM"].text == "≠ 1"
    assert LEFT_OUT in caption and caption.endswith(": training of IWDiff (2 training seeds) (0.412 to 1.15 s a step).")
    made.timed("runs/models/DDPM-1", 0.6)  # to which all others are ratios
    cells, caption = beside(made, "training time, relative")
    assert len(cells) == 5 and set(cells.values()) == {Cell("")}
    assert "training of DDPM (2 training seeds) (0.412 to 0.6 s a step) and training of IWDiff" in caption


def test_hours_of_unsteady_seeds_stand_with_their_range_and_without_ratio(tmp_path: Path) -> None:
    made = project(tmp_path / "project", "architectures-small")
    made.timed("runs/models/MBConv12-1", 1.236)  # three times 0.412: 0.0572 and 0.172 hours for 500 steps
    cells, caption = beside(made, "training hours")
    assert cells["MBConv12"] == Cell("≠ 0.114", "seeds 0.0572 to 0.172") and cells["Default"] == Cell("≠ 0.0572", "× 1")
    assert caption.endswith(": training of MBConv12 (2 training seeds) (0.412 to 1.24 s a step).")


def test_speeds_of_unsteady_samplings_are_left_out_too(tmp_path: Path) -> None:
    made = project(tmp_path / "project", "architectures-small")
    path = made.root / "runs/evaluations/MBConv12-1/protocol.json"
    about = json.loads(path.read_text())
    about["samples"]["sampling_seconds"] = 5.0
    path.write_text(json.dumps(about))
    cells, caption = beside(made, "sampling speed, relative")
    assert cells["MBConv12"] == Cell("") and cells["MBConv20"].text == "≠ 1"
    assert LEFT_OUT in caption and "sampling of MBConv12 (2 training seeds) (" in caption


@pytest.mark.parametrize(("second", "shown"), [(0.515, True), (0.516, False)])
def test_a_quarter_of_the_smaller_is_the_limit(tmp_path: Path, second: float, shown: bool) -> None:
    made = project(tmp_path / "project", "objectives-small")
    made.timed("runs/models/both-1", second)
    assert bool(beside(made, "training time, relative")[0]["both"].text) is shown
