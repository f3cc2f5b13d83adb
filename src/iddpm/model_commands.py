"""Commands on finished models: into pictures, and into the registry.

As in `iddpm.cli`, imports happen inside the commands.
"""

from pathlib import Path
from typing import Annotated

import typer

from iddpm.commands import project_root
from iddpm.errors import UserError, choose


def draw(
    model: Annotated[str, typer.Argument(help="A folder such as runs/models/digits, or models:/NAME@ALIAS.")],
    out: Annotated[Path, typer.Argument(help="Picture to write (.png), or images as arr_0 of an .npz file.")],
    count: Annotated[int, typer.Option(min=1, help="Number of images.")] = 100,
    steps: Annotated[str | None, typer.Option(help="Reverse steps: 100, '10,8,6' or 'ddim50'.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ancestral or ddim.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, max=1, help="Noise of a ddim step; 0 is deterministic.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all noise.")] = None,
    label: Annotated[int | None, typer.Option(min=0, help="One class for all images; else they go round.")] = None,
) -> None:
    """Draw images from a model folder or from the MLflow registry.

    What is not given is, of a registered model, as in the sampling that earned its best score; of a registered cascade,
    of which steps, sampler and eta are the base model's, as its pipeline has it; of a folder 100 ancestral steps (all
    steps where variances are learned), seed 0.
    """
    from iddpm.diffusion import Sampler
    from iddpm.stages.publish import draw_to_file

    chosen = None if sampler is None else choose("--sampler", sampler, Sampler).value
    given = {"steps": steps, "sampler": chosen, "eta": eta, "seed": seed}
    asked = {name: value for name, value in given.items() if value is not None}
    draw_to_file(project_root(), model, out, count, label, asked)
    print(f"{count} images in {out}")


def register(
    model: Annotated[
        str | None,
        typer.Argument(help="A key of models whose training has finished; none registers every model and cascade."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name in the registry; by default the model's key, of everything the preset's.")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Alias to set; champion by default.")] = None,
    evaluation: Annotated[
        str | None, typer.Option(help="A key of evaluations whose scores and protocol go with the model.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Move the alias only if this score of the evaluation is better.")
    ] = None,
) -> None:
    """Publish finished models in the MLflow registry: safetensors and code, no pickle. See docs/registry.md."""
    from iddpm.presets import chosen_preset
    from iddpm.stages.publish import register_everything, register_model

    root = project_root()
    if model is not None:
        alias = alias or "champion"
        version = register_model(root, model, name or model, alias, evaluation, metric)
        print(f"registered models:/{name or model}@{alias} (version {version})")
        return
    if alias or evaluation or metric:
        raise UserError("--alias, --evaluation, --metric: are of a single model; without one every score has its alias")
    name = name or chosen_preset(root)
    if name is None:
        raise UserError("params.yaml: equals no preset; name the registered model with --name")
    registered = register_everything(root, name)
    print("\n".join(registered.done))
    if registered.left_out:
        raise UserError("\n".join(registered.left_out))
