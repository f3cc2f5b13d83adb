"""Finished batches of a stage, kept as files so that it goes on where it was interrupted."""

import os
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iddpm.stages.context import say

Arrays = dict[str, npt.NDArray[Any]]
SECONDS = "seconds"


class KeptBatches:
    """Files of a stage's resume folder, one for each batch: its arrays, and the seconds that it took.

    `seconds` adds up over the batches asked for, whichever run made them.
    """

    def __init__(self, work: Path) -> None:
        self.folder = work / "batches"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(list(self.folder.glob("*.npz")))

    def get(self, first: int, make: Callable[[], Arrays]) -> Arrays:
        """The batch that begins at position `first`: read if it was finished earlier, else made and kept."""
        file = self.folder / f"{first:09d}.npz"
        arrays = _read(file)
        if arrays is None:
            began = time.perf_counter()
            arrays = make()
            arrays[SECONDS] = np.array(time.perf_counter() - began)
            _write(file, arrays)
        self.seconds += float(arrays.pop(SECONDS))
        return arrays

    def clear(self) -> None:
        """Once the output is written."""
        shutil.rmtree(self.folder)


def _read(file: Path) -> Arrays | None:
    try:
        with np.load(file, allow_pickle=False) as npz:
            return dict(npz)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        say(f"{file}: damaged ({error}); this batch is made again")
        return None


def _write(file: Path, arrays: Arrays) -> None:
    """Under its name only when everything is on the disk."""
    temporary = file.with_suffix(".tmp")
    with open(temporary, "wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(file)
