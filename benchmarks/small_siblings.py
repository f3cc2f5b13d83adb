"""Run small siblings of the experiments, each in a clone of this repository, and keep their reports in docs/results.

    python benchmarks/small_siblings.py table1-small steps-small     # without a name: all of them
    python benchmarks/small_siblings.py --clones FOLDER              # clones stay; an interrupted run goes on there

What is kept of a report: its tables and figures, without the galleries of denoising, interpolations, nearest
neighbours and all but the first samples.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"Denoising", "Interpolations", "Nearest training images"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in ROOT.glob("presets/*-small.yaml")))
    parser.add_argument("--clones", type=Path, help="where the clones lie; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.names:
            run(name, (options.clones or Path(temporary)).resolve() / name)


def run(name: str, clone: Path) -> None:
    """Bring the preset up to date in its clone, and keep its report with the commit and the time it took."""
    if not clone.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    env = os.environ | {"PYTHONPATH": str(clone / "src"), "DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "iddpm.cli", "preset", name, "--force"], cwd=clone, env=env, check=True)
    subprocess.run([sys.executable, "-m", "iddpm.cli", "prune"], cwd=clone, env=env, check=True)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=clone, env=env, check=True)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=clone, capture_output=True, text=True).stdout
    about = (
        f"`iddpm preset {name} && dvc repro` at commit {commit.strip()}, {minutes} min {seconds} s on "
        f"{os.cpu_count()} CPU cores ({platform.machine()}), {datetime.now(UTC):%Y-%m-%d}."
    )
    keep(clone / "runs" / "report", ROOT / "docs" / "results" / name, about)


def keep(report: Path, target: Path, about: str) -> None:
    """report.md without its galleries, and the pictures that it still shows."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    title, *sections = re.split(r"^(?=## )", (report / "report.md").read_text(), flags=re.MULTILINE)
    kept = [title.replace("\n", f"\n\n{about}\n", 1)]
    for section in sections:
        if section.splitlines()[0].removeprefix("## ") not in LEFT_OUT:
            kept += [
                part for part in re.split(r"^(?=### )", section, flags=re.MULTILINE) if "### The others" not in part
            ]
    text = "".join(kept)
    (target / "report.md").write_text(text)
    for picture in set(re.findall(r"\]\(([^)]+\.png)\)", text)):
        shutil.copyfile(report / picture, target / picture)


if __name__ == "__main__":
    main()
