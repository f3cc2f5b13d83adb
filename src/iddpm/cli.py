"""The `iddpm` command: the project's parameters, its stages and their tracking; the rest is in `iddpm.commands`.

Imports happen inside the commands, so that help is instant.
"""

import ctypes
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from iddpm.commands import (
    compare,
    download,
    evaluate,
    export,
    export_pngs,
    import_,
    inspect,
    invert,
    plan,
    project_root,
)
from iddpm.errors import UserError
from iddpm.model_commands import draw, register

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")

PR_SET_PDEATHSIG = 1
STAGES = (
    "shard", "surrogate", "train", "import", "mix", "sample", "surrogate-sample", "cascade", "reconstruct", "evaluate",
    "likelihood", "gradient-noise", "report",
)  # fmt: skip

app = typer.Typer(
    help="Reproducible training of image diffusion models.\n\n"
    "params.yaml says what to run, `dvc repro` runs whatever is out of date. Start with `iddpm preset`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def check() -> None:
    """Check params.yaml: unknown keys, types, ranges, contradictions, missing feature networks, each by its path."""
    from iddpm.checks import check_project

    params = check_project(project_root())
    groups = {name: value for name, value in params if isinstance(value, dict)}
    print("params.yaml is sound: " + ", ".join(f"{len(entries)} {name}" for name, entries in groups.items()))


def preset(
    name: Annotated[str | None, typer.Argument(help="Preset to make params.yaml from; none lists them.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a params.yaml that was edited.")] = False,
) -> None:
    """List the presets, or make one of them params.yaml."""
    from iddpm import presets

    root = project_root()
    if name is None:
        for line in presets.listing(root):
            print(line)
    else:
        presets.choose(root, name, force=force)
        print(f"params.yaml is now presets/{name}.yaml; `dvc repro` runs it")


def set_(
    assignments: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="e.g. samplings.ddim-25.steps=50")],
) -> None:
    """Change parameters in params.yaml, keeping its comments; nothing is written when the result is not sound."""
    from iddpm import presets

    presets.assign(project_root(), assignments)


def stage(
    kind: Annotated[str, typer.Argument(help=", ".join(STAGES))],
    name: Annotated[str, typer.Argument(help="The entry of params.yaml it runs for; none for report.")] = "",
) -> None:
    """Run one stage on what lies there now. `dvc repro` calls this; by hand it bypasses the cache."""
    if kind not in STAGES:
        raise UserError(f"stage {kind!r}: there is no such stage ({', '.join(STAGES)})")
    if bool(name) == (kind == "report"):
        raise UserError(f"stage {kind}: " + ("takes no name" if name else "needs the name of an entry of params.yaml"))
    _end_with_parent()  # before the imports, which take seconds
    from iddpm.stages.run import run_stage

    run_stage(kind, name, project_root())


def prune() -> None:
    """Check params.yaml, then remove outputs of entries it no longer has; DVC's cache keeps what DVC made."""
    from iddpm.stages.prune import prune as prune_outputs

    for path in prune_outputs(project_root()):
        print(f"removed {path}")


def track() -> None:
    """Deliver to MLflow what could not be delivered while its server was away."""
    from iddpm.tracking import deliver_pending, tracking_uri

    root = project_root()
    delivered = deliver_pending(root / "work", root)
    print(f"{len(delivered)} runs delivered to {tracking_uri(root)}")


def mlflow(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Serve MLflow's pages on this project's embedded store: runs, curves, figures, registry."""
    from iddpm.tracking import tracking_uri

    root = project_root()
    uri = tracking_uri(root)
    if not uri.startswith("sqlite:"):
        raise UserError(f"MLFLOW_TRACKING_URI: {uri} is a server of its own; open it in a browser")
    folder = Path(sys.executable).parent
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"  # mlflow starts uvicorn by name
    command = [str(folder / "mlflow"), "server", "--backend-store-uri", uri]
    os.execv(command[0], [*command, "--host", "127.0.0.1", "--port", str(port)])


COMMANDS: dict[str, Callable[..., None]] = {
    "preset": preset,
    "check": check,
    "set": set_,
    "inspect": inspect,
    "plan": plan,
    "download": download,
    "stage": stage,
    "prune": prune,
    "track": track,
    "mlflow": mlflow,
    "draw": draw,
    "invert": invert,
    "evaluate": evaluate,
    "compare": compare,
    "export-pngs": export_pngs,
    "register": register,
    "import": import_,
    "export": export,
}
"""In the order of the help."""
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _end_with_parent() -> None:
    """Linux sends TERM when the parent dies: a killed dvc leaves no orphan."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Entry point: a user's mistake is one line per problem and exit code 1; an interruption 128 + signal."""
    try:
        app()
    except UserError as error:
        print(f"iddpm: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(
            f"iddpm: {error.filename or 'writing failed'}: {error.strerror}; nothing finished was lost", file=sys.stderr
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
