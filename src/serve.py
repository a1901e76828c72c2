"""Shows a model on a page and answers requests: `python -m src.serve BUNDLE`."""

import argparse
import ipaddress
import logging
import math
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from src.bundle import MODELS, MOST_THREADS, Bundle
from src.errors import UserError
from src.failures import Parser, end_with_message
from src.unread import tell_beside

PROGRAM = "python -m src.serve"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_DRAIN_SECONDS = 30
_SILENT_SECONDS = 10  # of a connection, until the head of its request is whole
_WAITING = 512  # connections that nobody has taken yet


def main(args: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; return 143 or 130 then, 2 for the user's mistakes."""
    with end_with_message() as outcome:
        options = parser().parse_args(args)
        _check(options)
        _require()
        bundle = Bundle(options.bundle, options.variant, options.threads)
        bundle.warm_up()
        _ = bundle.validation  # read once, and checked
        _serve(bundle, options)
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Serve a page to try a model on, and an HTTP API: POST /predict, POST "
        "/explain, GET /health, /metadata, /openapi.json.",
        epilog="SIGTERM and Ctrl-C let what is under way be answered. Exit code: 143 or 130 after "
        "them, 2 for a mistake.",
    )
    add = made.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="folder that src.export has made")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this machine alone; 0.0.0.0 lets in "
        "whoever can reach it, without any password)",
    )
    add("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    add("--variant", choices=tuple(MODELS), default="fp32", help="model (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="of the model (default: a core each)")
    add("--max_mb", type=float, default=20.0, help="of a request (default: %(default)s)")
    add("--max_megapixels", type=float, default=50.0, help="of a picture (default: %(default)s)")
    add("--max_files", type=int, default=32, help="pictures of a request (default: %(default)s)")
    add("--max_seconds", type=float, default=30.0, help="of a request (default: %(default)s)")
    return made


def _check(options: argparse.Namespace) -> None:
    for name in ("max_mb", "max_megapixels", "max_seconds"):
        if not 0 < getattr(options, name) < math.inf:
            raise UserError(f"--{name} is {getattr(options, name):g}; it must be a number above 0.")
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port is {options.port}; allowed is 0 to 65535, and 0 takes a free one.")
    if options.max_files < 1:
        raise UserError(f"--max_files is {options.max_files}; it must be from 1 on.")
    if options.threads is not None and not 1 <= options.threads <= MOST_THREADS:
        raise UserError(f"--threads is {options.threads}; allowed is 1 to {MOST_THREADS}.")


def _require() -> None:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'the server needs {error.name}, which is not installed: pip install -e ".[serve]"'
        ) from error


def _serve(bundle: Bundle, options: argparse.Namespace) -> None:
    import uvicorn

    from src.api import make_app
    from src.limits import MOST_CONNECTIONS, Connection
    from src.served_model import Settings

    listening = _listen(options.host, options.port)
    tell_beside()
    logging.basicConfig(level=logging.ERROR, force=True)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # of every damaged form
    _take_descriptors(2 * MOST_CONNECTIONS)
    _end_deaf_connections(listening, options.max_seconds)
    host, port = _as_in_url(listening.getsockname()[0]), listening.getsockname()[1]
    settings = Settings(
        int(options.max_mb * 1e6),
        int(options.max_megapixels * 1e6),
        options.max_files,
        options.max_seconds,
        _hosts(host, options.host),
    )
    app = make_app(bundle, settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=Connection,
        timeout_keep_alive=math.ceil(min(_SILENT_SECONDS, options.max_seconds)),
        ws="none",
        timeout_graceful_shutdown=max(_DRAIN_SECONDS, math.ceil(options.max_seconds)),
        limit_concurrency=MOST_CONNECTIONS + 1,
        backlog=_WAITING,
    )
    server = uvicorn.Server(config)
    app.closing = lambda: server.should_exit
    print(f"http://{host}:{port}", flush=True)
    server.run(sockets=[listening])


def _as_in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _hosts(bound: str, asked: str) -> frozenset[str]:
    """Return the names that a server on loopback goes by; none for another, which has any."""
    if not ipaddress.ip_address(bound.strip("[]").partition("%")[0]).is_loopback:
        return frozenset()
    return LOOPBACK | {bound, _as_in_url(asked.lower())}


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket on which clients may wait; raise UserError if that can't be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_WAITING)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--host {host} --port {port}: {error}. Give another port; 0 takes a free one."
        ) from error


def _take_descriptors(number: int) -> None:
    """Let this process open more files and connections, where it may: macOS begins with 256."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < number:
            most = number if hard == resource.RLIM_INFINITY else min(number, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _end_deaf_connections(listening: socket.socket, seconds: float) -> None:
    """Let the system end connections of clients that do not read their answers (RFC 5482)."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        milliseconds = min(math.ceil(seconds * 1000), 2**31 - 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


if __name__ == "__main__":
    sys.exit(main())
