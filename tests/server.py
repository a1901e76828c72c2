"""A server of a bundle in a process of its own, and requests as clients make them."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers import ROOT

_BOUNDARY = "a-boundary-that-no-picture-holds"


class Answer(NamedTuple):
    """What a request got."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server(NamedTuple):
    """A server that listens on loopback."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            found = connection.getresponse()
            return Answer(found.status, found.read(), {k.lower(): v for k, v in found.getheaders()})
        finally:
            connection.close()

    def send(self, *files: tuple[str, bytes], path: str = "/predict") -> Answer:
        body, headers = form(*files)
        return self.ask("POST", path, body, headers)


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a form with files."""
    parts = b"".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    )
    body = parts + f"--{_BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


@contextmanager
def serving(bundle: Path, *words: str) -> Iterator[Server]:
    """Start `python -m src.serve` on a free port; it is ended afterwards."""
    command = [sys.executable, "-m", "src.serve", str(bundle), "--port", "0", *words]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise AssertionError(process.stderr.read())
            yield Server(process, int(line.rsplit(":", 1)[1]))
        finally:
            process.kill()
