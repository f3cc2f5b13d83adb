"""What is kept of a small sibling's report."""

from pathlib import Path

import pytest

from benchmarks.small_siblings import keep, provenance
from iddpm.checks import load_params

from ..conftest import ROOT

REPORT = """# Objectives
One line about it.

## Samples
### base
![base](base.png)
### The others
![other](other.png)

## Nearest training images
![nearest](nearest.png)

## Scores
| model | distance |
![distance](distance.png)
"""


def test_galleries_are_left_out(tmp_path: Path) -> None:
    report, kept = tmp_path / "report", tmp_path / "kept"
    report.mkdir()
    (report / "report.md").write_text(REPORT)
    for name in ("base", "other", "nearest", "distance"):
        (report / f"{name}.png").write_bytes(name.encode())
    kept.mkdir()
    (kept / "of-an-earlier-run.png").touch()
    keep(report, kept, "At commit 0123456.")
    assert sorted(path.name for path in kept.iterdir()) == ["base.png", "distance.png", "report.md"]
    text = (kept / "report.md").read_text()
    assert text.startswith("# Objectives\n\nAt commit 0123456.\nOne line about it.\n")
    assert "## Scores\n| model | distance |" in text and "Nearest" not in text and "The others" not in text


def test_provenance_has_commit_seeds_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    params = load_params(ROOT / "presets" / "objectives-small.yaml")
    line = provenance("objectives-small", "0123456789", params, 1503.2)
    assert line.startswith(
        "`iddpm preset objectives-small && dvc repro` at commit 0123456: 25 min 3 s with 1 thread on "
    )
    assert line.endswith(" Seeds: 0 in datasets, evaluations; 0, 1 in models, samplings.")
    changed = provenance("objectives-small", "0123456789-dirty", params, 1503.2)
    assert "at commit 0123456 with uncommitted changes: " in changed
