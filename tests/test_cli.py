"""The command as a user meets it: help, exit codes, one line per mistake."""

import re

import pytest

from .conftest import Project, tiny_params


def test_help_names_every_command(project: Project) -> None:
    text = project.run("iddpm", "--help").stdout
    commands = [
        "preset", "check", "set", "inspect", "plan", "download", "stage", "prune", "track", "mlflow", "draw", "invert",
        "evaluate", "compare", "export-pngs", "register", "import", "export",
    ]  # fmt: skip
    assert re.findall(r"^\W*([a-z-]+)  +[A-Z]", text, re.MULTILINE) == commands
    for command in ("set", "stage", "draw", "export"):
        assert "--help" in project.run("iddpm", command, "--help").stdout


def test_check(project: Project) -> None:
    assert "sound" in project.answer("check")
    params = tiny_params()
    params["models"]["digits"]["training"]["stepz"] = 3
    project.write(params)
    assert project.mistake("check").strip().endswith("params.yaml: models.digits.training.stepz: unknown parameter")


def test_presets(project: Project) -> None:
    project.write({"datasets": {}})
    assert "changes that are in no preset" in project.mistake("preset", "digits")
    project.answer("preset", "digits", "--force")
    assert re.search(r"^\* digits ", project.answer("preset"), re.MULTILINE)
    assert "there is none of that name (architectures, " in project.mistake("preset", "imagenet")


def test_set_keeps_comments_and_refuses_nonsense(project: Project) -> None:
    project.answer("preset", "digits", "--force")
    before = (project.root / "params.yaml").read_text()
    project.answer("set", "models.digits.training.learning_rate=5.0e-4")
    after = (project.root / "params.yaml").read_text()
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert changed == ["      learning_rate: 5.0e-4"] and "# training processes" in after
    assert "unknown parameter" in project.mistake("set", "models.digits.training.lr=1")
    assert "no section 'nobody'" in project.mistake("set", "models.nobody.training.steps=1")
    assert "KEY=VALUE" in project.mistake("set", "steps")
    assert "is not a YAML value" in project.mistake("set", "samplings.ddim-25.steps=[1,")
    assert (project.root / "params.yaml").read_text() == after


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage", "bake", "digits"], "there is no such stage"),
        (["stage", "train"], "needs the name"),
        (["stage", "report", "digits"], "takes no name"),
        (["stage", "train", "nobody"], "params.yaml: models.nobody: there is no such entry"),
        (["stage", "train", "digits"], "data/shards/digits: missing; `dvc repro"),
        (["draw", "runs/models/digits", "x.png"], "no checkpoint here"),
        (["draw", "runs/models/digits", "x.jpg"], "name a .png picture or an .npz"),
        (["draw", "runs/models/digits", "x.png", "--sampler", "euler"], "--sampler euler: choose ancestral or ddim"),
        (["invert", "m", "x.png", "--dataset", "digits", "--split", "valid"], "--split valid: choose train or test"),
        (["stage", "gradient-noise", "nobody"], "params.yaml: gradient_noises.nobody: there is no such entry"),
        (["set", "samplings.nobody.steps=1"], "no section 'nobody'"),
        (["register", "digits"], "no checkpoint here"),
    ],
)
def test_mistakes_are_one_line(project: Project, arguments: list[str], message: str) -> None:
    text = project.mistake(*arguments)
    assert message in text and len(text.strip().splitlines()) == 1


def test_outside_a_project(project: Project, tmp_path) -> None:
    project.root = tmp_path
    assert "no dvc.yaml here or above" in project.mistake("check")
