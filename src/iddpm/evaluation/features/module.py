"""A user's own feature network: a folder with network.py, which defines build(folder) -> nn.Module."""

import contextlib
import hashlib
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from iddpm.errors import UserError
from iddpm.evaluation.features.network import ModuleFeatures

FILE = "network.py"


class Siblings:
    """The files beside a network.py, which its code may import: while it is loaded and runs, and only then.

    Outside, neither sys.path nor sys.modules show them, so that networks may have files of the same names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._imported = folder, dict[str, ModuleType]()

    @contextlib.contextmanager
    def importable(self) -> Iterator[None]:
        names = {module.name for module in pkgutil.iter_modules([str(self._folder)])} - sys.stdlib_module_names
        others, bytecode = _taken(names), sys.dont_write_bytecode
        sys.modules.update(self._imported)
        sys.path.insert(0, str(self._folder))
        sys.dont_write_bytecode = True  # evaluations depend on this folder
        try:
            yield
        finally:
            sys.dont_write_bytecode = bytecode
            sys.path.remove(str(self._folder))
            self._imported = _taken(names)
            sys.modules.update(others)


def _taken(names: set[str]) -> dict[str, ModuleType]:
    """The imported modules and packages of these names, no longer among the imported."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}


class CheckedModule(nn.Module):
    """A user's module whose errors, and outputs that are no features, become a UserError of one line."""

    def __init__(self, module: nn.Module, file: Path, siblings: Siblings) -> None:
        super().__init__()
        self.module, self._file, self._siblings = module, file, siblings
        self._widths: dict[str, int] | None = None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        with _user_errors(self._file), self._siblings.importable():
            outputs = self.module(images)
        named = {"features": outputs} if isinstance(outputs, Tensor) else {}
        if isinstance(outputs, tuple | list) and len(outputs) == 2:
            named = dict(zip(("features", "logits"), outputs, strict=True))
        if not named or not all(isinstance(output, Tensor) for output in named.values()):
            raise UserError(
                f"{self._file}: the network returned {type(outputs).__name__}; it must return a tensor of features, or "
                "two tensors: features and logits"
            )
        for name, output in named.items():
            if output.ndim != 2 or len(output) != len(images) or not output.is_floating_point() or not output.numel():
                raise UserError(
                    f"{self._file}: {name} of {len(images)} images are {output.dtype} {list(output.shape)}; they must "
                    f"be floating point [{len(images)}, number of {name}]"
                )
            if not output.isfinite().all():
                raise UserError(f"{self._file}: {name} are not all finite")
        widths = {name: output.shape[1] for name, output in named.items()}
        if widths != (self._widths or widths):
            raise UserError(f"{self._file}: the network gave {self._widths} for some images and {widths} for others")
        self._widths = widths
        return named["features"] if len(named) == 1 else (named["features"], named["logits"])


def find_code(folder: Path) -> Path:
    """The code of the network in `folder`. UserError when it is missing."""
    file = folder / FILE
    if not file.is_file():
        raise UserError(f"{file}: missing; features: module/{folder.name} needs it")
    return file


def open_module(folder: Path, device: torch.device) -> ModuleFeatures:
    """UserError names the file and line when it is missing, fails, or builds no module."""
    file, sha256, siblings = find_code(folder), _sha256(folder), Siblings(folder)
    # registered under a name of its own, as dataclasses and pickle look for a class in its module
    module = sys.modules[f"iddpm_features_{sha256}"] = ModuleType(f"iddpm_features_{sha256}")
    module.__file__ = str(file)
    with _user_errors(file), siblings.importable():
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    if not callable(getattr(module, "build", None)):
        raise UserError(f"{file}: defines no function build(folder)")
    with _user_errors(file), siblings.importable():
        network = module.build(folder)
    if not isinstance(network, nn.Module):
        raise UserError(f"{file}: build returned {type(network).__name__}, not a torch.nn.Module")
    identity = {"name": f"module/{folder.name}", "folder_sha256": sha256}
    return ModuleFeatures(CheckedModule(network, file, siblings), identity, f"fd-{folder.name}", device)


def _sha256(folder: Path) -> str:
    """Of every file of the folder, but for what Python keeps there."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            with open(path, "rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()}:{content}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _user_errors(file: Path) -> Iterator[None]:
    """An error of the user's code, as one line with its place in their files."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        place = str(file)
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).is_relative_to(file.parent):
                place = f"{frame.filename}: line {frame.lineno}"
        if isinstance(error, SyntaxError) and error.filename:
            place = f"{error.filename}: line {error.lineno}"
        reason = " ".join(str(error).split())
        raise UserError(f"{place}: {type(error).__name__}" + (f": {reason}" if reason else "")) from None
