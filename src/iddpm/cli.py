"""The `iddpm` command. Imports happen inside the commands, so that help is instant."""

import ctypes
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from iddpm.errors import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")

PR_SET_PDEATHSIG = 1
STAGES = (
    "shard", "surrogate", "train", "import", "mix", "sample", "surrogate-sample", "evaluate", "likelihood", "report",
)  # fmt: skip

app = typer.Typer(
    help="Reproducible training of image diffusion models.\n\n"
    "params.yaml says what to run, `dvc repro` runs whatever is out of date. Start with `iddpm preset`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def project_root() -> Path:
    """The nearest folder upwards that holds dvc.yaml. UserError outside a project."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    raise UserError(f"{here}: no dvc.yaml here or above; run iddpm in the project's folder")


@app.command()
def check() -> None:
    """Check params.yaml: unknown keys, types, ranges and contradictions, each named by its path."""
    from iddpm.checks import load_params

    params = load_params(project_root() / "params.yaml")
    groups = {name: len(getattr(params, name)) for name in type(params).model_fields if name != "compute"}
    print("params.yaml is sound: " + ", ".join(f"{count} {name}" for name, count in groups.items()))


@app.command()
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


@app.command("set")
def set_(
    assignments: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="e.g. samplings.ddim-25.steps=50")],
) -> None:
    """Change parameters in params.yaml, keeping its comments; nothing is written when the result is not sound."""
    from iddpm import presets

    presets.assign(project_root(), assignments)


@app.command()
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


@app.command()
def inspect(
    name: Annotated[str | None, typer.Argument(help="Entry whose blocks are listed; none lists all networks.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="A preset's name or a parameter file to read instead of params.yaml.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Parameters and multiply-adds of the networks that params.yaml declares, in total or block by block."""
    from iddpm.stages.inspect import inspect as inspect_networks

    print(inspect_networks(project_root(), name, preset, as_json=json))


@app.command()
def download(
    dataset: Annotated[str, typer.Argument(help="cifar10: 170 MB, md5 checked, into data/raw/cifar10.")],
) -> None:
    """Fetch a public dataset into data/raw; the one command that needs a network."""
    if dataset != "cifar10":
        raise UserError(f"download {dataset!r}: only cifar10 can be downloaded")
    from iddpm.stages.download import CIFAR10_MB, download_cifar10
    from iddpm.stages.progress import track

    folder = project_root() / "data" / "raw" / "cifar10"
    for _ in track(download_cifar10(folder), "download cifar10", CIFAR10_MB, "MB"):
        pass
    print(f"CIFAR-10 is in {folder}")


@app.command()
def prune() -> None:
    """Check params.yaml, then remove outputs of entries it no longer has; DVC's cache keeps what DVC made."""
    from iddpm.stages.prune import prune as prune_outputs

    for path in prune_outputs(project_root()):
        print(f"removed {path}")


@app.command()
def track() -> None:
    """Deliver to MLflow what could not be delivered while its server was away."""
    from iddpm.tracking import deliver_pending, tracking_uri

    root = project_root()
    delivered = deliver_pending(root / "work", root)
    print(f"{len(delivered)} runs delivered to {tracking_uri(root)}")


@app.command()
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


@app.command()
def register(
    model: Annotated[str, typer.Argument(help="A key of models whose training has finished.")],
    name: Annotated[str | None, typer.Option(help="Name in the registry; the model's key by default.")] = None,
    alias: Annotated[str, typer.Option(help="Alias to set.")] = "champion",
    evaluation: Annotated[
        str | None, typer.Option(help="A key of evaluations whose scores and protocol go with the model.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Move the alias only if this score of the evaluation is better.")
    ] = None,
) -> None:
    """Publish a finished model in the MLflow registry: safetensors and code, no pickle."""
    from iddpm.stages.publish import register_model

    version = register_model(project_root(), model, name or model, alias, evaluation, metric)
    print(f"registered models:/{name or model}@{alias} (version {version})")


@app.command()
def draw(
    model: Annotated[str, typer.Argument(help="A folder such as runs/models/digits, or models:/NAME@ALIAS.")],
    out: Annotated[Path, typer.Argument(help="Picture to write (.png), or images as arr_0 of an .npz file.")],
    count: Annotated[int, typer.Option(min=1, help="Number of images.")] = 100,
    steps: Annotated[str, typer.Option(help="Reverse steps: 100, '10,8,6' or 'ddim50'.")] = "100",
    sampler: Annotated[str, typer.Option(help="ancestral or ddim.")] = "ancestral",
    eta: Annotated[float, typer.Option(min=0, max=1, help="Noise of a ddim step; 0 is deterministic.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of all noise.")] = 0,
    label: Annotated[int | None, typer.Option(min=0, help="One class for all images; else they go round.")] = None,
) -> None:
    """Draw images from a model folder or from the MLflow registry."""
    from iddpm.stages.publish import draw_to_file

    draw_to_file(project_root(), model, out, count, steps, sampler, eta, seed, label)
    print(f"{count} images in {out}")


@app.command()
def invert(
    model: Annotated[Path, typer.Argument(help="A folder such as runs/models/digits.")],
    out: Annotated[Path, typer.Argument(help="Picture to write (.png), or arrays (.npz).")],
    dataset: Annotated[str, typer.Option(help="Images of data/shards/DATASET.")],
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    count: Annotated[int, typer.Option(min=1, help="Number of images, from the first.")] = 8,
    steps: Annotated[str, typer.Option(help="DDIM steps either way: 50, '10,8,6' or 'ddim50'.")] = "50",
    clip: Annotated[
        bool, typer.Option(help="Clip the predicted image to [-1, 1] at every step; a cosine schedule needs it.")
    ] = True,
    weights: Annotated[str, typer.Option(help="ema or raw.")] = "ema",
) -> None:
    """Encode real images into a model's noise by DDIM inversion, decode them again, and show what was lost."""
    from iddpm.stages.invert import invert_to_file

    result = invert_to_file(project_root(), model, out, dataset, split, count, steps, clip, weights)
    print(
        f"{count} images in {out}: mean absolute error {result.mean_absolute_error:.2f} grey levels, "
        f"PSNR {result.psnr:.1f} dB"
    )


@app.command("gradient-noise")
def gradient_noise(
    models: Annotated[list[str], typer.Argument(help="Keys of models trained with training.snapshot_every.")],
    batches: Annotated[int, typer.Option(help="Batches measured at each snapshot.")] = 100,
    out: Annotated[Path, typer.Option(help="Folder for gradient_noise.csv, .png and .svg.")] = Path(
        "runs/gradient-noise"
    ),
) -> None:
    """Compare the gradient noise scale of trained models over their training (paper, section 3.3)."""
    from iddpm.checks import load_params
    from iddpm.stages.gradient_noise import compare_gradient_noise

    root = project_root()
    device = load_params(root / "params.yaml").compute.device
    compare_gradient_noise(root, models, batches, out, device)
    print(f"gradient noise of {len(models)} models in {out}")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A .pt file of improved-diffusion, or a UNet2DModel folder.")],
    folder: Annotated[Path, typer.Argument(help="Model folder to write, such as runs/models/NAME.")],
    flags: Annotated[
        str | None, typer.Option(help="Its MODEL_FLAGS and DIFFUSION_FLAGS; of a folder, those of the process.")
    ] = None,
    release: Annotated[str | None, typer.Option(help="A released model: the preset so named has its flags.")] = None,
) -> None:
    """Make a model folder of public weights. Nothing in the file is executed; docs/exchange.md has what fits."""
    from iddpm.exchange import import_pt, import_unet2d, refuse_existing, release_flags

    refuse_existing(folder)
    if flags is not None and release is not None:
        raise UserError("--release: stands for flags; leave --flags out")
    if release is not None:
        flags = release_flags(project_root() / "presets", release)
    if source.is_dir():
        model = import_unet2d(source, flags)
    elif flags is None:
        raise UserError(f"{source}: does not say which network it is of; give its flags with --flags or --release")
    else:
        model = import_pt(source, flags)
    model.write(folder, {"weights": str(source), "flags": flags or ""})
    print(f"{folder}: a model of {model.card.size} pixels; iddpm draw and iddpm export take it")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A folder of a finished model, such as runs/models/digits.")],
    out: Annotated[Path, typer.Argument(help="The .pt file (openai) or the folder (diffusers) to write.")],
    format: Annotated[str, typer.Option(help="openai: improved-diffusion; diffusers: UNet2DModel.")] = "openai",
    weights: Annotated[str, typer.Option(help="ema or raw.")] = "ema",
) -> None:
    """Write a model for public code: an improved-diffusion checkpoint, or a folder for diffusers' UNet2DModel."""
    from iddpm.exchange import export_pt, export_unet2d
    from iddpm.params import Weights

    if format not in ("openai", "diffusers"):
        raise UserError(f"--format {format}: choose openai or diffusers")
    if weights not in list(Weights):
        raise UserError(f"--weights {weights}: choose {' or '.join(Weights)}")
    if format == "openai":
        print(f"{out}: its flags are {export_pt(folder, out, Weights(weights))}")
    else:
        export_unet2d(folder, out, Weights(weights))
        print(f"{out}: a UNet2DModel folder")


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
