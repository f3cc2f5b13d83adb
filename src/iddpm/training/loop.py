"""Training a diffusion model: the whole step is `DiffusionTraining.training_step`.

Everything random is a function of (seed, purpose, global sample position), so the run after a crash, with
another number of workers or another accumulation is the same run.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from iddpm.data import ShardFolder, TrainingStream, area_average, to_tensor
from iddpm.diffusion import (
    Denoiser,
    Objective,
    draw_timesteps,
    draw_weights,
    make_timestep_sampler,
    training_losses,
)
from iddpm.errors import UserError
from iddpm.params import Architecture, Device, Model, Precision
from iddpm.randomness import PositionalRandom
from iddpm.training.build import build_network, build_process
from iddpm.training.checkpoint import Weights
from iddpm.training.device import resolve_device
from iddpm.training.ema import update_ema
from iddpm.training.metrics_log import Meters


class Losses(NamedTuple):
    """Timesteps [N] of a microbatch, their importance weights [N] and the unweighted losses there by part, each [N]."""

    t: Tensor
    weights: Tensor
    parts: dict[str, Tensor]


Measurement = list[Losses]
"""The microbatches of a worker's share of a step."""


class Batch(NamedTuple):
    """Positions int64 [N] in the training order, images float32 [N, C, H, W] in [-1, 1] and what goes with them."""

    positions: Tensor
    x_start: Tensor
    labels: Tensor | None
    low_res: Tensor | None
    noise_level: Tensor | None


class DiffusionTraining:
    """One worker's share of the training of a diffusion model."""

    def __init__(self, model: Model, shards: Path, device: Device) -> None:
        self.model, self.training = model, model.training
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.local_batch = self.training.batch_size // self.world
        self.device = resolve_device(device)
        folder = ShardFolder(shards)
        self.card = folder.card
        self.stream = TrainingStream(folder, "train", self.training.seed)
        self.process = build_process(model.diffusion)
        self.network = build_network(model, folder.card, self.training.seed).to(self.device).train()
        self.ema = deepcopy(self.network).eval().requires_grad_(False)
        self.distributed = DistributedDataParallel(self.network) if self.world > 1 else self.network
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.training.learning_rate, weight_decay=self.training.weight_decay
        )
        self.timestep_sampler = make_timestep_sampler(self.training.timestep_sampling, self.process.timesteps)
        self.random = {
            purpose: PositionalRandom(self.training.seed, f"training/{purpose}")
            for purpose in ("timesteps", "noise", "flips", "dropout", "augmentation", "augmentation_level")
        }
        self.meters = Meters()
        self.nonfinite_in_a_row = 0

    def training_step(self, step: int) -> None:
        """One optimizer step on this worker's slice of the global batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        measured = self.accumulate_gradient(step)
        extra = self._extra_measurements(step)
        if self._apply_gradient(step):
            self._log(measured)
            for measurement in (measured, *extra):
                self._teach_timestep_sampler(measurement)

    def accumulate_gradient(self, step: int) -> Measurement:
        """Leave the gradient of step `step` in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        measured = []
        for positions, is_last in self._microbatches(step):
            batch = self._images(positions)
            t, weights = draw_timesteps(self.timestep_sampler, self.random["timesteps"].uniform(positions))
            measured.append(Losses(t, weights, self._backward(batch, t, weights, is_last)))
        return measured

    def _backward(self, batch: Batch, t: Tensor, weights: Tensor, is_last: bool) -> dict[str, Tensor]:
        """Add the gradient of a microbatch; its losses at t [N] by part, each [N].

        With `draws_at_once` the noise draws pass one group at a time, so that memory does not grow with their number.
        """
        groups = self._draw_groups()
        weights_by_group = self._draw_weights(batch, t, groups) if len(groups) > 1 else [None]
        seen: list[dict[str, Tensor]] = []
        for draws, known_weights in zip(groups, weights_by_group, strict=True):
            with self._reducing_gradients(is_last and draws is groups[-1]):
                losses = self._losses(batch, t, draws)
                draw_weight = self._weigh(losses["loss"], batch) if known_weights is None else known_weights
                torch.autograd.backward((losses["loss"] * draw_weight * weights).sum() / self.local_batch)
            seen.append({part: (values.detach() * draw_weight).sum(0) for part, values in losses.items()})
        return {part: torch.stack([group[part] for group in seen]).sum(0) for part in seen[0]}

    def _draw_groups(self, first: int = 0) -> list[range]:
        """The noise draws from number `first` on, in groups that are held in memory together."""
        draws = range(first, first + self.training.noise_draws)
        size = self.training.draws_at_once or len(draws)
        return [draws[start : start + size] for start in range(0, len(draws), size)]

    @torch.no_grad()
    def _draw_weights(self, batch: Batch, t: Tensor, groups: list[range]) -> list[Tensor]:
        """Weights of the draws of each group, which depend on the losses of all of them."""
        if self.training.objective is Objective.IWDIFF:
            losses = torch.cat([self._losses(batch, t, draws)["loss"] for draws in groups])
        else:
            losses = torch.zeros(self.training.noise_draws, len(t), device=self.device)
        return list(torch.split(self._weigh(losses, batch), len(groups[0])))

    def _weigh(self, losses: Tensor, batch: Batch) -> Tensor:
        return draw_weights(
            losses,
            batch.x_start[0].numel(),
            objective=self.training.objective,
            reduction=self.training.iwdiff_reduction,
        )

    @torch.no_grad()
    def _extra_measurements(self, step: int) -> list[Measurement]:
        """The coursework's "+n": losses of the same images at new timesteps and noise, for the timestep sampler."""
        extra: list[Measurement] = [[] for _ in range(self.training.extra_measurements)]
        for positions, _ in self._microbatches(step) if extra else ():
            batch = self._images(positions)
            for number, measurement in enumerate(extra, 1):
                t, weights = draw_timesteps(
                    self.timestep_sampler, self.random["timesteps"].uniform(positions, draw=number)
                )
                groups = self._draw_groups(first=number * self.training.noise_draws)
                losses = torch.cat([self._losses(batch, t, draws)["loss"] for draws in groups])
                measurement.append(Losses(t, weights, {"loss": (losses * self._weigh(losses, batch)).sum(0)}))
        return extra

    def _losses(self, batch: Batch, t: Tensor, draws: range) -> dict[str, Tensor]:
        """Losses by part for several noise draws, each [draws, N]."""
        count, shape = len(draws), batch.x_start.shape[1:]
        losses = training_losses(
            self.process,
            self._denoiser(batch, draws),
            batch.x_start.repeat(count, 1, 1, 1),
            t.repeat(count),
            torch.cat([self.random["noise"].normal(batch.positions, shape, draw) for draw in draws]),
            objective=self.training.objective,
            vlb_weight=self.training.vlb_weight,
        )
        return {part: values.reshape(count, len(t)) for part, values in losses.items()}

    def learning_rate(self, step: int) -> float:
        """Of step `step`, with linear warm-up."""
        return self.training.learning_rate * min(1.0, (step + 1) / max(1, self.training.warmup_steps))

    def _microbatches(self, step: int) -> Iterator[tuple[Tensor, bool]]:
        """Positions of each microbatch, and whether it is the last."""
        first = step * self.training.batch_size + self.rank * self.local_batch
        size = self.local_batch // self.training.microbatches
        for number in range(self.training.microbatches):
            positions = torch.arange(first + number * size, first + (number + 1) * size, device=self.device)
            yield positions, number == self.training.microbatches - 1

    def _reducing_gradients(self, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """The context of a forward and backward pass, in which workers share their gradients only if wanted."""
        if isinstance(self.distributed, DistributedDataParallel) and not wanted:
            return self.distributed.no_sync()
        return contextlib.nullcontext()

    def _images(self, positions: Tensor) -> Batch:
        images, labels = self.stream.batch(int(positions[0]), len(positions))
        x_start = to_tensor(images, self.device, self.model.size)
        if self.training.horizontal_flips:
            mirrored = (self.random["flips"].uniform(positions) < 0.5)[:, None, None, None]
            x_start = torch.where(mirrored, x_start.flip(3), x_start)
        kept_labels = torch.from_numpy(labels).to(self.device) if self.network.classes else None
        return Batch(positions, x_start, kept_labels, *self._low_resolution(positions, x_start))

    def _low_resolution(self, positions: Tensor, x_start: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What an upsampler sees of x_start, and the standard deviation [N] of the noise added to it."""
        if self.model.upsampling is None:
            return None, None
        low_res = area_average(x_start, self.model.upsampling.low_size)
        if self.model.upsampling.noise_augmentation == 0:
            return low_res, None
        level = self.random["augmentation_level"].uniform(positions).float() * self.model.upsampling.noise_augmentation
        noise = self.random["augmentation"].normal(positions, low_res.shape[1:])
        return low_res + level[:, None, None, None] * noise, level

    def _denoiser(self, batch: Batch, draws: range) -> Denoiser:
        """The network with a batch's conditioning, for x_t of several draws of the batch."""
        count = len(draws)
        key = torch.cat([self.random["dropout"].bits(batch.positions, 1, draw)[:, 0] for draw in draws])
        labels = None if batch.labels is None else batch.labels.repeat(count)
        upsampling: dict[str, Tensor | None] = {}
        if batch.low_res is not None:
            upsampling["low_res"] = batch.low_res.repeat(count, 1, 1, 1)
            upsampling["noise_level"] = None if batch.noise_level is None else batch.noise_level.repeat(count)
        reduced = self.training.precision is Precision.BFLOAT16

        def denoise(x_t: Tensor, timestep: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
                output: Tensor = self.distributed(x_t, timestep, labels, key, **upsampling)
            return output.float()

        return denoise

    def _apply_gradient(self, step: int) -> bool:
        """Clip, step and average; a non-finite gradient is skipped (False), and ends the run when it keeps coming."""
        limit = self.training.gradient_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        finite = bool(torch.isfinite(norm))
        self.meters.add("skipped_steps", torch.tensor([0.0 if finite else 1.0], device=self.device))
        if finite:
            self.nonfinite_in_a_row = 0
            self.meters.add("gradient_norm", norm.detach()[None])
            self.optimizer.step()
            update_ema(self.ema, self.network, self.training.ema_decay)
            return True
        self.nonfinite_in_a_row += 1
        if self.nonfinite_in_a_row >= self.training.nonfinite_limit:
            raise UserError(
                f"training: {self.nonfinite_in_a_row} steps in a row had a non-finite gradient, the last at step "
                f"{step + 1}; lower training.learning_rate. The last good checkpoint is kept"
            )
        return False

    def _log(self, measured: Measurement) -> None:
        for t, weights, parts in measured:
            for part, values in parts.items():
                self.meters.add_by_quartile(part, values, weights, t, self.process.timesteps)

    def _teach_timestep_sampler(self, measured: Measurement) -> None:
        """Every worker's sampler learns from the unweighted losses of the global batch, in its order."""
        t = torch.cat([losses.t for losses in measured])
        values = torch.cat([losses.parts["loss"] for losses in measured])
        if self.world > 1:
            all_t = [torch.empty_like(t) for _ in range(self.world)]
            all_values = [torch.empty_like(values) for _ in range(self.world)]
            dist.all_gather(all_t, t)
            dist.all_gather(all_values, values)
            t, values = torch.cat(all_t), torch.cat(all_values)
        self.timestep_sampler.update(t, values)

    def about(self) -> dict[str, Any]:
        return {
            "kind": "diffusion",
            "params": self.model.model_dump(mode="json"),
            "architecture": self.model.model_dump(mode="json", include=set(Architecture.model_fields)),
            "card": self.card.as_json(),
            "index_sha256": self.stream.folder.index_sha256,
        }

    def weights(self) -> dict[str, Weights]:
        return {"model": self.network.state_dict(), "ema": self.ema.state_dict()}

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "timestep_sampler": self.timestep_sampler.state_dict(),
            "nonfinite_in_a_row": self.nonfinite_in_a_row,
        }

    def load(self, weights: Callable[[str], Weights], state: dict[str, Any]) -> None:
        self.network.load_state_dict(weights("model"))
        self.ema.load_state_dict(weights("ema"))
        self.optimizer.load_state_dict(state["optimizer"])
        self.timestep_sampler.load_state_dict(state["timestep_sampler"])
        self.nonfinite_in_a_row = state["nonfinite_in_a_row"]
