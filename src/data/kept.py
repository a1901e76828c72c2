"""Arrays that took long to compute, kept on the disk from one run to the next.

They lie beside the decoded pixels and share their limit: what was used longest ago goes first.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.home import alone
from src.data.room import ARRAY_SUFFIX, ARRAYS, limit_bytes, make_room

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
_CHECK_BYTES = 16  # the checksum behind an array


def array_key(*parts: str) -> str:
    """Return the name of what depends on these parts, as hexadecimal digits."""
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def keep(
    place: Path | None, key: str, make: Callable[[], Array], doing: str = "computing features"
) -> Array:
    """Return the array of a key: as it was kept, or made now and kept.

    One process of a machine does such work at a time; the others wait for that.

    Args:
        place: Folder of the cache; None keeps nothing.
        key: Of `array_key`.
        make: Computes it; of plain numbers.
        doing: What that is, for whoever waits.
    """
    if place is None:
        return make()
    path = place / ARRAYS / f"{key}{ARRAY_SUFFIX}"
    found = _read(path)
    if found is not None:
        return found
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone(path.parent / f"{doing.replace(' ', '-')}.lock", doing))
        except OSError as error:
            return _not_kept(make(), path, error)
        found = _read(path)
        if found is not None:
            return found
        made = make()
        try:
            _write(path, made)
        except OSError as error:
            return _not_kept(made, path, error)
    make_room(place)
    return made


def kept(place: Path | None, key: str) -> Array | None:
    """Return the array of a key if it has been kept, without making it; see `keep`."""
    return None if place is None else _read(place / ARRAYS / f"{key}{ARRAY_SUFFIX}")


def _not_kept(array: Array, path: Path, error: OSError) -> Array:
    print(f"WARNING: {path} can't be kept: {error}; it is computed in every run", file=sys.stderr)
    return array


def _read(path: Path) -> Array | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body = memoryview(content)[:-_CHECK_BYTES]  # may be hundreds of megabytes: no copy
    if _check_of(body) != content[-_CHECK_BYTES:]:
        print(f"WARNING: {path} is damaged; it is computed anew", file=sys.stderr)
        with contextlib.suppress(OSError):  # lest it be told again
            path.unlink()
        return None
    with contextlib.suppress(OSError):  # another user's
        os.utime(path)
    found: Array = np.load(io.BytesIO(body), allow_pickle=False)
    return found


def _write(path: Path, array: Array) -> None:
    """Write a file that is whole or not there, unless it alone is more than the cache may hold."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    body = buffer.getbuffer()
    if len(body) + _CHECK_BYTES > limit_bytes():
        return
    part = path.with_name(f"new{ARRAY_SUFFIX}.tmp")
    # The lock of the folder, which make_room respects: see `src.data.room.sweep`.
    with alone(path.parent / "lock", "writing to the cache"):
        with part.open("wb") as file:
            file.write(body)
            file.write(_check_of(body))
        part.replace(path)


def _check_of(body: memoryview) -> bytes:
    return blake2b(body, digest_size=_CHECK_BYTES).digest()
