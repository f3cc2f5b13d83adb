"""Training a diffusion model: the whole step is `DiffusionTraining.training_step`.

Everything random is a function of (seed, purpose, global sample position), so the run after a crash, with
another number of workers or another accumulation is the same run.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from iddpm.data import ShardFolder, TrainingStream
from iddpm.diffusion import draw_timesteps, make_timestep_sampler, training_losses
from iddpm.errors import UserError
from iddpm.params import Device, Model, Precision
from iddpm.randomness import PositionalRandom
from iddpm.training.build import build_network, build_process, resolve_device
from iddpm.training.checkpoint import Weights
from iddpm.training.ema import update_ema
from iddpm.training.metrics_log import Meters


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
        self.network = build_network(model, folder.card).to(self.device).train()
        self.ema = deepcopy(self.network).eval().requires_grad_(False)
        self.distributed = DistributedDataParallel(self.network) if self.world > 1 else self.network
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.training.learning_rate, weight_decay=self.training.weight_decay
        )
        self.timestep_sampler = make_timestep_sampler(self.training.timestep_sampling, self.process.timesteps)
        self.random = {
            purpose: PositionalRandom(self.training.seed, f"training/{purpose}")
            for purpose in ("timesteps", "noise", "flips", "dropout")
        }
        self.meters = Meters()
        self.nonfinite_in_a_row = 0

    def training_step(self, step: int) -> None:
        """One optimizer step on this worker's slice of the global batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        seen = []
        for positions, context in self._microbatches(step):
            with context:
                x_start, labels = self._images(positions)
                t, weights = draw_timesteps(self.timestep_sampler, self.random["timesteps"].uniform(positions))
                noise = self.random["noise"].normal(positions, x_start.shape[1:])
                losses = training_losses(
                    self.process,
                    self._denoiser(labels, positions),
                    x_start,
                    t,
                    noise,
                    objective=self.training.objective,
                    vlb_weight=self.training.vlb_weight,
                )
                torch.autograd.backward((losses["loss"] * weights).sum() / self.local_batch)
            seen.append((t, {part: values.detach() for part, values in losses.items()}))
        if self._apply_gradient(step):
            self._take_in(seen)

    def learning_rate(self, step: int) -> float:
        """Of step `step`, with linear warm-up."""
        return self.training.learning_rate * min(1.0, (step + 1) / max(1, self.training.warmup_steps))

    def _microbatches(self, step: int) -> Iterator[tuple[Tensor, contextlib.AbstractContextManager[None]]]:
        """Positions of each microbatch, and the context that lets only the last one reduce gradients."""
        first = step * self.training.batch_size + self.rank * self.local_batch
        size = self.local_batch // self.training.microbatches
        for number in range(self.training.microbatches):
            positions = torch.arange(first + number * size, first + (number + 1) * size, device=self.device)
            last = number == self.training.microbatches - 1
            if isinstance(self.distributed, DistributedDataParallel) and not last:
                yield positions, self.distributed.no_sync()
            else:
                yield positions, contextlib.nullcontext()

    def _images(self, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images float32 [N, C, H, W] in [-1, 1] and labels [N] or None."""
        images, labels = self.stream.batch(int(positions[0]), len(positions))
        x_start = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.training.horizontal_flips:
            mirrored = (self.random["flips"].uniform(positions) < 0.5)[:, None, None, None]
            x_start = torch.where(mirrored, x_start.flip(3), x_start)
        return x_start, torch.from_numpy(labels).to(self.device) if self.network.classes else None

    def _denoiser(self, labels: Tensor | None, positions: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        dropout_key = self.random["dropout"].bits(positions, 1)[:, 0]
        reduced = self.training.precision is Precision.BFLOAT16

        def denoise(x_t: Tensor, timestep: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
                output: Tensor = self.distributed(x_t, timestep, labels, dropout_key)
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

    def _take_in(self, seen: list[tuple[Tensor, dict[str, Tensor]]]) -> None:
        """Log the losses; every worker's timestep sampler learns from those of the global batch, in its order."""
        for t, parts in seen:
            for part, values in parts.items():
                self.meters.add_by_quartile(part, values, t, self.process.timesteps)
        t, losses = torch.cat([t for t, _ in seen]), torch.cat([parts["loss"] for _, parts in seen])
        if self.world > 1:
            all_t = [torch.empty_like(t) for _ in range(self.world)]
            all_losses = [torch.empty_like(losses) for _ in range(self.world)]
            dist.all_gather(all_t, t)
            dist.all_gather(all_losses, losses)
            t, losses = torch.cat(all_t), torch.cat(all_losses)
        self.timestep_sampler.update(t, losses)

    def about(self) -> dict[str, Any]:
        return {
            "kind": "diffusion",
            "params": self.model.model_dump(mode="json"),
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
