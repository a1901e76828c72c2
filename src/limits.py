"""What every request of the server must keep to, before anything reads it."""

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' data: blob:; "
    b"media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}

_PATIENCE = 8  # times the allowed size; a body beyond it is cut off


class Limits:
    """Refuses large and slow requests and foreign names of this host; adds headers for safety.

    Args:
        app: What answers.
        max_bytes: Of a body.
        max_seconds: From the first byte of a request to the last of its answer.
        hosts: Names that a request may call this server by; empty for all. A page elsewhere can't
            reach a server on loopback by a name of its own then (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, max_seconds: float, hosts: frozenset[str]
    ) -> None:
        self.app, self.max_bytes, self.max_seconds, self.hosts = app, max_bytes, max_seconds, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sending = _Sending(send)
        try:
            async with asyncio.timeout(self.max_seconds):
                refusal = self._refusal(scope)
                if refusal is not None:
                    await _discard(receive, _PATIENCE * self.max_bytes)
                    await refusal(scope, receive, sending)
                    return
                await self.app(scope, self._counted(receive), sending)
        except TimeoutError:
            if not sending.begun:
                text = f"This took more than {self.max_seconds:g} s. Try again later."
                await _refused(503, text)(scope, receive, sending)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self.hosts and _without_port(host) not in self.hosts:
            return _refused(400, "This server goes by another name.")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_bytes:
            return _refused(413, self._too_large)
        return None

    @property
    def _too_large(self) -> str:
        return f"The body is too large; {self.max_bytes / 1e6:g} MB are allowed."

    def _counted(self, receive: Receive) -> Receive:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.max_bytes:
                raise HTTPException(413, self._too_large, {"connection": "close"})
            return message

        return counted


async def _discard(receive: Receive, most: int) -> None:
    """Take what is still sent, up to so many bytes: who sends reads no answer before the end."""
    taken = 0
    while taken < most:
        message = await receive()
        taken += len(message.get("body", b""))
        if not message.get("more_body"):
            return


class _Sending:
    """Passes an answer on, with the headers; knows whether one has begun."""

    def __init__(self, send: Send) -> None:
        self.send, self.begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            own: list[Any] = [*message.get("headers", ())]
            named = {name for name, _ in own}
            own += [(name, value) for name, value in _HEADERS.items() if name not in named]
            message = {**message, "headers": own}
        await self.send(message)


def _refused(status: int, text: str) -> JSONResponse:
    # What was not read of the body would be taken for the next request.
    return JSONResponse({"detail": text}, status, {"connection": "close"})


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
