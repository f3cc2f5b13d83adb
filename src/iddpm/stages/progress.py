"""Progress: a bar on a terminal, a line now and then elsewhere."""

import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

from iddpm.stages.context import say
from iddpm.training import WorkFolder

T = TypeVar("T")
LINE_EVERY_S = 5.0


class Progress:
    """Counts up to `total` of `unit`; shows rate, remaining time and a short note such as the loss."""

    def __init__(self, label: str, total: int, unit: str, first: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._first = self._count = first
        self._started, self._last_line = time.monotonic(), -math.inf
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=first, desc=label, unit=unit) if on_terminal else None

    def to(self, count: int, note: str = "") -> None:
        """Move to `count`."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count - self._count)
        self._count = count
        now = time.monotonic()
        if self._bar is None and (now - self._last_line >= LINE_EVERY_S or count == self.total):
            self._last_line = now
            rate = (count - self._first) / max(now - self._started, 1e-9)
            line = f"{self.label}: {count}/{self.total} {self.unit}"
            if count > self._first:
                line += f", {rate:.1f} {self.unit}/s, {(self.total - count) / rate:.0f} s left"
            say(f"{line}, {note}" if note else line)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def track(counts: Iterable[int], label: str, total: int, unit: str) -> Iterator[int]:
    """Pass counts through, showing them as progress."""
    progress = Progress(label, total, unit)
    for count in counts:
        progress.to(count)
        yield count
    progress.close()


class TrainingProgress:
    """Shows a training from its log, so that it looks the same in this process and on Ray workers."""

    def __init__(self, label: str, work: WorkFolder, steps: int, metric: str) -> None:
        self._label, self._work, self._steps, self._metric = label, work, steps, metric
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)
        self._messages_seen = 0
        self._step_seen = -1
        self._progress: Progress | None = None
        work.messages.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._progress is not None:
            self._progress.close()

    def _follow(self) -> None:
        while not self._done.wait(0.5):
            self._show()
        self._show()

    def _show(self) -> None:
        if self._work.messages.exists():
            lines = self._work.messages.read_text().splitlines()
            for line in lines[self._messages_seen :]:
                say(f"{self._label}: {line}")
            self._messages_seen = len(lines)
        last = self._work.metrics.last()
        if last is None or last["step"] == self._step_seen:
            return
        if self._progress is None:
            self._progress = Progress(self._label, self._steps, "steps", first=last["step"])
        self._step_seen = last["step"]
        self._progress.to(last["step"], f"{self._metric} {last.get(self._metric, float('nan')):.4f}")
