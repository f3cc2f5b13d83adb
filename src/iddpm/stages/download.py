"""Fetching public datasets; the network is used only when the user asks for it."""

import http.client
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from iddpm.data.sources.cifar10 import ARCHIVE, MD5, md5_of
from iddpm.errors import UserError

CIFAR10_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
MB = 10**6
CIFAR10_MB = 171
TIMEOUT_S = 30


def download_cifar10(folder: Path, url: str = CIFAR10_URL) -> Iterator[int]:
    """Put the published archive into `folder`; yields the megabytes fetched so far, rounded up, of CIFAR10_MB.

    Whatever happens, the archive is there whole with the right md5, or as before. Nothing is fetched when it is
    there already. UserError when the address cannot be reached or sends another file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive, partial = folder / ARCHIVE, folder / f"{ARCHIVE}.part"
    if _is_published(archive):
        return
    fetched = 0
    try:
        with open(partial, "wb") as stream:
            for chunk in _chunks(url):
                stream.write(chunk)
                fetched += len(chunk)
                yield -(-fetched // MB)
        if not _is_published(partial):
            raise UserError(f"{url}: sent a file whose md5 is not the published {MD5[ARCHIVE]}; nothing was kept")
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)


def _is_published(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return md5_of(stream) == MD5[ARCHIVE]


def _chunks(url: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            while chunk := response.read(MB):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{url}: cannot be fetched ({error}); try again, or bring the file yourself") from None
