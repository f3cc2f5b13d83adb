"""Deliveries while a stage runs."""

import os
import sys
import threading
from pathlib import Path
from typing import Self

from iddpm.tracking.connection import short_reason, shown_uri
from iddpm.tracking.delivery import deliver, deliver_pending


class Courier:
    """Delivers a run directory now and then while its stage runs, and once when the `with` block is left.

    Whatever MLflow does, the stage goes on: a failed delivery is one line on stderr, the next such line
    comes only after a success. Write the final record before leaving the block.
    """

    def __init__(self, run_dir: Path, root: Path, every_s: float = 15.0, wait_s: float = 30.0) -> None:
        self._run_dir, self._root, self._every_s, self._wait_s = run_dir, root, every_s, wait_s
        self._leaving = threading.Event()
        self._warned = False
        # A daemon: a delivery that hangs must not keep the finished stage from ending.
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join(self._wait_s)
        if self._thread.is_alive():
            self._warn(f"nothing within {self._wait_s:g} s")

    def _run(self) -> None:
        self._deliver()  # at once: the run shows as running, and importing mlflow costs the stage's end nothing
        while not self._leaving.wait(self._every_s):
            self._deliver()
        self._deliver(and_the_rest=True)

    def _deliver(self, and_the_rest: bool = False) -> None:
        try:
            deliver(self._run_dir, self._root)
            if and_the_rest:  # what earlier stages could not deliver; delivered folders are tidied away
                deliver_pending(self._root / "work", self._root)
            self._warned = False
        except Exception as error:
            self._warn(short_reason(error))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            kept = os.path.relpath(self._run_dir, self._root)
            print(
                f"tracking: {shown_uri(self._root)} does not answer ({reason}); the run goes on, "
                f"its log is kept in {kept} and delivered later: iddpm track",
                file=sys.stderr,
            )
