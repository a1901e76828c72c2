"""What the server's limits answer, over applications that are slow or read too much."""

import asyncio
import json
import queue
import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.helpers import ROOT, require_module


@pytest.fixture(autouse=True)
def _packages() -> None:
    for name in ("fastapi", "uvicorn", "python_multipart"):
        require_module(name)


def asked(app: Any, body: bytes = b"", held: int = 0, **headers: str) -> tuple[int, str]:
    """Return status and sentence that a request gets from the limits around an application."""
    from src.limits import Limits

    sent: list[dict[str, Any]] = []
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        sent.append(message)

    limits = Limits(app, 1000, 0.05, frozenset({"localhost"}))
    limits.held = held
    pairs = {"host": "localhost", **headers}.items()
    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
    }  # fmt: skip
    asyncio.run(limits(scope, receive, send))
    assert limits.held == held  # whatever it took is given back
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
    assert asked(slow, **{"content-length": "1001"}) == (413, text)


def test_the_last_answers_end_their_connection() -> None:
    from src.limits import _Sending

    for last in (False, True):
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        start = {"type": "http.response.start", "status": 200, "headers": []}
        asyncio.run(_Sending(send, last)(start))
        assert ((b"connection", b"close") in sent[0]["headers"]) == last


def test_another_name() -> None:
    assert asked(slow, host="evil.example") == (400, "This server goes by another name.")


def test_the_log_waits_for_nobody() -> None:
    from src.serve import _Dropping

    told: queue.Queue[Any] = queue.Queue(1)

    def tell() -> None:
        for name in ("one", "two"):
            _Dropping(told).enqueue(name)  # type: ignore[arg-type]

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    teller.join(30)
    assert not teller.is_alive(), "it waits"
    assert (told.get_nowait(), told.empty()) == ("one", True)


def test_an_unread_pipe_for_errors_stops_nothing() -> None:
    code = (
        "import logging; from src.serve import _log_beside; _log_beside()\n"
        "for _ in range(3000): logging.getLogger('asyncio').error('x' * 1000)\n"
        "print('went on', flush=True)\n"
        "import os; os._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        alarm = threading.Timer(60, started.kill)
        alarm.start()
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == b"went on\n"
        finally:
            alarm.cancel()
            started.kill()
