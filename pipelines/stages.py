"""Stages as child processes: started, listened to, and reliably ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

CHILD = Path(__file__).with_name("dvc_child.py")
GRACE_SECONDS = 20.0  # for a stage to write its checkpoint; Prefect's worker kills the flow after 30
TAIL_LINES = 15


class Stopped(Exception):
    """The flow run is ending: no further stage may start."""


def repro(stage: str) -> list[str]:
    """The command that brings a stage up to date through dvc."""
    return [sys.executable, str(CHILD), stage]


class Stages:
    """The running stages of one flow run, each in a process group of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[str]] = []
        self.stopping = False
        self.last_lines: dict[str, deque[str]] = {}

    def run(self, stage: str, command: Sequence[str], env: Mapping[str, str], log: Callable[[str], None]) -> int:
        """Run the command of `stage`, passing each line of its output to `log`; its exit status.

        Must be called by a thread that lives as long as the call: the child ends with its creating thread.
        """
        # passive: threads that spin for cores which another stage needs can slow both down tenfold
        env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", **env}
        # the commands of dvc.yaml are installed beside this Python, whether or not its environment is active
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
        with self._lock:
            if self.stopping:
                raise Stopped
            child = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,  # with universal newlines the \r of a progress bar ends a line as well
                errors="replace",
                start_new_session=True,
            )
            self._running.append(child)
        tail = self.last_lines[stage] = deque(maxlen=TAIL_LINES)
        assert child.stdout is not None
        with child.stdout as output:
            for line in output:
                if text := line.rstrip():
                    log(text)
                    tail.append(text)
        code = child.wait()
        with self._lock:
            self._running.remove(child)
        if self.stopping:
            raise Stopped
        return code

    def stop(self) -> None:
        """End all stages as Ctrl-C would, and after GRACE_SECONDS by force. May be called again."""
        with self._lock:
            self.stopping = True
            running = list(self._running)
        for child in running:
            child.terminate()  # dvc_child passes it on, once
        deadline = time.monotonic() + GRACE_SECONDS
        for child in running:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # whoever is left of its group
