"""The local, append-only log of a training's metrics: one JSON object a line, keyed by step."""

import csv
import json
import time
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Any

import torch
import torch.distributed
from torch import Tensor


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of an exported log; a metric that a row lacks is left out."""
    with open(path, newline="") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


class MetricsLog:
    """Rows {"step", "time_ms", metric: value, ...} in metrics.jsonl, steps strictly increasing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, step: int, metrics: dict[str, float]) -> None:
        """Add the row of a step."""
        row = {"step": step, "time_ms": int(time.time() * 1000)} | metrics
        with open(self.path, "a") as stream:
            stream.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Every whole row; a last line cut off by a crash is not one."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def last(self) -> dict[str, Any] | None:
        """The last whole row, None before the first; reads only the end of the file."""
        if not self.path.exists():
            return None
        with open(self.path, "rb") as stream:
            stream.seek(max(0, self.path.stat().st_size - 65536))
            lines = stream.read().split(b"\n")[:-1]  # what follows the last line end is not whole yet
        return json.loads(lines[-1]) if lines else None

    def export_csv(self, path: Path) -> None:
        """The same rows without their times, so that equal runs give equal files."""
        rows = self.rows()
        columns = ["step", *sorted({name for row in rows for name in row} - {"step", "time_ms"})]
        with open(path, "w", newline="") as stream:
            writer = csv.DictWriter(stream, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def seconds_per_step(self) -> float | None:
        """The median pace from row to row, to which a pause of the run does not count.

        None before the third row: of a single pace it is not known whether it holds a pause.
        """
        rows = self.rows()
        paces = [(b["time_ms"] - a["time_ms"]) / (b["step"] - a["step"]) / 1000 for a, b in pairwise(rows)]
        return median_low(paces) if len(paces) > 1 else None

    def cut_back(self, step: int) -> None:
        """Drop the rows after `step`: a resumed run writes them again."""
        kept = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(kept))
        temporary.replace(self.path)


class Meters:
    """Running means between two rows of the log; their sums are part of the checkpoint.

    Sums stay on the device until they are read, so that adding never waits for a GPU.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, weights: Tensor | None = None) -> None:
        """Take in per-sample values [N]; weights [N] make theirs a weighted mean."""
        weights = torch.ones_like(values) if weights is None else weights
        self._add(name, (values.double() * weights).sum(), weights.double().sum())

    def add_by_quartile(self, name: str, values: Tensor, weights: Tensor, t: Tensor, timesteps: int) -> None:
        """Also the mean over each quarter of the timesteps, NAME_q0 (least noise) to NAME_q3.

        With the importance weights of the timesteps it is the mean over uniform ones, whatever sampler drew them.
        """
        self.add(name, values, weights)
        member = torch.nn.functional.one_hot(t * 4 // timesteps, 4).double() * weights.double()[:, None]
        sums, counts = (member * values.double()[:, None]).sum(0), member.sum(0)
        for q in range(4):
            self._add(f"{name}_q{q}", sums[q], counts[q])

    def _add(self, name: str, total: Tensor, count: Tensor) -> None:
        pair = torch.stack([total, count.to(total.device)])
        self._sums[name] = self._sums[name].to(pair.device) + pair if name in self._sums else pair

    def reduce(self) -> None:
        """Move every worker's sums to rank 0."""
        if not torch.distributed.is_initialized():
            return
        names = sorted(self._sums)
        if not names:
            return
        packed = torch.stack([self._sums[name] for name in names])
        if torch.distributed.get_backend() == "nccl":
            packed = packed.cuda()
        torch.distributed.all_reduce(packed)
        if torch.distributed.get_rank() != 0:
            packed.zero_()
        self._sums = dict(zip(names, packed, strict=True))

    def means(self) -> dict[str, float]:
        """The mean of everything added since the last reset; what was never seen is left out."""
        return {
            name: total / count for name, (total, count) in ((n, s.tolist()) for n, s in self._sums.items()) if count
        }

    def reset(self) -> None:
        """Forget the values, not the names: workers must keep the same names."""
        self._sums = {name: torch.zeros_like(pair) for name, pair in self._sums.items()}

    def state_dict(self) -> dict[str, list[float]]:
        return {name: pair.tolist() for name, pair in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self._sums = {name: torch.tensor(pair, dtype=torch.float64) for name, pair in state.items()}
