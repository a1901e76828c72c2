"""Requests that no client should send, drawn from a seed; each as bytes on a connection."""

import base64
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable

Make = Callable[[random.Random, bytes], bytes]
MAKERS: list[Make] = []
_NAMES = (
    "../../etc/passwd",
    "..\\..\\win.ini",
    "a\x00b",
    "%2e%2e/%2e%2e",
    "CON",
    "a" * 5000,
    "蜂.png",
)


def _kind(make: Make) -> Make:
    MAKERS.append(make)
    return make


def malformed(draw: random.Random, picture: bytes) -> tuple[str, bytes]:
    """Return the name of a kind and a request of it."""
    make = draw.choice(MAKERS)
    return make.__name__, make(draw, picture)


def request(
    body: bytes, kind: str = "application/json", length: int | None = None, path: str = "/predict"
) -> bytes:
    """Return a request as a client would send it, with a length that may be a lie."""
    said = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return head.encode("latin-1", "replace") + f"Content-Length: {said}\r\n\r\n".encode() + body


def _part(data: bytes, name: str = "a.png", field: str = "files") -> bytes:
    head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return b"--b\r\n" + head.encode() + data + b"\r\n"


def _form(*parts: bytes, path: str = "/predict") -> bytes:
    return request(b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b", path=path)


def _path(draw: random.Random) -> str:
    return draw.choice(["/predict", "/explain"])


@_kind
def cut_picture(draw: random.Random, picture: bytes) -> bytes:
    return _form(_part(picture[: draw.randrange(len(picture) - 12)]), path=_path(draw))


@_kind
def garbled_header(draw: random.Random, picture: bytes) -> bytes:
    head = bytes(draw.randrange(256) for _ in range(24))
    return _form(_part(head + picture[24:]), path=_path(draw))


@_kind
def noise(draw: random.Random, picture: bytes) -> bytes:
    starts = (
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF",
        b"II*\0",
        b"BM",
        b"P6 ",
    )
    return _form(_part(draw.choice(starts) + draw.randbytes(draw.randrange(3000))))


@_kind
def picture_bomb(draw: random.Random, picture: bytes) -> bytes:
    side = draw.choice([20_000, 60_000, 2**31 - 1]).to_bytes(4, "big")
    return _form(_part(picture[:16] + side + side + picture[24:]))


@_kind
def zip_bomb(draw: random.Random, picture: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.png", bytes(2_000_000))
    return _form(_part(draw.choice([file.getvalue(), gzip.compress(bytes(5_000_000))])))


@_kind
def path_trick(draw: random.Random, picture: bytes) -> bytes:
    return _form(_part(picture[:40], draw.choice(_NAMES).replace('"', "")))


@_kind
def broken_form(draw: random.Random, picture: bytes) -> bytes:
    bodies = [
        b"--b\r\n",
        b"--b\r\n\r\n",
        b"--b",
        b"\r\n--b--\r\n",
        b"--b\r\nX",
        b"--b\r\n:\r\n\r\n--b--",
    ]
    kinds = [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=b",
    ]
    return request(draw.choice(bodies) + draw.randbytes(20), draw.choice(kinds))


@_kind
def many_parts(draw: random.Random, picture: bytes) -> bytes:
    return _form(*[_part(b"", field=draw.choice(["files", "x"])) for _ in range(60)])


@_kind
def wrong_type(draw: random.Random, picture: bytes) -> bytes:
    kinds = ("text/plain", "image/png", "", "application/xml", "application/x-www-form-urlencoded")
    return request(picture, draw.choice(kinds))


@_kind
def odd_charset(draw: random.Random, picture: bytes) -> bytes:
    name = draw.choice(["+2AA-", "\\ud800", "a", "\u00ff"])
    kind = draw.choice(
        ["utf-7", "punycode", "unicode_escape", "utf-16", "idna", "nobody-knows", "rot13", "hex"]
    )
    body = _part(picture[:40], name) + b"--b--\r\n"
    return request(body, f"multipart/form-data; boundary=b; charset={kind}", path=_path(draw))


@_kind
def broken_json(draw: random.Random, picture: bytes) -> bytes:
    text = base64.b64encode(picture[:60]).decode()
    bodies = [
        b"{", b"null", b"[" * 50_000, b'{"pictures": "x"}', b'{"pictures": [null]}', b"1e999",
        json.dumps({"pictures": [text[:-1]]}).encode(), json.dumps({"pictures": [text]}).encode(),
        json.dumps({"pictures": [""] * 50}).encode(), b"\xff\xfe\x00", b'{"pictures": ["\\ud800"]}',
        b'{"pictures": [' + b"[]," * 300_000 + b"[]]}", b'{"pictures": ["data:,"]}',
        b'{"pictures": {"0": "x"}}',
    ]  # fmt: skip
    return request(draw.choice(bodies))


@_kind
def wrong_length(draw: random.Random, picture: bytes) -> bytes:
    lie = draw.choice([0, 3, 10**12, -1])
    return request(picture[:300], "multipart/form-data; boundary=b", lie)


@_kind
def broken_http(draw: random.Random, picture: bytes) -> bytes:
    lines = [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % k for k in range(20_000)) + b"\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"PUT /predict HTTP/1.1\r\nHost: localhost\r\n\r\n", b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /validation/99999999999999999999 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /validation/-1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\nx",
    ]  # fmt: skip
    return draw.choice(lines)
