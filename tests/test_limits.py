"""What the server's limits answer, over applications that are slow or read too much."""

import asyncio
import json
from typing import Any

import pytest

from tests.helpers import require_module

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
