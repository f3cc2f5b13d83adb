"""What a flow run writes into params.yaml, with the project's own commands and git."""

import shutil
from collections.abc import Callable

import pytest

from pipelines.plan import WORK, Refused, prepare_parameters
from tests.conftest import Project

pytestmark = pytest.mark.tools


def a_preset(project: Project) -> None:
    shutil.copy(project.root / "presets" / "digits-quick.yaml", project.root / "params.yaml")


def committed(project: Project) -> None:
    a_preset(project)
    with (project.root / "params.yaml").open("a") as parameters:
        parameters.write("# mine\n")
    project.run("git", "add", "params.yaml")
    project.run("git", "-c", "user.name=me", "-c", "user.email=me@here", "commit", "-qm", "mine")


@pytest.mark.parametrize("clean", [a_preset, committed])
def test_overrides_of_clean_parameters_do_not_lock_out_the_next_preset(
    project: Project, monkeypatch: pytest.MonkeyPatch, clean: Callable[[Project], None]
) -> None:
    clean(project)
    monkeypatch.chdir(project.root)
    WORK.mkdir()
    for steps in (20, 30):  # twice in a row: the second finds what the first one wrote
        parameters = prepare_parameters(None, False, {"samplings.ancestral-25.steps": steps})
        assert parameters["samplings"]["ancestral-25"]["steps"] == steps
    parameters = prepare_parameters("digits", False, {})
    assert parameters["samplings"]["ancestral-25"]["steps"] == 25


def test_overrides_of_edited_parameters_are_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    a_preset(project)
    with (project.root / "params.yaml").open("a") as parameters:
        parameters.write("# mine\n")
    monkeypatch.chdir(project.root)
    WORK.mkdir()
    prepare_parameters(None, False, {"samplings.ancestral-25.steps": 20})
    with pytest.raises(Refused, match=r"^iddpm: params.yaml: has changes that are in no preset and in no commit"):
        prepare_parameters("digits", False, {})
    assert "# mine" in (project.root / "params.yaml").read_text()
