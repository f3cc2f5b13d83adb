"""train and surrogate: shards -> a finished model in runs/models/NAME or runs/surrogates/NAME, its time in runs/times.

What determines a model is in `iddpm.training`; this module carries files, so dvc.yaml does not list it.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from iddpm.evaluation.figures import DIFFUSION_CURVES, GAN_CURVES, training_curves
from iddpm.params import Compute, DiffusionSurrogate, Model, SnganSurrogate, Surrogate
from iddpm.stages.context import Stage, StageInterrupted, running, say
from iddpm.stages.progress import TrainingProgress
from iddpm.training import WorkFolder, train
from iddpm.training.launcher import launch_diffusion_training

Launch = Callable[[Path, WorkFolder, Compute], bool]


def run(stage: Stage) -> None:
    """Train a diffusion model."""
    _train_diffusion(stage, stage.entry, f"runs/models/{stage.name}")


def _train_diffusion(stage: Stage, model: Model, output: str) -> None:
    def launch(shards: Path, work: WorkFolder, compute: Compute) -> bool:
        where = f"{compute.workers} Ray workers" if compute.workers else "this process"
        say(f"{stage.address}: {model.training.steps} steps of {model.training.batch_size} images in {where}")
        return launch_diffusion_training(model, shards, work, compute)

    _train(stage, launch, output, model.dataset, model.training.steps, DIFFUSION_CURVES)


def run_surrogate(stage: Stage) -> None:
    """Train an SNGAN in this process, or a low-resolution diffusion model like any other."""
    surrogate: Surrogate = stage.entry
    if isinstance(surrogate, DiffusionSurrogate):
        _train_diffusion(stage, surrogate, f"runs/surrogates/{stage.name}")
    else:
        _train_sngan(stage, surrogate)


def _train_sngan(stage: Stage, surrogate: SnganSurrogate) -> None:
    def launch(shards: Path, work: WorkFolder, compute: Compute) -> bool:
        from iddpm.training.gan import GanTraining

        say(f"{stage.address}: {surrogate.steps} generator steps of {surrogate.critic_steps} critic steps each")
        return train(
            GanTraining(surrogate, shards, compute.device),
            work,
            steps=surrogate.steps,
            log_every=surrogate.log_every,
            checkpoint_every=surrogate.checkpoint_every,
        )

    _train(stage, launch, f"runs/surrogates/{stage.name}", surrogate.dataset, surrogate.steps, GAN_CURVES)


def _train(stage: Stage, launch: Launch, output: str, dataset: str, steps: int, curves: tuple[str, ...]) -> None:
    """Resume or start, show progress, publish the finished model with its curves."""
    shards = stage.input(f"data/shards/{dataset}")
    with running(stage):
        work = WorkFolder(stage.work)
        stage.stop_with(work.stop_request)
        with TrainingProgress(stage.address, work, steps, curves[0]):
            finished = launch(shards, work, stage.params.compute)
        if not finished:
            raise StageInterrupted(stage.last_signal)
        rows = work.metrics.rows()
        stage.scores = {f"final_{name}": rows[-1][name] for name in curves if name in rows[-1]}
        # before the model, which ends the work; not beside the model: equal trainings give equal folders
        with stage.output_file(output.replace("runs/", "runs/times/") + ".json") as file:
            about = {"seconds_per_step": work.metrics.seconds_per_step(), "record": stage.record()}
            file.write_text(json.dumps(about, indent=2) + "\n")
        with stage.output_folder(output) as folder:
            shutil.copytree(work.finished, folder, dirs_exist_ok=True)
            if work.snapshots.exists():  # linked: they are large, and until the end a training that goes on needs them
                shutil.copytree(work.snapshots, folder / "snapshots", copy_function=_link)
            work.metrics.export_csv(folder / "metrics.csv")
        work.clear()
        training_curves(rows, curves, stage.work / "curves")
        stage.artifacts = [(f"{output}/{name}", "") for name in ("checkpoint.json", "manifest.json")]
        stage.artifacts += [(str(stage.work / f"curves.{kind}"), "") for kind in ("png", "svg")]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # some file systems have no hard links
        shutil.copy2(source, target)
