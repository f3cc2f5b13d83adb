"""The program of one stage's process: `python dvc_child.py STAGE`, started by pipelines.stages.

It is `dvc repro --single-item STAGE`, made so that its end is always its stage's end too.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> int:
    # `&` in a script starts programs with SIGINT ignored, and they pass that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # On SIGINT dvc waits for its stage and tidies up; on SIGTERM it would leave the stage running.
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGINT))
    if sys.platform == "linux":  # a flow that is killed -9 cannot tell us
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    from dvc.cli import main as dvc

    return int(dvc(["--wait-for-lock", "repro", "--single-item", sys.argv[1]]))


if __name__ == "__main__":
    sys.exit(main())
