"""import: an improved-diffusion checkpoint and its flags -> a finished model in runs/models/NAME."""

from iddpm.errors import UserError
from iddpm.exchange import import_pt
from iddpm.params import Import
from iddpm.stages.context import Stage, running, say


def run(stage: Stage) -> None:
    """Read the checkpoint and write it as a model of this project."""
    entry: Import = stage.entry
    if not (stage.root / entry.weights).exists():
        raise UserError(f"{entry.weights}: missing; put the checkpoint of imports.{stage.name} there")
    path = stage.input(entry.weights)
    output = f"runs/models/{stage.name}"
    with running(stage):
        model = import_pt(path, entry.flags)
        with stage.output_folder(output) as folder:
            model.write(folder, entry.model_dump(mode="json"))
        parameters = sum(tensor.numel() for tensor in model.weights.values())
        stage.scores = {"parameters": float(parameters)}
        stage.artifacts = [(f"{output}/{name}", "") for name in ("checkpoint.json", "manifest.json")]
        say(f"{stage.address}: {parameters:,} parameters")
