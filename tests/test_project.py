"""The project as a whole: its lock and its committed parameters."""

import re
import tomllib

import pytest

from iddpm.checks import load_params

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


def test_committed_parameters_are_the_default_preset() -> None:
    load_params(ROOT / "params.yaml")
