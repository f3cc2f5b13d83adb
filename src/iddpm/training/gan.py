"""Training an SNGAN (Miyato et al. 2018): hinge loss, several critic steps, linear learning-rate decay.

Runs in one process: batch norm sees the whole batch. Randomness is positional, as in the diffusion loop.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iddpm.data import ShardFolder, TrainingStream
from iddpm.params import Device, SnganSurrogate
from iddpm.randomness import PositionalRandom
from iddpm.training.build import build_gan
from iddpm.training.checkpoint import Weights
from iddpm.training.device import resolve_device
from iddpm.training.ema import update_ema
from iddpm.training.metrics_log import Meters


class GanTraining:
    """Generator, its moving average, and discriminator."""

    def __init__(self, surrogate: SnganSurrogate, shards: Path, device: Device) -> None:
        self.surrogate, self.device = surrogate, resolve_device(device)
        folder = ShardFolder(shards)
        self.card = folder.card
        self.stream = TrainingStream(folder, "train", surrogate.seed)
        generator, discriminator = build_gan(surrogate, folder.card)
        self.generator, self.discriminator = generator.to(self.device), discriminator.to(self.device)
        self.ema = deepcopy(self.generator).eval().requires_grad_(False)
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=surrogate.learning_rate, betas=(0.0, 0.9))
            for name, network in (("generator", self.generator), ("discriminator", self.discriminator))
        }
        self.random = {
            purpose: PositionalRandom(surrogate.seed, f"gan/{purpose}")
            for purpose in ("critic_latent", "critic_label", "latent", "label", "dequantisation")
        }
        self.meters = Meters()

    def training_step(self, step: int) -> None:
        """`critic_steps` discriminator steps, one generator step on twice the batch."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
        batch = self.surrogate.batch_size
        for critic_step in range(self.surrogate.critic_steps):
            first = (step * self.surrogate.critic_steps + critic_step) * batch
            self._discriminator_step(torch.arange(first, first + batch, device=self.device))
        self._generator_step(torch.arange(step * 2 * batch, (step + 1) * 2 * batch, device=self.device))
        update_ema(self.ema, self.generator, self.surrogate.ema_decay)

    def learning_rate(self, step: int) -> float:
        """Falls linearly to 0 over the run."""
        return self.surrogate.learning_rate * (1.0 - step / self.surrogate.steps)

    def _fake(self, positions: Tensor, prefix: str) -> tuple[Tensor, Tensor | None]:
        z = self.random[f"{prefix}latent"].normal(positions, (self.surrogate.z_dim,))
        classes = self.generator.classes
        labels = self.random[f"{prefix}label"].bits(positions, 1)[:, 0] % classes if classes else None
        return self.generator(z, labels), labels

    def _discriminator_step(self, positions: Tensor) -> None:
        images, real_labels = self.stream.batch(int(positions[0]), len(positions))
        grey = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float()
        # Uniform dequantisation: grey levels become a continuous density over [-1, 1].
        bits = self.random["dequantisation"].bits(positions, grey[0].numel())
        real = (grey + bits.reshape(grey.shape).float() * 2.0**-32) / 128.0 - 1.0
        with torch.no_grad():
            fake, fake_labels = self._fake(positions, "critic_")
        labels = torch.from_numpy(real_labels).to(self.device) if self.generator.classes else None
        on_real, on_fake = self.discriminator(real, labels), self.discriminator(fake, fake_labels)
        loss = F.relu(1.0 - on_real).mean() + F.relu(1.0 + on_fake).mean()
        self._apply("discriminator", loss)

    def _generator_step(self, positions: Tensor) -> None:
        fake, labels = self._fake(positions, "")
        self._apply("generator", -self.discriminator(fake, labels).mean())

    def _apply(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizers[name].step()
        self.meters.add(f"{name}_loss", loss.detach()[None])

    def about(self) -> dict[str, Any]:
        return {
            "kind": "sngan",
            "params": self.surrogate.model_dump(mode="json"),
            "card": self.card.as_json(),
            "index_sha256": self.stream.folder.index_sha256,
        }

    def weights(self) -> dict[str, Weights]:
        return {
            "model": self.generator.state_dict(),
            "ema": self.ema.state_dict(),
            "discriminator": self.discriminator.state_dict(),
        }

    def state(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load(self, weights: Callable[[str], Weights], state: dict[str, Any]) -> None:
        self.generator.load_state_dict(weights("model"))
        self.ema.load_state_dict(weights("ema"))
        self.discriminator.load_state_dict(weights("discriminator"))
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
