"""Decoded pixels, kept on the disk from one run to the next, and read without a copy.

A store (`store.py`) holds pictures of one size and one resize rule. A picture is found by the hash
of its content: renamed, moved and shared pictures are found again, a changed one alone is decoded
again. The cache of all stores is bounded; what was used longest ago goes first.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.home import cache_home
from src.data.index import Index
from src.data.room import LIMIT, limit_bytes, limit_text, make_room, size_of
from src.data.scans import scan_all
from src.data.segments import END_BYTES, Stored
from src.data.store import PixelStore
from src.data.writer import Writer
from src.errors import UserError
from src.preprocess import Interpolation, StoredRule


def open_store(
    cache: bool | str, size: int, rule: StoredRule, interpolation: Interpolation = "bilinear"
) -> PixelStore | None:
    """Return the store that `data.cache` asks for, None for none or where there is no home."""
    place = place_of(cache)
    return None if place is None else PixelStore(size, rule, place, interpolation)


def place_of(cache: bool | str) -> Path | None:
    """Return the folder that `data.cache` asks for, None for none or where there is no home."""
    if cache is False:
        return None
    try:
        return Path(cache).expanduser() if isinstance(cache, str) else cache_home() / "pixels"
    except RuntimeError:
        return None


def check_place(cache: bool | str, root: Path) -> None:
    """Refuse a `data.cache` that names no folder, or a place inside the data.

    Raises:
        UserError: that says so.
    """
    if isinstance(cache, str) and not cache.strip():
        raise UserError("--data.cache is empty. Give true, false or a folder.")
    if isinstance(cache, str) and _expanded(cache).is_file():
        raise UserError(f"--data.cache {cache} is a file. Give true, false or a folder.")
    places = {f"--data.cache {cache}": _expanded(cache)} if isinstance(cache, str) else {}
    with contextlib.suppress(RuntimeError):  # no home folder
        # What a look at the files has shown is kept there, with or without decoded pictures.
        places[f"The cache folder {cache_home()} (of XDG_CACHE_HOME)"] = cache_home()
    for name, place in places.items():
        if _would_be_data(place, root):
            raise UserError(
                f"{name} lies inside --data.root {root}: what is kept would become data. "
                "Give a folder outside."
            )


def _expanded(cache: str) -> Path:
    try:
        return Path(cache).expanduser()
    except RuntimeError as error:
        why = str(error).rstrip(".")
        raise UserError(f"--data.cache {cache}: {why}. Give true, false or a folder.") from error


def _would_be_data(place: Path, root: Path) -> bool:
    """Return whether files there would be found below root; dot names are passed over."""
    inside, top = place.resolve(), root.resolve()
    if not root.is_dir() or top not in (inside, *inside.parents):
        return False
    return not any(part.startswith(".") for part in inside.relative_to(top).parts)


Part = tuple[PixelStore, npt.NDArray[np.bool_]]  # a store, and which pictures are wanted in it [N]


def fill(parts: Sequence[Part], index: Index) -> list[Stored]:
    """Return the pixels of an index's pictures, after decoding those that are not there.

    That is done in parallel, with a bar on a terminal, as far as there is room. What can't be
    decoded any more is left to whoever reads it.

    Args:
        parts: Stores of one cache, and which of the pictures each shall hold.
        index: The pictures, N.
    """
    left_bytes, found = limit_bytes(), []
    for store, wanted in parts:
        stored = _complete(store, index, wanted, left_bytes)
        left_bytes -= _bytes_of(stored)
        found.append(stored)
    if parts:
        make_room(parts[0][0].place)
    for number, (store, _) in enumerate(parts):
        if not all(path.exists() for path in found[number].used):  # went to make room
            found[number] = store.find(index.hashes)[0]
    for stored, (store, wanted) in zip(found, parts, strict=True):
        held, total = int((stored.files[wanted] >= 0).sum()), int(wanted.sum())
        if held < total:
            full = left_bytes < store.least_bytes
            why = f" ({LIMIT} is {limit_text()})" if full else ""
            print(
                f"the cache holds {held:,} of {total:,} decoded pictures{why}; the others are "
                "decoded in every epoch",
                file=sys.stderr,
            )
    return found


def _complete(
    store: PixelStore, index: Index, wanted: npt.NDArray[np.bool_], most_bytes: int
) -> Stored:
    """Return what a store holds of an index, after adding the wanted pictures that it lacks."""

    def look() -> tuple[Stored, list[int], int]:
        stored, missing = store.find(index.hashes)
        left_bytes = most_bytes - _bytes_of(stored)
        return stored, [i for i in missing if wanted[i]], left_bytes

    stored, missing, left_bytes = look()
    if not missing or left_bytes < store.least_bytes + END_BYTES:
        return stored
    with contextlib.closing(Writer(store, left_bytes)) as writer:
        if not writer.begin():
            return stored
        # What another process has added while this one waited is there by now.
        _, missing, left_bytes = look()
        writer.left_bytes = min(writer.left_bytes, left_bytes - END_BYTES)
        paths = [index.paths[i] for i in missing]
        with contextlib.closing(scan_all(index.root, paths, writer.keep)) as scans:
            while not writer.full and next(scans, None):
                pass
    return store.find(index.hashes)[0]


def _bytes_of(stored: Stored) -> int:
    return sum(map(size_of, stored.used))
