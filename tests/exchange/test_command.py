"""`iddpm import`, `iddpm export` and the import stage as a user meets them."""

import sys
from pathlib import Path

import pytest
import torch

from iddpm import cli
from iddpm.checks import load_params
from iddpm.errors import UserError
from iddpm.exchange import architecture_from_flags, import_unet2d
from iddpm.stages.models import DiffusionModel
from iddpm.stages.single_model import SingleModel
from iddpm.training.checkpoint import open_checkpoint
from tests.conftest import ROOT, Project, tiny_params

from .conftest import TINY_FLAGS, assert_same, model_folder, tiny_pt


class Command:
    """The command in this process: exit code, output, error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> tuple[int | None, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["iddpm", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = self.capsys.readouterr()
        return exit_.value.code, captured.out, captured.err  # type: ignore[return-value]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)


def test_import_and_export(command: Command, tmp_path: Path) -> None:
    stored = tiny_pt(Path("tiny.pt"))
    code, out, _ = command("import", "tiny.pt", "models/tiny", "--flags", TINY_FLAGS)
    assert code == 0 and out.startswith("models/tiny: a model of 32 pixels")
    code, out, _ = command("export", "models/tiny", "again.pt")
    printed = out.strip().removeprefix("again.pt: its flags are ")
    assert code == 0 and architecture_from_flags(printed) == architecture_from_flags(TINY_FLAGS)
    assert_same(torch.load("again.pt", weights_only=True), stored)
    code, out, _ = command("import", "again.pt", "models/again", "--flags", printed)
    assert code == 0
    assert_same(open_checkpoint(tmp_path / "models/again").weights("ema"), stored)


def test_there_and_back_through_diffusers(command: Command, tmp_path: Path) -> None:
    architecture, card = architecture_from_flags(f"{TINY_FLAGS} --num_heads 1")
    written = model_folder(tmp_path / "model", architecture, card)
    assert command("export", "model", "out", "--format", "diffusers", "--weights", "raw")[0] == 0
    assert command("import", "out", "again")[0] == 0
    assert_same(open_checkpoint(tmp_path / "again").weights("ema"), written["model"])
    assert import_unet2d(tmp_path / "out", None).architecture == architecture
    assert DiffusionModel(tmp_path / "again").card == card


def test_a_release_has_its_flags_in_its_preset(command: Command, tmp_path: Path) -> None:
    tiny_pt(tmp_path / "small.pt", "--image_size 32 --num_channels 32 --num_res_blocks 1")
    command.monkeypatch.chdir(ROOT)
    code, _, error = command("import", tmp_path / "small.pt", tmp_path / "x", "--release", "cifar10_uncond_50M_500K")
    assert code == 1 and error.strip().endswith(
        "the file speaks for --num_channels 32, --num_res_blocks 1, --learn_sigma False"
    )


def test_mistakes_are_one_line(command: Command, tmp_path: Path) -> None:
    tiny_pt(tmp_path / "tiny.pt")
    (tmp_path / "text.pt").write_text("none\n")
    model_folder(tmp_path / "model", *architecture_from_flags(f"{TINY_FLAGS} --attention_resolutions 32"))
    (tmp_path / "folder").mkdir()
    imports = {
        ("tiny.pt", "out"): "tiny.pt: does not say which network it is of; give its flags with --flags or --release",
        ("tiny.pt", "out", "--flags", "--num_heads_upsample 2"): "--num_heads_upsample 2: networks of this project",
        ("tiny.pt", "out", "--flags", f"{TINY_FLAGS} --learn_sigma True"): "the file speaks for --learn_sigma False",
        ("tiny.pt", "model", "--flags", TINY_FLAGS): "model: exists already",
        ("tiny.pt", "out", "--flags", TINY_FLAGS, "--release", "x"): "--release: stands for flags",
        ("tiny.pt", "out", "--release", "x"): "no dvc.yaml here or above",
        ("text.pt", "out", "--flags", TINY_FLAGS): "text.pt: truncated, damaged, or no checkpoint at all",
        ("none.pt", "out", "--flags", TINY_FLAGS): "none.pt: no such file",
        ("folder", "out"): "folder/config.json: missing",
    }
    exports = {
        ("none", "out"): "none: no checkpoint here",
        ("model", "tiny.pt"): "tiny.pt: exists already",
        ("model", "out", "--format", "onnx"): "--format onnx: choose openai or diffusers",
        ("model", "out", "--weights", "best"): "--weights best: choose ema or raw",
        ("model", "out", "--format", "diffusers"): "UNet2DModel cannot be this network: it fixes the width of a head",
    }
    for name, cases in (("import", imports), ("export", exports)):
        for arguments, message in cases.items():
            code, _, error = command(name, *arguments)
            assert code == 1 and message in error and len(error.splitlines()) == 1, error
    assert not (tmp_path / "out").exists()


@pytest.mark.tools
def test_the_stage(project: Project) -> None:
    weights = "data/raw/checkpoints/tiny.pt"
    flags = f"{TINY_FLAGS} --learn_sigma True"
    params = tiny_params() | {"imports": {"tiny": {"weights": weights, "flags": flags}}}
    project.write(params)

    def refusal() -> str:
        said = project.mistake("stage", "import", "tiny")
        assert len(said.splitlines()) == 1
        return said

    assert f"{weights}: missing; put the checkpoint of imports.tiny there" in refusal()
    (project.root / weights).parent.mkdir(parents=True)
    tiny_pt(project.root / weights, TINY_FLAGS)
    assert "the file speaks for --learn_sigma False" in refusal()
    assert not (project.root / "runs/models/tiny").exists()
    (project.root / weights).unlink()
    stored = tiny_pt(project.root / weights, flags)
    project.answer("stage", "import", "tiny")
    checkpoint = open_checkpoint(project.root / "runs/models/tiny")
    assert_same(checkpoint.weights("ema"), stored)
    assert checkpoint.about["params"] == params["imports"]["tiny"]
    params["imports"]["tiny"]["flags"] = f"{flags} --num_heads_upsample 2"
    project.write(params)
    with pytest.raises(UserError, match=r"params.yaml: imports\.tiny\.flags: --num_heads_upsample 2: networks of"):
        load_params(project.root / "params.yaml")
    assert SingleModel(project.root / "runs/models/tiny").draw(None, 2, steps="2").shape == (2, 32, 32, 3)


def test_flags_that_begin_like_an_option_reach_the_parser(command: Command) -> None:
    tiny_pt(Path("tiny.pt"))
    code, _, error = command("import", "tiny.pt", "out", "--flags=--image_size 128")
    assert code == 1 and "--image_size 128: the public code builds" in error
    with pytest.raises(UserError):
        architecture_from_flags("--image_size 128")
