"""Ray Train around the diffusion loop: in this process, on workers of this machine, or on a cluster."""

import os
from pathlib import Path
from typing import Any

import torch

from iddpm.errors import UserError
from iddpm.params import Compute, Device, Model
from iddpm.training.loop import DiffusionTraining
from iddpm.training.run import WorkFolder, train

WORKER_RESTARTS = 3
"""How often Ray replaces dead workers; each time the run goes on from its last checkpoint."""


def run_diffusion_training(model: Model, shards: Path, work: WorkFolder, device: Device) -> bool:
    """This process's share of the training; True when the model is finished, False after a requested stop."""
    return train(
        DiffusionTraining(model, shards, device),
        work,
        steps=model.training.steps,
        log_every=model.training.log_every,
        checkpoint_every=model.training.checkpoint_every,
    )


def _worker(config: dict[str, Any]) -> None:
    """Runs in every Ray worker. A user's mistake travels by file, since Ray would retry an exception."""
    work = WorkFolder(Path(config["work"]))
    try:
        run_diffusion_training(
            Model.model_validate_json(config["model"]), Path(config["shards"]), work, Device(config["device"])
        )
    except UserError as error:
        work.error.write_text(str(error))


def launch_diffusion_training(model: Model, shards: Path, work: WorkFolder, compute: Compute) -> bool:
    """Train on `compute.workers` processes; True when finished, False after a requested stop.

    UserError when there are too few GPUs or the training itself gave up.
    """
    work.error.unlink(missing_ok=True)
    _prepare_environment()
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    use_gpu = compute.workers > 0 and _start_ray(compute)
    device = compute.device if compute.workers == 0 else Device.CUDA if use_gpu else Device.CPU
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "model": model.model_dump_json(),
            "shards": str(shards.resolve()),
            "work": str(work.path.resolve()),
            "device": device.value,
        },
        scaling_config=ScalingConfig(num_workers=compute.workers, use_gpu=use_gpu),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=RunConfig(
            storage_path=str((work.path / "ray").resolve()), failure_config=FailureConfig(max_failures=WORKER_RESTARTS)
        ),
    )
    try:
        trainer.fit()
    finally:
        if compute.workers > 0:
            ray.shutdown()
    if work.error.exists():
        raise UserError(work.error.read_text())
    return work.finished.exists()


def _prepare_environment() -> None:
    """Settings that Ray reads when it is imported: no telemetry, loopback only on a single machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not os.environ.get("RAY_ADDRESS"):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def _start_ray(compute: Compute) -> bool:
    """Connect to the cluster at RAY_ADDRESS or start one here; whether the workers get a GPU each."""
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(
            num_cpus=max(compute.workers + 1, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if compute.device is Device.CUDA and gpus < compute.workers:
        ray.shutdown()
        raise UserError(f"compute.workers: {compute.workers} workers on GPUs, but Ray has {gpus}; lower it")
    return compute.device is not Device.CPU and gpus >= compute.workers and torch.version.cuda is not None
