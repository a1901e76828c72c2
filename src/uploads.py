"""Pictures out of a request: a form with files, or JSON with base64; within limits."""

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

FIELD = "files"  # of the form
KEY = "pictures"  # of the JSON
_FORM, _JSON = "multipart/form-data", "application/json"
_CHARSETS = ("utf-8", "us-ascii", "iso-8859-1")  # of a form; Python knows some that take minutes
_ALIASES = ("utf8", "ascii", "latin1", "latin-1")

# What a request may look like, for the OpenAPI document.
BODY = {
    "required": True,
    "content": {
        _FORM: {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {"type": "array", "minItems": 1, "items": {
                        "type": "string", "format": "binary"}},
                },
            }
        },
        _JSON: {
            "schema": {
                "type": "object",
                "required": [KEY],
                "additionalProperties": False,
                "properties": {
                    KEY: {"type": "array", "minItems": 1, "items": {
                        "type": "string", "contentEncoding": "base64"}},
                },
            }
        },
    },
}  # fmt: skip


class Upload(NamedTuple):
    """A picture as it was sent: its name for the answer, and its bytes."""

    name: str
    data: bytes


async def read_uploads(request: Request, most: int) -> list[Upload]:
    """Return the pictures of a request, from 1 to `most`.

    Raises:
        HTTPException: 415 for another kind of body, 413 for too many, 400 for a damaged body, 422
            for one without pictures.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == _FORM:
            found = await _of_form(request, most)
        elif kind == _JSON:
            found = await asyncio.to_thread(_of_json, await request.body(), most)
        else:
            raise HTTPException(
                415, f"The body is {kind or 'of no kind'}; send {_FORM} or {_JSON}."
            )
    except ClientDisconnect as error:
        raise HTTPException(400, "The connection ended before the body did.") from error
    if not found:
        raise HTTPException(422, f"No picture was sent: fill the field {FIELD} or {KEY}.")
    return found


class _InMemory(MultiPartParser):
    """Writes no file into the temporary folder: bodies are bounded already."""

    spool_max_size = 0  # without end


async def _of_form(request: Request, most: int) -> list[Upload]:
    limits = {"max_files": most + 1, "max_fields": most + 1}
    try:
        _require_charset(request.headers["content-type"])
        form = await _InMemory(request.headers, request.stream(), **limits).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            raise _too_many(f"More than {most}", most) from error
        raise HTTPException(400, error.message) from error
    except (ValueError, KeyError, UnicodeError) as error:  # parsers of headers
        raise HTTPException(400, "The form is damaged.") from error
    try:
        return await _of_parts(form.getlist(FIELD), most)
    finally:
        await form.close()


def _require_charset(kind: str) -> None:
    charset = parse_options_header(kind)[1].get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in (*_CHARSETS, *_ALIASES):
        raise HTTPException(415, f"A form's charset may be {', '.join(_CHARSETS)}.")


async def _of_parts(parts: Sequence[UploadFile | str], most: int) -> list[Upload]:
    _require_few(len(parts), most)
    return [
        Upload("", part.encode("utf-8", "surrogateescape"))
        if isinstance(part, str)
        else Upload(part.filename or "", await part.read())
        for part in parts
    ]


def _of_json(body: bytes, most: int) -> list[Upload]:
    if body.count(b",") > 2 * most:  # of a text, one: data:image/png;base64,...
        raise _too_many(f"More than {most}", most)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "The body is no JSON.") from error
    texts = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise HTTPException(422, f'The JSON must be {{"{KEY}": [texts of base64]}}.')
    _require_few(len(texts), most)
    return [Upload("", _bytes_of(text)) for text in texts]


def _require_few(number: int, most: int) -> None:
    if number > most:
        raise _too_many(str(number), most)


def _too_many(told: str, most: int) -> HTTPException:
    return HTTPException(413, f"{told} pictures were sent; a request takes {most} at most.")


def _bytes_of(text: str) -> bytes:
    head, comma, rest = text.partition(",")
    try:
        lines = (rest if comma and head.startswith("data:") else text).encode("ascii")
        packed = lines.translate(None, b" \t\r\n")
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, "A picture is no base64.") from error
