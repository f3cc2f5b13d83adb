"""presets/*.yaml and edits of params.yaml. Nothing is written that does not pass the checks."""

import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from iddpm.checks import load_params
from iddpm.errors import UserError
from iddpm.params import read_params


def listing(root: Path) -> list[str]:
    """One line per preset: its name and its first comment; a star marks the one that params.yaml equals."""
    chosen, lines = chosen_preset(root), []
    for path in sorted((root / "presets").glob("*.yaml")):
        first = path.read_text().splitlines()[0].lstrip("# ")
        lines.append(f"{'*' if path.stem == chosen else ' '} {path.stem:<32} {first}")
    return lines


def chosen_preset(root: Path) -> str | None:
    """The preset that params.yaml equals."""
    current = (root / "params.yaml").read_bytes() if (root / "params.yaml").exists() else b""
    return next((path.stem for path in sorted((root / "presets").glob("*.yaml")) if path.read_bytes() == current), None)


def preset_path(root: Path, name: str) -> Path:
    """The preset's file. UserError when it is unknown."""
    path = root / "presets" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (root / "presets").glob("*.yaml")))
        raise UserError(f"preset {name!r}: there is none of that name ({known})")
    return path


def choose(root: Path, name: str, *, force: bool = False) -> None:
    """Make a preset params.yaml. UserError when it is unknown, not sound, or would overwrite the user's edits."""
    path = preset_path(root, name)
    load_params(path)
    if not force and has_edits(root):
        raise UserError("params.yaml: has changes that are in no preset and in no commit; commit them, or use --force")
    _write(root / "params.yaml", path.read_bytes())


def assign(root: Path, assignments: list[str]) -> None:
    """Set dotted keys to YAML values in params.yaml, keeping comments and order."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    target = root / "params.yaml"
    read_params(target)  # a file that cannot be read at all is refused with its own message
    data = yaml.load(target)
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise UserError(f"{assignment!r}: write KEY=VALUE, such as samplings.ddim-25.steps=50")
        *parents, last = key.split(".")
        section: Any = data
        for parent in parents:
            if not isinstance(section, dict) or parent not in section:
                raise UserError(f"params.yaml: {key}: there is no section {parent!r}")
            section = section[parent]
        if not isinstance(section, dict):
            raise UserError(f"params.yaml: {key}: {parents[-1]} is a value, not a section")
        try:
            section[last] = YAML().load(text)
        except YAMLError:
            raise UserError(f"{key}: {text!r} is not a YAML value") from None
    candidate = target.with_name(".params.yaml.new")
    try:
        with open(candidate, "w") as stream:
            yaml.dump(data, stream)
        load_params(candidate)
        _write(target, candidate.read_bytes())
    except UserError as error:
        raise UserError(str(error).replace(str(candidate), "params.yaml")) from None
    finally:
        candidate.unlink(missing_ok=True)


def has_edits(root: Path) -> bool:
    """Whether params.yaml holds work that would be lost: equal to no preset and not committed."""
    target = root / "params.yaml"
    if not target.exists() or any(p.read_bytes() == target.read_bytes() for p in (root / "presets").glob("*.yaml")):
        return False
    status = subprocess.run(["git", "status", "--porcelain", "params.yaml"], cwd=root, capture_output=True, text=True)
    return status.returncode != 0 or bool(status.stdout.strip())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
