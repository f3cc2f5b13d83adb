"""The download, against a server on this machine."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from iddpm.data.sources import cifar10
from iddpm.errors import UserError
from iddpm.evaluation.features import inception
from iddpm.stages import download
from iddpm.stages.download import DOWNLOADS, download_cifar10, download_inception

from ..conftest import Project

CONTENT = bytes(range(256)) * 10_000
NAME = "cifar-10-python.tar.gz"
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    sends: ClassVar[bytes] = CONTENT
    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(self.sends)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that sends CONTENT, which passes for each published file."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(cifar10.MD5, NAME, MD5)
    monkeypatch.setattr(download, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(Handler, "sends", CONTENT)
    monkeypatch.setattr(Handler, "requests", [])
    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("download_it", "name"),
    [(download_cifar10, NAME), (download_inception, "weights-inception-2015-12-05-6726825d.pth")],
)
def test_fetched_once(server: str, tmp_path: Path, download_it: Callable[..., Iterator[int]], name: str) -> None:
    folder = tmp_path / "raw" / "x"
    assert list(download_it(folder, f"{server}/{name}")) == [1, 2, 3]  # megabytes
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: CONTENT}
    assert list(download_it(folder, f"{server}/{name}")) == []
    assert len(Handler.requests) == 1


def test_what_is_fetched_lies_where_it_is_looked_for() -> None:
    assert {name: (known.folder, known.megabytes) for name, known in DOWNLOADS.items()} == {
        "cifar10": ("cifar10", 171),
        "inception": ("features/inception", -(-95_628_359 // 10**6)),
    }
    assert download.INCEPTION_URL.endswith(f"/{inception.FILES[0]}") and download.SHA256 == inception.SHA256


@pytest.mark.parametrize("fault", ["another file", "cut short"])
def test_a_wrong_file_leaves_everything_as_it_was(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (tmp_path / NAME).write_bytes(b"an older one")
    monkeypatch.setattr(Handler, "sends", CONTENT[:-1] + (b"!" if fault == "another file" else b""))
    with pytest.raises(
        UserError, match=rf"{NAME}: (sent a file whose md5 is not the published {MD5}|cannot be fetched)"
    ):
        list(download_cifar10(tmp_path, f"{server}/{NAME}"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {NAME: b"an older one"}


def test_no_server_and_no_file_are_one_line(server: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: cannot be fetched \(HTTP Error 404"):
        list(download_cifar10(tmp_path, f"{server}/missing"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"cannot be fetched \(.*Connection refused"):
            list(download_cifar10(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}"))
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(server: str, tmp_path: Path) -> None:
    fetching = download_cifar10(tmp_path, f"{server}/{NAME}")
    next(fetching)
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.part"]
    fetching.close()
    assert list(tmp_path.iterdir()) == []


def test_the_command_without_a_network_says_so(project: Project) -> None:
    result = project.run("iddpm", "download", "cifar10", check=False, https_proxy="http://127.0.0.1:9", no_proxy="")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("iddpm: https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz: cannot be fetched")
    assert list((project.root / "data" / "raw" / "cifar10").iterdir()) == []
    assert "'mnist': only cifar10 and inception can be downloaded" in project.mistake("download", "mnist")
