"""Commands that do not run the pipeline: on what it is made of, on finished models, and on models of public code.

Those that draw and register are in `iddpm.model_commands`. As in `iddpm.cli`, imports happen inside the commands.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from iddpm.errors import UserError, choose


class PublicCode(StrEnum):
    """Whose files a model is exported to."""

    OPENAI = "openai"
    DIFFUSERS = "diffusers"


def project_root() -> Path:
    """The nearest folder upwards that holds dvc.yaml. UserError outside a project."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    raise UserError(f"{here}: no dvc.yaml here or above; run iddpm in the project's folder")


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


def plan(
    preset: Annotated[str | None, typer.Argument(help="A preset's name; none reads params.yaml.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs that stages share; 1 by default.")] = None,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="Peak of one GPU in bfloat16, 10^12 operations/s: A100 312, H100 989.")
    ] = 312.0,
    utilisation: Annotated[float, typer.Option(min=0.001, max=1.0, help="Share of the peak that is reached.")] = 0.35,
    workers: Annotated[
        int | None, typer.Option(min=0, help="GPUs of one training, instead of compute.workers.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER=IMAGES",
            help="How many images data/raw/images/FOLDER will hold; FOLDER=TRAIN,TEST where it has a folder for each.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time real steps on this machine instead; about a minute.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """What a preset will take before it runs: arithmetic, memory, hours and disk of every stage. See docs/plan.md."""
    from iddpm.presets import preset_path
    from iddpm.stages.plan import Gpus
    from iddpm.stages.plan import plan as plan_pipeline

    if measure and gpus is not None:
        raise UserError("--measure: times this machine; leave --gpus out")
    root = project_root()
    path = root / "params.yaml" if preset is None else preset_path(root, preset)
    machine = None if measure else Gpus(gpus or 1, tflops, utilisation)
    print(plan_pipeline(root, path, gpus=machine, workers=workers, images=images or (), as_json=json))


def download(
    what: Annotated[
        str,
        typer.Argument(
            help="cifar10: 171 MB into data/raw/cifar10; inception: the network of published FIDs, 96 MB into "
            "data/raw/features/inception. Their hashes are checked."
        ),
    ],
) -> None:
    """Fetch a public dataset or feature network into data/raw; the one command that goes online."""
    from iddpm.stages.download import DOWNLOADS
    from iddpm.stages.progress import track

    if what not in DOWNLOADS:
        raise UserError(f"download {what!r}: only {' and '.join(DOWNLOADS)} can be downloaded")
    chosen = DOWNLOADS[what]
    folder = project_root() / "data" / "raw" / chosen.folder
    for _ in track(chosen.fetch(folder), f"download {what}", chosen.megabytes, "MB"):
        pass
    print(f"{chosen.title} is in {folder}")


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
    from iddpm.checks import load_params
    from iddpm.params import Split, Weights
    from iddpm.stages.invert import invert_to_file

    part, which = choose("--split", split, Split), choose("--weights", weights, Weights)
    root = project_root()
    device = load_params(root / "params.yaml").compute.device
    result = invert_to_file(root, model, out, dataset, part, count, steps, clip, which, device)
    print(
        f"{count} images in {out}: mean absolute error {result.mean_absolute_error:.2f} grey levels, "
        f"PSNR {result.psnr:.1f} dB"
    )


def evaluate(
    context: typer.Context,
    samples: Annotated[str, typer.Option(help="An .npz (arr_0 uint8 NHWC), a folder of images, or a dataset.")],
    reference: Annotated[str, typer.Option(help="The same: usually the training images.")],
    out: Annotated[Path, typer.Option(help="Folder to make: scores.json, protocol.json, nearest neighbours.")],
    features: Annotated[str, typer.Option(help="lite0, inception, pixels or module/NAME.")] = "lite0",
    split: Annotated[str, typer.Option(help="Of what is given as a dataset: train or test.")] = "train",
    neighbours: Annotated[int, typer.Option(help="k of precision, recall, density and coverage.")] = 3,
    manifold_reference: Annotated[
        int | None, typer.Option(help="Reference images of precision, recall, density and coverage; all by default.")
    ] = None,
    kid_subset_size: Annotated[int, typer.Option(help="Images per KID subset.")] = 250,
    inception_splits: Annotated[int, typer.Option(help="Parts of the inception score.")] = 10,
    bootstrap: Annotated[int, typer.Option(help="Resamples for the 95 % intervals; 0 makes none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of subsets, splits and resamples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Score any set of images against any other, with the protocol that makes the scores comparable."""
    from pydantic import ValidationError

    from iddpm.evaluation.images import open_images
    from iddpm.params import Device, ScoreSettings, Split, refusal
    from iddpm.stages.evaluate import evaluate_to_folder, shown_scores
    from iddpm.training.device import resolve_device

    root, part = project_root(), choose("--split", split, Split)
    try:
        settings = ScoreSettings(**{name: context.params[name] for name in ScoreSettings.model_fields})
    except ValidationError as error:
        problems = [f"--{str(problem['loc'][0]).replace('_', '-')}: {refusal(problem)}" for problem in error.errors()]
        raise UserError("\n".join(problems)) from None
    sets = [open_images(text, root, part) for text in (samples, reference)]
    where = resolve_device(choose("--device", device, Device), "--device")
    print(shown_scores(evaluate_to_folder(root, sets[0], sets[1], settings, out, where)))


def compare(
    first: Annotated[str, typer.Argument(help="An evaluation, or several of different seeds: A0,A1,A2.")],
    second: Annotated[str, typer.Argument(help="Likewise; folders that iddpm evaluate made do as well.")],
    seeds: Annotated[
        bool,
        typer.Option("--seeds", help="Several are seeds of one thing, even of several trainings or of unknown making."),
    ] = False,
) -> None:
    """Compare two evaluations, or refuse with what differs in how they were measured."""
    from iddpm.stages.compare import compare as compare_evaluations

    print(compare_evaluations(project_root(), first, second, seeds))


def export_pngs(
    samples: Annotated[str, typer.Argument(help="A key of samplings, an .npz, or a dataset.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make: 000000.png, ... and labels.csv.")],
    split: Annotated[str, typer.Option(help="Of a dataset: train or test.")] = "train",
) -> None:
    """Write images as PNG files, for other tools and for an image folder as source."""
    from iddpm.evaluation.images import open_images
    from iddpm.params import Split
    from iddpm.stages.export_pngs import write_pngs
    from iddpm.stages.progress import track

    root = project_root()
    npz = root / "runs" / "samples" / samples / "samples.npz"
    images = open_images(str(npz) if npz.is_file() else samples, root, choose("--split", split, Split))
    for _ in track(write_pngs(images, folder), f"export-pngs {samples}", images.count, "images"):
        pass
    print(f"{images.count} images in {folder}")


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


def export(
    folder: Annotated[Path, typer.Argument(help="A folder of a finished model, such as runs/models/digits.")],
    out: Annotated[Path, typer.Argument(help="The .pt file (openai) or the folder (diffusers) to write.")],
    format: Annotated[str, typer.Option(help="openai: improved-diffusion; diffusers: UNet2DModel.")] = "openai",
    weights: Annotated[str, typer.Option(help="ema or raw.")] = "ema",
) -> None:
    """Write a model for public code: an improved-diffusion checkpoint, or a folder for diffusers' UNet2DModel."""
    from iddpm.exchange import export_pt, export_unet2d
    from iddpm.params import Weights

    code, which = choose("--format", format, PublicCode), choose("--weights", weights, Weights)
    if code is PublicCode.OPENAI:
        print(f"{out}: its flags are {export_pt(folder, out, which)}")
    else:
        export_unet2d(folder, out, which)
        print(f"{out}: a UNet2DModel folder")
