"""Memory of a worker: what it holds all the time, and the peak of a step, found by running the step without memory."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iddpm.diffusion import training_losses
from iddpm.params import Precision
from iddpm.stages.plan.operations import GanStep, NetworkPass, TrainingStep
from iddpm.training.build import build_gan, build_network, build_process

NUMBER = 4
"""Bytes of a float32."""
CPU = torch.device("cpu")

Parts = dict[str, int]
"""Part -> bytes: weights, ema, optimizer (Adam's two moments), and of a step activations (with gradients and temporary
tensors: everything alive at its peak) and, with several workers, buckets in which gradients are exchanged; of gradient
noise gradients, those added up and those of the batch before."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made while it is active, as an allocator would: the peak of the living.

    Of a kernel's own scratch memory it knows nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._take_in(tensor.untyped_storage())
        return result

    def _take_in(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


@contextmanager
def pretended_cpu() -> Iterator[None]:
    """Tensors made here have shapes and no data; operations on them take no memory and no arithmetic."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def _numbers(*networks: nn.Module) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _peak(step: Callable[[], object]) -> int:
    with LiveBytes() as live:
        step()
    peak: int = live.peak
    return peak


def memory_of(operation: TrainingStep | NetworkPass | GanStep, workers: int = 1) -> Parts:
    """Of one of `workers` workers; no memory is needed to know it."""
    with pretended_cpu():
        match operation:
            case TrainingStep():
                return _training_memory(operation, workers)
            case NetworkPass():
                return _pass_memory(operation)
            case GanStep():
                return _gan_memory(operation)


def _training_memory(operation: TrainingStep, workers: int) -> Parts:
    network, training = operation.network, operation.training
    draws = training.draws_at_once or training.noise_draws
    images = training.batch_size // workers // training.microbatches * draws
    module = build_network(network.architecture, network.card).train()

    def step() -> None:
        x, told = network.inputs(images, CPU)
        none = torch.zeros(images, dtype=torch.int64)

        def denoise(x_t: Tensor, timestep: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=training.precision is Precision.BFLOAT16):
                output: Tensor = module(x_t, timestep, dropout_key=none, **told)
            return output.float()

        losses = training_losses(
            build_process(network.architecture.diffusion),
            denoise,
            x,
            none,
            torch.zeros_like(x),
            objective=training.objective,
            vlb_weight=training.vlb_weight,
        )
        torch.autograd.backward(losses["loss"].mean())

    weights = NUMBER * _numbers(module)
    parts = {"weights": weights, "ema": weights, "optimizer": 2 * weights, "activations": _peak(step)}
    return parts | ({"buckets": weights} if workers > 1 else {})


def _pass_memory(operation: NetworkPass) -> Parts:
    network = operation.network
    module = build_network(network.architecture, network.card).eval()

    @torch.no_grad()
    def step() -> None:
        x, told = network.inputs(operation.images, CPU)
        module(x, torch.zeros(operation.images), **told)

    return {"weights": NUMBER * _numbers(module), "activations": _peak(step)}


def _gan_memory(operation: GanStep) -> Parts:
    """The generator's step, on twice the batch through both networks, takes most."""
    generator, discriminator = build_gan(operation.surrogate, operation.card)

    def step() -> None:
        images = 2 * operation.surrogate.batch_size
        labels = torch.zeros(images, dtype=torch.int64) if generator.classes else None
        fake = generator(torch.zeros(images, generator.z_dim), labels)
        torch.autograd.backward(-discriminator(fake, labels).mean())

    both, activations = NUMBER * _numbers(generator, discriminator), _peak(step)
    ema = NUMBER * _numbers(generator)
    return {"weights": both, "ema": ema, "optimizer": 2 * both, "activations": activations}


def features_bytes(images: int, numbers: int) -> int:
    """Of float32 features of images, in memory as in the cache."""
    return NUMBER * images * numbers
