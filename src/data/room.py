"""How large the cache of decoded pictures may be, and what goes when it is full."""

import contextlib
import os
from pathlib import Path

from src.data.home import alone
from src.data.segments import SUFFIX
from src.errors import UserError

LIMIT = "WAGGLE_CACHE_GIB"
GIB = 2**30
_DEFAULT_GIB = 20.0
ARRAYS, ARRAY_SUFFIX = "arrays", ".array"  # the folder and the files of src/data/kept.py
_STORES = ("*-pillow-*", ARRAYS)  # the folders of a cache; what else lies beside them is not ours
_SUFFIXES = (SUFFIX, ARRAY_SUFFIX)


def limit_bytes() -> int:
    """Return how large the cache of all stores may be.

    Raises:
        UserError: if WAGGLE_CACHE_GIB is no number from 0.
    """
    text = limit_text()
    try:
        limit = float(text) * GIB
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UserError(f"{LIMIT} is {text!r}; allowed is a number of GiB from 0.")
    return int(limit)


def limit_text() -> str:
    """Return the limit in GiB as it was given."""
    return os.environ.get(LIMIT, f"{_DEFAULT_GIB:g}")


def stores_in(place: Path) -> list[Path]:
    """Return the folders of all stores of a cache, that of the arrays among them."""
    return sorted(path for name in _STORES for path in place.glob(name) if path.is_dir())


def by_use(stores: list[Path]) -> list[Path]:
    """Return the segments or arrays of some stores, the one used longest ago first."""
    found = (path for store in stores for end in _SUFFIXES for path in store.glob(f"*{end}"))
    return sorted(found, key=_used)


def make_room(place: Path) -> None:
    """Remove what was used longest ago, until the limit is kept."""
    sweep(place)
    paths = by_use(stores_in(place))
    total = sum(map(size_of, paths))
    for path in paths:
        if total <= limit_bytes():
            break
        size = size_of(path)
        with contextlib.suppress(OSError):  # another user's, or still open, on Windows
            path.unlink(missing_ok=True)
            total -= size


def sweep(place: Path) -> None:
    """Remove what killed writers have left: a living one holds its store's lock."""
    for store in stores_in(place):
        for rest in store.glob("*.tmp"):
            lock = alone(store / "lock", "decoding these pictures", wait=False)
            with contextlib.suppress(OSError), lock:
                rest.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return the bytes of a file, 0 if it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _used(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name
