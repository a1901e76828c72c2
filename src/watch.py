"""A page that follows a run while it trains: `python -m src.watch RUN`."""

import argparse
import ipaddress
import json
import socket
import socketserver
import sys
import time
import traceback
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.failures import Parser, end_with_message
from src.run import RunFolder
from src.watched import pictures_of, state_of

PROGRAM = "python -m src.watch"
PORT = 8001
_PAGES = Path(__file__).parent / "pages"
_FILES = {
    "/": ("watch.html", "text/html; charset=utf-8"),
    "/watch.css": ("watch.css", "text/css; charset=utf-8"),
    "/watch.js": ("watch.js", "text/javascript; charset=utf-8"),
    "/watch.svg": ("watch.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TEXT = "text/plain; charset=utf-8"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 130 after Ctrl-C, 2 for the user's mistakes."""
    with end_with_message() as outcome:
        options = parser().parse_args(args)
        serve(options.run, options.host, options.port)
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Show a run in the browser while it trains: curves, scores, time left, and "
        "what its callbacks draw. Reads the run folder alone; the run knows nothing of it.",
        epilog="Ends with Ctrl-C. Exit code: 130 then, 2 a mistake.",
    )
    add = made.add_argument
    add("run", type=Path, metavar="RUN", help="run folder; it need not exist yet")
    add("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    add("--port", type=int, default=PORT, help=f"0 takes a free one (default: {PORT})")
    return made


def serve(folder: Path, host: str, port: int) -> None:
    """Answer until a signal ends it.

    Raises:
        UserError: if the folder holds something else than a run, or nothing can listen there.
    """
    check_folder(folder)
    with open_server(folder, host, port) as server:
        if not server.on_loopback:
            print(
                f"WARNING: --host {host}: whoever reaches this machine can see the scores and the "
                "pictures of the run, without a password.",
                file=sys.stderr,
            )
        print(f"watching {folder}: {server.address} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def check_folder(folder: Path) -> None:
    """Raise UserError if a folder holds something else than a run."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Give a run folder.")
    if not folder.is_dir() or RunFolder(folder).config.is_file():
        return
    names = sorted(path.name for path in folder.iterdir())
    # What a run writes before its config: half of that, and how it came to its learning rate.
    early = {"find_lr.csv", "find_lr.svg"}
    if inside := [name for name in names if not name.endswith(".tmp") and name not in early][:6]:
        raise UserError(
            f"{folder} is no run folder: it has no config.yaml (found: {', '.join(inside)}). Give "
            "the folder that fit printed last, or the one that a run will begin in."
        )


# The server


class Server(ThreadingHTTPServer):
    """Answers about one run folder.

    Args:
        folder: The run folder.
        host: Name or address to listen at.
        port: 0 takes a free one.

    Attributes:
        host: As given.
        on_loopback: Whether nothing but this machine can reach it.
        address: Of the page.
    """

    daemon_threads = True

    def __init__(self, folder: RunFolder, host: str, port: int) -> None:
        self.folder, self.host = folder, host
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Page)
        ip, self.port = self.server_address[:2]
        self.on_loopback = _is_loopback(str(ip))
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def server_bind(self) -> None:
        """Bind without the look-up of a name that the library would make."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about a browser that has gone; print all else."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


def open_server(folder: Path, host: str, port: int) -> Server:
    """Return a server that listens.

    Raises:
        UserError: if it can't.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}; allowed is 0 to 65535, and 0 takes a free one.")
    try:
        return Server(RunFolder(folder), host, port)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"nothing can listen at --host {host} --port {port}: {error}. Another program may have "
            "the port, or the address is not of this machine. Give another --port (0 takes a free "
            "one), or leave --host out."
        ) from error


class Page(BaseHTTPRequestHandler):
    """Answers GET and HEAD: the page, its state, and pictures by their exact names."""

    server: Server
    server_version, sys_version = "waggle", ""
    timeout = 20  # seconds that a browser may be silent

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if not self._knows_host():
            # A page elsewhere may give its own name this address, and read what lies here.
            self._send(HTTPStatus.FORBIDDEN, _TEXT, b"unknown host\n")
        elif path in _FILES:
            name, kind = _FILES[path]
            self._send(HTTPStatus.OK, kind, (_PAGES / name).read_bytes())
        elif path == "/state.json":
            state = json.dumps(state_of(self.server.folder, time.time()), allow_nan=False)
            self._send(HTTPStatus.OK, "application/json", state.encode())
        else:
            self._send_picture(path)

    def _send_picture(self, path: str) -> None:
        """Send a picture that a listing of the folder names; the path opens nothing."""
        top, _, name = path.rpartition("/")
        file = pictures_of(self.server.folder).get(name) if top == "/pictures" else None
        try:
            content = file.read_bytes() if file else None
        except OSError:  # it has gone since
            content = None
        if content is None:
            self._send(HTTPStatus.NOT_FOUND, _TEXT, b"not found\n")
        else:
            self._send(HTTPStatus.OK, "image/png", content)

    def _knows_host(self) -> bool:
        """Return whether the request names this machine, as no page elsewhere makes a browser do.

        An address is no name that such a page could give to another machine.
        """
        host = self.headers.get("Host", "").lower()
        name = host[1:].partition("]")[0] if host[:1] == "[" else host.partition(":")[0]
        if name in ("localhost", self.server.host.lower()) or _is_loopback(name):
            return True
        own = socket.gethostname().lower()
        return not self.server.on_loopback and (_is_address(name) or name in (own, f"{own}.local"))

    def _send(self, code: HTTPStatus, kind: str, content: bytes, **more: str) -> None:
        self.send_response(code)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), **_HEADERS, **more}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request for anything that lies here, in a few plain words."""
        more = {"Connection": "close"}
        if code == HTTPStatus.NOT_IMPLEMENTED:  # what the library says of any method but ours
            code, more["Allow"] = HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD"
        status = HTTPStatus(code)
        self._send(status, _TEXT, f"{status.phrase}\n".encode(), **more)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: a page that is open asks every other second."""


def _is_loopback(address: str) -> bool:
    return _is_address(address) and ipaddress.ip_address(address).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
