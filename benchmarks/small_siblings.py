"""Run small siblings of the experiments, each in a clone of this repository, and keep their reports in docs/results.

    python benchmarks/small_siblings.py table1-small steps-small     # without a name: all of them

The clones lie in work/siblings. An interrupted sibling goes on there, at the commit at which it began; delete its clone
to begin anew. One that fails does not stop the others.

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
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iddpm.checks import load_params
from iddpm.params import Params
from iddpm.stages.context import git_commit

ROOT = Path(__file__).resolve().parents[1]
CLONES = ROOT / "work" / "siblings"
LEFT_OUT = {"Denoising", "Interpolations", "Nearest training images"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in ROOT.glob("presets/*-small.yaml")))
    failed = [name for name in parser.parse_args().names if not run(name, CLONES / name)]
    if failed:
        sys.exit(f"failed, to be seen in {CLONES.relative_to(ROOT)}: {', '.join(failed)}")


def run(name: str, clone: Path) -> bool:
    """Bring the preset up to date in its clone and keep its report; False if one of its commands failed."""
    tools = Path(sys.executable).parent
    env = os.environ | {"PYTHONPATH": str(clone / "src"), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    commands = [["iddpm", "preset", name, "--force"], ["iddpm", "prune"], ["dvc", "repro", "--keep-going"]]
    if not clone.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        (clone / "work").mkdir(exist_ok=True)
    spent = clone / "work" / "seconds"
    start, before = time.monotonic(), float(spent.read_text()) if spent.exists() else 0.0
    try:
        if any(subprocess.run(command, cwd=clone, env=env).returncode for command in commands):
            return False
    finally:
        seconds = before + time.monotonic() - start
        spent.write_text(str(seconds))
    about = provenance(name, git_commit(clone), load_params(clone / "params.yaml"), seconds)
    keep(clone / "runs" / "report", ROOT / "docs" / "results" / name, about)
    return True


def provenance(name: str, commit: str, params: Params, seconds: float) -> str:
    """The line under the title: command, commit (as `git_commit` has it), seeds, time."""
    sections: dict[tuple[int, ...], list[str]] = {}
    for section, entries in params.model_dump().items():
        if found := tuple(sorted(set(seeds(entries)))):
            sections.setdefault(found, []).append(section)
    drawn = "; ".join(f"{', '.join(map(str, found))} in {', '.join(names)}" for found, names in sections.items())
    minutes, rest = divmod(round(seconds), 60)
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    changed = " with uncommitted changes" if commit.endswith("-dirty") else ""
    return (
        f"`iddpm preset {name} && dvc repro` at commit {commit[:7]}{changed}: {minutes} min {rest} s with {threads} "
        f"thread{'s' * (threads != '1')} on {os.cpu_count()} CPU cores ({platform.machine()}), "
        f"{datetime.now(UTC):%Y-%m-%d}. Seeds: {drawn}."
    )


def seeds(values: Any) -> Iterator[int]:
    """Every value of a key `seed`, however deep."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from [value] if key == "seed" else seeds(value)


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
