"""mix: two finished models -> runs/models/NAME, a model that uses one of them in the middle, the other at both ends."""

from typing import Any

from iddpm.errors import UserError
from iddpm.params import Mixture
from iddpm.stages.context import Stage, fingerprint, flatten, running
from iddpm.training.checkpoint import Checkpoint, Weights, open_checkpoint, write_checkpoint


def run(stage: Stage) -> None:
    """Write a checkpoint that stands on its own, with the weights of both models."""
    mixture: Mixture = stage.entry
    paths = [stage.input(f"runs/models/{name}") for name in (mixture.middle, mixture.ends)]
    output = f"runs/models/{stage.name}"
    with running(stage):
        middle, ends = (open_checkpoint(path) for path in paths)
        stage.refuse_other_model(mixture.middle, middle)
        stage.refuse_other_model(mixture.ends, ends)
        about, weights = mix(f"mixtures.{stage.name}", mixture, middle, ends)
        with stage.output_folder(output) as folder:
            write_checkpoint(folder, about, weights)
        stage.artifacts = [(f"{output}/{name}", "") for name in ("checkpoint.json", "manifest.json")]


def mix(key: str, mixture: Mixture, middle: Checkpoint, ends: Checkpoint) -> tuple[dict[str, Any], dict[str, Weights]]:
    """What describes a mixture, and its sets of weights, named after the part that they belong to.

    The parameters were checked to agree; UserError begins with `key` when the images that were read do not.
    """
    first, second = (flatten(checkpoint.about["card"]) for checkpoint in (middle, ends))
    for name in first | second:
        if first.get(name) != second.get(name):
            raise UserError(
                f"params.yaml: {key}.ends: {name} of the images of {mixture.ends} is {second.get(name)}, of those of "
                f"{mixture.middle} {first.get(name)}; train both on the same"
            )
    parts = {"middle": middle, "ends": ends}
    about = {
        "kind": "mixture",
        "params": mixture.model_dump(mode="json"),
        "architectures": {part: checkpoint.about["architecture"] for part, checkpoint in parts.items()},
        "card": middle.about["card"],
        "parts_sha256": {part: fingerprint(checkpoint.path) for part, checkpoint in parts.items()},
    }
    weights = {
        name: {
            f"{part}.{key}": tensor
            for part, checkpoint in parts.items()
            for key, tensor in checkpoint.weights(name).items()
        }
        for name in ("ema", "model")
        if all(name in checkpoint.weight_names() for checkpoint in parts.values())
    }
    return about, weights
