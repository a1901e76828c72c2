"""Download one file so that a broken download is taken up where it stopped.

requests does the transport; what is added is the HTTP Range protocol. pooch, the usual library for
data files, writes to a temporary name that it deletes when the connection breaks.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from src.errors import RunFailureError, UserError

if TYPE_CHECKING:  # imported where it is used: 0.15 s at the start of every command
    from requests import Response

ATTEMPTS = 4
PAUSE_SECONDS = 1.0  # before the second attempt; doubles each time
TIMEOUT_SECONDS = (15.0, 60.0)  # to connect, between two pieces
PIECE_BYTES = 1 << 14  # the most that a broken connection costs: requests drops a half piece


class _StartOverError(Exception):
    """The part that is here can't be continued."""


class _BusyError(Exception):
    """The server asks to come back later."""


def download(url: str, target: Path, sha256: str | None = None) -> None:
    """Fetch a file, unless it is there; `<target>.part` holds what has arrived so far.

    Args:
        url: Address, http or https.
        target: Where the whole file goes; its folder exists.
        sha256: Checksum in lower-case hexadecimal digits; None leaves it unchecked.

    Raises:
        RunFailureError: if the network or the server fails, also after some attempts.
        UserError: if the server has no such file, or the checksum differs.
    """
    if not target.exists():
        part = target.with_name(f"{target.name}.part")
        _fetch(url, part)
        part.replace(target)
        _note(part).unlink(missing_ok=True)
    if sha256 is not None:
        _check_sum(url, target, sha256)


def _fetch(url: str, part: Path) -> None:
    from requests import RequestException

    for attempt in range(ATTEMPTS):
        try:
            return _receive(url, part)
        except _StartOverError:
            _discard(part)
            reason = "the server can't continue the part that is here"
        except (RequestException, _BusyError) as error:
            reason = _reason(error)
        if attempt < ATTEMPTS - 1:
            pause = PAUSE_SECONDS * 2**attempt
            print(f"download broke off ({reason}); again in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
    raise RunFailureError(
        f"the download of {shown(url)} failed {ATTEMPTS} times: {reason}. The same command goes on "
        "from what has arrived. Without a network: fetch the file with a browser, unpack it, and "
        "give its folder: --data.root DIR."
    )


def _reason(error: Exception) -> str:
    """Return the innermost cause: the outer ones quote the address with its query."""
    causes = [getattr(error, "reason", None), *error.args]
    inner = next((cause for cause in causes if isinstance(cause, Exception)), None)
    return str(error) if inner is None else _reason(inner)


def _receive(url: str, part: Path) -> None:
    """Ask for what is missing and append it."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    # identity: a compressed transfer would count other bytes than the file has
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", **_same_file(part)}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if have and response.status_code == 416 and _size(response) == have:
            return  # killed between the last byte and the renaming
        _check_status(url, response, have)
        if response.status_code != 206:
            have = 0  # without Range the server sends it all again
        elif not _continues(response, part, have):
            raise _StartOverError
        _append(url, response, part, have)


def _append(url: str, response: "Response", part: Path, have: int) -> None:
    from requests import ConnectionError
    from tqdm import tqdm

    size = _size(response)
    if not have:
        known = f"{size / 1e6:,.1f} MB" if size is not None else "of unknown size"
        print(f"downloading {shown(url)}, {known}, to {part.parent}", file=sys.stderr)
        part.unlink(missing_ok=True)
        etag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        _note(part).write_text(json.dumps({"validator": etag, "size": size}), encoding="utf-8")
    bar = tqdm(total=size, initial=have, unit="B", unit_scale=True, disable=None, desc="download")
    with bar, part.open("ab") as file:
        for piece in response.iter_content(PIECE_BYTES):
            bar.update(file.write(piece))
    if size is not None and part.stat().st_size != size:
        raise ConnectionError(f"{part.stat().st_size} of {size} bytes arrived")


def _check_status(url: str, response: "Response", have: int) -> None:
    code = response.status_code
    if have and code == 416:
        raise _StartOverError
    if code in (408, 425, 429) or code >= 500:
        raise _BusyError(f"the server answered {code} {response.reason}")
    if code not in (200, 206):
        raise UserError(
            f"{shown(url)}: the server answered {code} {response.reason}. Correct "
            "data.source.url, or fetch the file with a browser, unpack it, and give its folder: "
            "--data.root DIR."
        )


def _continues(response: "Response", part: Path, have: int) -> bool:
    """Tell whether the answer goes on with the file that the part was begun from."""
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    return begins and _read_note(part).get("size") in (None, _size(response))


def _size(response: "Response") -> int | None:
    """Return the size of the whole file in bytes, None if the server doesn't say."""
    ranged = response.headers.get("Content-Range", "")
    total = ranged.rpartition("/")[2] if ranged else response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _same_file(part: Path) -> dict[str, str]:
    """Return the header that makes the server send a changed file from its start."""
    validator = _read_note(part).get("validator")
    # A weak tag promises the same meaning, not the same bytes.
    strong = isinstance(validator, str) and not validator.startswith("W/")
    return {"If-Range": str(validator)} if strong else {}


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, object]:
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _check_sum(url: str, target: Path, expected: str) -> None:
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        target.unlink()
        raise UserError(
            f"{shown(url)} has another checksum than the config says: found sha256 {found}, "
            f"expected {expected}. The file was deleted. If the archive was renewed on purpose and "
            "you trust it, put the found one in data.source.sha256."
        )


def shown(url: str) -> str:
    """Return the address without user, password and query, which may be secret."""
    address = urlsplit(url)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
