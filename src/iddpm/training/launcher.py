"""Ray Train around the diffusion loop: in this process, on workers of this machine, or on a cluster."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch.distributed as dist
from pydantic import TypeAdapter

from iddpm.errors import UserError
from iddpm.params import Compute, Device, DiffusionSurrogate, Model
from iddpm.training.loop import DiffusionTraining
from iddpm.training.run import WorkFolder, train

TRAINABLE: TypeAdapter[Model] = TypeAdapter(Model | DiffusionSurrogate)
ENDING_S = 5.0
"""How long what Ray started here may take to end by itself."""
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
        snapshot_every=model.training.snapshot_every,
    )


def _worker(config: dict[str, Any]) -> None:
    """Runs in every Ray worker. A user's mistake travels by file, since Ray would retry an exception."""
    work = WorkFolder(Path(config["work"]))
    if work.error.exists():  # restarted after another worker met it
        return
    try:
        if config["rendezvous"]:
            _join_process_group(work.path, config["rendezvous"])
        run_diffusion_training(
            TRAINABLE.validate_json(config["model"]), Path(config["shards"]), work, Device(config["device"])
        )
    except UserError as error:
        work.error.write_text(str(error))
        if dist.is_initialized():
            raise  # the other workers wait for this one: let Ray end them


def _join_process_group(work: Path, backend: str) -> None:
    """Form the process group of this machine's workers over a file: no port is open but on loopback."""
    import ray.train
    import ray.util

    group = ray.util.get_current_placement_group()  # of this attempt: a restarted group must not meet an old file
    context = ray.train.get_context()
    dist.init_process_group(
        backend,
        init_method=f"file://{work}/rendezvous-{group.id.hex()}",
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
    )


def launch_diffusion_training(model: Model, shards: Path, work: WorkFolder, compute: Compute) -> bool:
    """Train on `compute.workers` processes; True when finished, False after a requested stop.

    UserError when there are too few GPUs or the training itself gave up.
    """
    work.error.unlink(missing_ok=True)
    shutil.rmtree(work.finished, ignore_errors=True)
    _prepare_environment()
    on_this_machine = compute.workers > 0 and not os.environ.get("RAY_ADDRESS")
    with _ray(compute) if compute.workers > 0 else contextlib.nullcontext(False) as use_gpu:
        device = compute.device if compute.workers == 0 else Device.CUDA if use_gpu else Device.CPU
        backend = "nccl" if use_gpu else "gloo"
        config = {
            "model": model.model_dump_json(),
            "shards": str(shards.resolve()),
            "work": str(work.path.resolve()),
            "device": device.value,
            "rendezvous": backend if on_this_machine else "",
        }
        _make_trainer(config, compute.workers, use_gpu, None if on_this_machine else backend).fit()
    if work.error.exists():
        raise UserError(work.error.read_text())
    return work.finished.exists()


def _make_trainer(config: dict[str, Any], workers: int, use_gpu: bool, ray_backend: str | None) -> Any:
    """The TorchTrainer; without `ray_backend` the workers form their process group themselves."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):  # type: ignore[misc]
        def _register_sigint_handler(self, controller: Any) -> None:
            """Ray would abort the run; the stage's own handler asks it for a checkpoint."""

    class OwnProcessGroup(TorchConfig):  # type: ignore[misc]
        """Leaves the process group to the workers: Ray's rendezvous listens on every interface."""

        backend_cls = Backend

    return Trainer(
        _worker,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        torch_config=TorchConfig(backend=ray_backend) if ray_backend else OwnProcessGroup(),
        run_config=RunConfig(
            storage_path=f"{config['work']}/ray", failure_config=FailureConfig(max_failures=WORKER_RESTARTS)
        ),
    )


def _prepare_environment() -> None:
    """Settings that Ray reads when it is imported: no telemetry, loopback only on a single machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not os.environ.get("RAY_ADDRESS"):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"


@contextlib.contextmanager
def _ray(compute: Compute) -> Iterator[bool]:
    """The cluster, and whether the workers get a GPU each; one that was started here ends with all its processes.

    Ray does not wait for them, and now and then one waits for ever for a lock of its own (2.60, in ~Publisher).
    """
    import ray

    before = set(psutil.Process().children())
    try:
        try:
            use_gpu = _start_ray(compute)
        finally:
            started = set(psutil.Process().children()) - before
        yield use_gpu
    finally:
        for process in set(started):
            with contextlib.suppress(psutil.NoSuchProcess):
                started |= set(process.children(recursive=True))
        ray.shutdown()
        for process in psutil.wait_procs(started, ENDING_S)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _start_ray(compute: Compute) -> bool:
    """Connect to the cluster at RAY_ADDRESS or start one here; whether the workers get a GPU each."""
    import ray

    on_term = signal.getsignal(signal.SIGTERM)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(
            num_cpus=max(compute.workers + 1, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    signal.signal(signal.SIGTERM, on_term)  # ray.init has put its own handler there
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if compute.device is Device.CPU or (compute.device is Device.AUTO and gpus == 0):
        return False
    if gpus < compute.workers:
        raise UserError(
            f"compute.workers: {compute.workers} workers need a GPU each and Ray has {gpus}; lower it, or device: cpu"
        )
    return True
