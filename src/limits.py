"""What every connection and request of the server must keep to, before anything reads it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 512
_HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' data: blob:; "
    b"media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"cross-origin-resource-policy": b"same-origin",
}

_AT_ONCE = 16  # times the allowed size: of all bodies under way
_PATIENCE = 8  # times the allowed size; a body beyond it is cut off
_LINGER_SECONDS = 2.0  # for the rest of a body that is refused
_ELSEWHERE = (b"cross-site", b"same-site")


class Connection(H11Protocol):
    """Ends a connection on which no request is under way for `timeout_keep_alive` seconds.

    uvicorn alone would wait for ever for half a head, or for the rest of a body that nobody reads.
    A connection beyond MOST_CONNECTIONS ends the one that has been waited for longest.
    """

    _waiting: asyncio.TimerHandle | None = None  # while no request is under way

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > MOST_CONNECTIONS:
            self._end_the_most_silent()

    def data_received(self, data: bytes) -> None:
        """Take what was sent."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._rest()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _rest(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _end_the_most_silent(self) -> None:
        others = (one for one in self.connections if isinstance(one, Connection))
        silent = [(one._waiting.when(), one) for one in others if one._waiting and one is not self]
        if silent:
            oldest = min(silent, key=lambda pair: pair[0])[1]
            oldest._rest()
            oldest.transport.abort()
            self.connections.discard(oldest)


class Limits:
    """Refuses large and slow requests, foreign names of this host and pages from elsewhere.

    Adds headers for safety.

    Args:
        app: What answers.
        max_bytes: Of a body.
        max_seconds: From the end of a request's head to the last byte of its answer.
        hosts: Names that a request may call this server by; empty for all. A page elsewhere can't
            reach a server on loopback by a name of its own then (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, max_seconds: float, hosts: frozenset[str]
    ) -> None:
        self.app, self.max_bytes, self.max_seconds, self.hosts = app, max_bytes, max_seconds, hosts
        self.held = 0  # bytes of the bodies under way
        self.closing: Callable[[], bool] = lambda: False  # whether the server is about to end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # the server leaves out the body
            scope = {**scope, "method": "GET"}
        body, sending = _Body(receive, self), _Sending(send, self.closing)
        try:
            async with asyncio.timeout(self.max_seconds):
                refusal = self._refusal(scope)
                if refusal is None:
                    await self.app(scope, body, sending)
                else:
                    await self.discard(receive)
                    await refusal(scope, receive, sending)
        except TimeoutError:
            if not sending.begun:
                await self._late(body)(scope, receive, sending)
        finally:
            self.held -= body.taken

    def _late(self, body: "_Body") -> JSONResponse:
        if body.awaited:
            return _refused(408, f"The request did not come whole within {self.max_seconds:g} s.")
        return _refused(503, f"This took more than {self.max_seconds:g} s. Try again later.")

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self.hosts and _without_port(host) not in self.hosts:
            return _refused(400, "This server goes by another name.")
        if self._is_from_elsewhere(headers) and not _follows_link(scope, headers):
            return _refused(403, "Pages of other servers may not ask this one.")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_bytes:
            return _refused(413, self.too_large)
        return None

    def _is_from_elsewhere(self, headers: dict[bytes, bytes]) -> bool:
        """Return whether another's page asks; over plain http browsers tell its origin alone.

        A server on loopback is told more, unless a proxy stands before it, with another host.
        """
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if site is None and origin is not None and not self.hosts:
            return origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower()
        return site in _ELSEWHERE

    async def discard(self, receive: Receive) -> None:
        """Take what is still sent, for a while: who sends reads no answer before the end."""
        taken = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_LINGER_SECONDS, self.max_seconds / 2)):
                while taken < _PATIENCE * self.max_bytes:
                    message = await receive()
                    taken += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return

    @property
    def too_large(self) -> str:
        """What is said of a body that is."""
        return f"The body is too large; {self.max_bytes / 1e6:g} MB are allowed."


class _Body:
    """Passes a body on, and counts it; knows whether its end is still awaited."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self.receive, self.limits = receive, limits
        self.taken, self.awaited, self.whole = 0, False, False

    async def __call__(self) -> Message:
        self.awaited = not self.whole
        message = await self.receive()
        self.awaited = False
        self.whole = self.whole or not message.get("more_body")
        size = len(message.get("body", b""))
        self.taken += size
        self.limits.held += size
        await self._require_room()
        return message

    async def _require_room(self) -> None:
        status, text, limits = 413, self.limits.too_large, self.limits
        if self.taken <= limits.max_bytes:
            if limits.held <= _AT_ONCE * limits.max_bytes:
                return
            status, text = 503, "Too much is sent at once. Try again later."
        if not self.whole:
            await limits.discard(self.receive)
        raise HTTPException(status, text, {"connection": "close"})


class _Sending:
    """Passes an answer on, with the headers; knows whether one has begun."""

    def __init__(self, send: Send, closing: Callable[[], bool]) -> None:
        self.send, self.closing, self.begun = send, closing, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            own: list[Any] = [*message.get("headers", ())]
            named = {name for name, _ in own}
            own += [(name, value) for name, value in _HEADERS.items() if name not in named]
            if self.closing() and b"connection" not in named:
                own.append((b"connection", b"close"))
            message = {**message, "headers": own}
        await self.send(message)


def _refused(status: int, text: str) -> JSONResponse:
    # What was not read of the body would be taken for the next request.
    return JSONResponse({"detail": text}, status, {"connection": "close"})


def _follows_link(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    return scope["method"] == "GET" and headers.get(b"sec-fetch-mode") == b"navigate"


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
