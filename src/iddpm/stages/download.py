"""Fetching public files; the network is used only when the user asks for it."""

import hashlib
import http.client
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from iddpm.data.sources.cifar10 import ARCHIVE, MD5
from iddpm.errors import UserError
from iddpm.evaluation.features.inception import SHA256, WEIGHTS

CIFAR10_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"
MB = 10**6
TIMEOUT_S = 30


def download_cifar10(folder: Path, url: str = CIFAR10_URL) -> Iterator[int]:
    """Put the published archive of CIFAR-10 into `folder`, as `fetch` does."""
    return fetch(url, folder / ARCHIVE, "md5", MD5[ARCHIVE])


def download_inception(folder: Path, url: str = INCEPTION_URL) -> Iterator[int]:
    """Put the weights of the Inception network of published FIDs into `folder`, as `fetch` does."""
    return fetch(url, folder / WEIGHTS, "sha256", SHA256)


class Download(NamedTuple):
    """What can be fetched: its name for the user, its folder below data/raw, its size."""

    title: str
    folder: str
    megabytes: int
    fetch: Callable[[Path], Iterator[int]]


DOWNLOADS = {
    "cifar10": Download("CIFAR-10", "cifar10", 171, download_cifar10),
    "inception": Download("The Inception network of published FIDs", "features/inception", 96, download_inception),
}


def fetch(url: str, path: Path, algorithm: str, digest: str) -> Iterator[int]:
    """Put the published file at `path`; yields the megabytes fetched so far, rounded up.

    Whatever happens, the file is there whole with the right digest, or as before. Nothing is fetched when it is
    there already. UserError when the address cannot be reached or sends another file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and _digest(path, algorithm) == digest:
        return
    partial = path.with_name(f"{path.name}.part")
    fetched = 0
    try:
        with open(partial, "wb") as stream:
            for chunk in _chunks(url):
                stream.write(chunk)
                fetched += len(chunk)
                yield -(-fetched // MB)
        if _digest(partial, algorithm) != digest:
            raise UserError(f"{url}: sent a file whose {algorithm} is not the published {digest}; nothing was kept")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _chunks(url: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            while chunk := response.read(MB):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{url}: cannot be fetched ({error}); try again, or bring the file yourself") from None
