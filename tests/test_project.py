"""The project as a whole: its lock and its committed parameters."""

import functools
import re
import tomllib
from pathlib import Path

import grimp
import pytest
import yaml

from iddpm.checks import load_params
from iddpm.cli import STAGES
from iddpm.stages.context import GROUPS
from iddpm.stages.prune import OUTPUT_FOLDERS
from iddpm.stages.run import ENTRY_POINTS

from .conftest import ROOT


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def test_lock_has_no_torchvision() -> None:
    """Its builds break torch and torchmetrics where the CPU build of torch is used."""
    assert "torchvision" not in pins() and "torchaudio" not in pins()


def test_lock_pins_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[\[=<>]", item)[0].strip().lower() for item in wanted}
    assert names - pins().keys() == set()
    assert pins()["torch"] == "2.13.0"


@pytest.mark.parametrize("path", sorted(ROOT.glob("presets/*.yaml")), ids=lambda path: path.stem)
def test_presets_are_sound_and_say_what_they_are(path) -> None:
    load_params(path)
    assert path.read_text().startswith("# ")


def test_every_list_of_stages_has_them_all() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(STAGES) == set(ENTRY_POINTS) == set(stages)
    groups = {kind: stage["foreach"].strip("${}") for kind, stage in stages.items() if kind != "report"}
    assert groups == GROUPS
    report = stages["report"]
    assert set(groups.values()) < set(report["params"])
    for kind, group in groups.items():
        for output in stages[kind]["do"]["outs"] + stages[kind]["do"].get("metrics", []):
            folder = output.rpartition("/")[0]
            assert group in OUTPUT_FOLDERS[folder]
            assert any(Path(folder).is_relative_to(path) for path in report["deps"])


@pytest.mark.parametrize("kind", sorted(ENTRY_POINTS))
def test_dvc_runs_each_stage_by_its_own_command(kind: str) -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][kind]
    assert ("foreach" in stage) == (kind in GROUPS)
    name = " ${key}" if kind in GROUPS else ""
    assert stage.get("do", stage)["cmd"] == f"exec iddpm stage {kind}{name}"


CARRIERS = {
    "iddpm.checks", "iddpm.errors", "iddpm.evaluation", "iddpm.stages", "iddpm.stages.context",
    "iddpm.stages.progress", "iddpm.stages.run", "iddpm.stages.shard", "iddpm.stages.train", "iddpm.training",
}  # fmt: skip
"""What surrounds a stage, or hands files on, without bearing on its result."""


@functools.cache
def import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("iddpm")


@pytest.mark.parametrize("kind", sorted(ENTRY_POINTS))
def test_every_source_a_stage_rests_on_is_among_its_dependencies(kind: str) -> None:
    graph = import_graph()
    module = f"iddpm.stages.{ENTRY_POINTS[kind][0]}"
    needed, waiting = {module}, [module]
    while waiting:
        for imported in graph.find_modules_directly_imported_by(waiting.pop()):
            if imported not in needed | CARRIERS - {"iddpm.evaluation"} and not imported.startswith("iddpm.tracking"):
                needed.add(imported)
                if not imported.startswith("iddpm.params"):  # it imports names of choices, nothing that computes
                    waiting.append(imported)
    if kind in ("surrogate", "train"):
        needed.discard("iddpm.evaluation.figures")  # its curves are no output
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    declared = [ROOT / path for path in stages[kind].get("do", stages[kind])["deps"] if path.startswith("src/")]
    assert all(path.exists() for path in declared)
    for name in needed - CARRIERS:
        file = ROOT / "src" / name.replace(".", "/")
        file = file if file.is_dir() else file.with_suffix(".py")
        assert any(file == path or file.is_relative_to(path) for path in declared), f"{kind} rests on {name}"


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
