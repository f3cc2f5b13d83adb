"""The program of one stage's process: `python dvc_child.py STAGE`, started by pipelines.stages.

It is `dvc repro --single-item STAGE`, made so that ending it always ends the stage, and never in the middle
of dvc's own writing: an interrupted dvc can leave a torn dvc.lock or a torn .dvc/tmp/rwlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
stopping = False


def stop(*_: object) -> None:
    """Pass the first signal on to the stage as Ctrl-C; dvc waits for it and tidies up."""
    global stopping
    if not stopping:
        stopping = True
        os.killpg(0, signal.SIGINT)


def start_nothing_more(event: str, _: object) -> None:
    if stopping and event == "subprocess.Popen":
        raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    sys.addaudithook(start_nothing_more)
    if sys.platform == "linux":  # a flow that is killed -9 cannot tell us
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    from dvc.cli import main as dvc

    return int(dvc(["--wait-for-lock", "repro", "--single-item", sys.argv[1]]))


if __name__ == "__main__":
    sys.exit(main())
