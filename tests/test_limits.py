"""What the server's limits answer, over applications that are slow or read too much."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers import ROOT, require_module

LOCAL = frozenset({"localhost"})


@pytest.fixture(autouse=True)
def _packages() -> None:
    for name in ("fastapi", "uvicorn", "python_multipart"):
        require_module(name)


def asked(
    app: Any, *body: bytes, held: int = 0, hosts: frozenset[str] = LOCAL, **headers: str
) -> tuple[int, str]:
    """Return status and sentence that a request gets from the limits around an application."""
    from src.limits import Limits

    sent: list[dict[str, Any]] = []
    texts = body or (b"",)
    last = len(texts) - 1
    parts = iter(
        {"type": "http.request", "body": text, "more_body": k < last}
        for k, text in enumerate(texts)
    )

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        sent.append(message)

    limits = Limits(app, 1000, 0.05, hosts)
    limits.held = held
    pairs = {"host": "localhost", **headers}.items()
    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
    }  # fmt: skip
    asyncio.run(limits(scope, receive, send))
    assert limits.held == held  # whatever it took is given back
    assert not list(parts) or sent[0]["status"] == 503  # who still sends reads no answer
    return sent[0]["status"], json.loads(sent[1]["body"])["detail"]


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(60)


async def reading(scope: Any, receive: Any, send: Any) -> None:
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse

    try:
        await receive()
    except HTTPException as error:
        await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)


def test_an_answer_that_takes_too_long() -> None:
    assert asked(slow) == (503, "This took more than 0.05 s. Try again later.")


def test_too_much_at_once() -> None:
    told = asked(reading, bytes(900), held=15_200)
    assert told == (503, "Too much is sent at once. Try again later.")


def test_a_body_that_is_too_large() -> None:
    text = "The body is too large; 0.001 MB are allowed."
    assert asked(reading, bytes(1001)) == (413, text)
    assert asked(reading, bytes(1001), bytes(900), bytes(1)) == (413, text)
    assert asked(slow, **{"content-length": "1001"}) == (413, text)


def test_the_last_answers_end_their_connection() -> None:
    from src.limits import _Sending

    for last in (False, True):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        start = {"type": "http.response.start", "status": 200, "headers": []}
        asyncio.run(_Sending(send, lambda last=last: last)(start))
        assert ((b"connection", b"close") in sent[0]["headers"]) == last


def test_another_name() -> None:
    assert asked(slow, host="evil.example") == (400, "This server goes by another name.")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://here:81"])
def test_a_page_of_another_server_over_plain_http(origin: str) -> None:
    """There a browser tells the origin alone; where it tells more, that is heeded."""
    here = {"host": "HERE", "hosts": frozenset()}
    told = 403, "Pages of other servers may not ask this one."
    assert asked(slow, origin=origin, **here) == told
    assert asked(slow, origin="http://here", **here)[0] == 503
    assert asked(slow, **here)[0] == 503
    assert asked(slow, origin=origin, **here, **{"sec-fetch-site": "same-origin"})[0] == 503
    assert asked(slow, origin=origin)[0] == 503  # on loopback: a proxy of another name


def run(code: str, reads: bool) -> tuple[int, str]:
    """Return exit code and standard error of a program; where nobody reads it, its pipe is full."""
    words = [sys.executable, "-c", f"from src.unread import tell_beside; tell_beside()\n{code}"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        try:
            if reads:
                return started.wait(60), started.communicate()[1]
            return started.wait(60), ""
        finally:
            started.kill()


def test_an_unread_pipe_for_errors_stops_nothing() -> None:
    """Neither the log, nor what C libraries write, nor the last word."""
    code = (
        "import logging, os, sys; logging.basicConfig(force=True)\n"
        "for _ in range(3000): logging.error('x' * 1000)\n"
        "for _ in range(300): os.write(2, b'x' * 1000)\n"
        "print('stopped', file=sys.stderr); sys.exit(7)"
    )
    assert run(code, reads=False) == (7, "")


def test_what_was_told_arrives_before_the_end() -> None:
    code = "import sys; sys.exit('the \\ud800 last word')"
    assert run(code, reads=True) == (1, "the \\ud800 last word\n")
