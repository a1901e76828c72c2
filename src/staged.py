"""A folder that is written beside its place and takes it when it is whole."""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from src.errors import UserError

_OF_SYSTEMS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # made unasked


def require_place(out: Path, sign: str, names: Collection[str]) -> Path:
    """Return the place with its links followed.

    Args:
        out: Where the folder is wanted.
        sign: The file by which an earlier one is known: such a folder may be replaced.
        names: Of the files that are replaced with it; a folder with others is left alone.

    Raises:
        UserError: no folder can be put there.
    """
    place = out.resolve()
    if place.exists() and not place.is_dir():
        raise UserError(f"--out {out} is a file. Give a folder.")
    there = {path.name for path in place.iterdir()} - _OF_SYSTEMS if place.is_dir() else set()
    if there and not (place / sign).is_file():
        raise UserError(
            f"--out {out} holds other things than a bundle. Give an empty or a new folder."
        )
    if others := sorted(there - {sign, *names}):
        raise UserError(
            f"--out {out} holds what no export has made: {', '.join(others[:3])}. It would be "
            "replaced as a whole: move them away, or give another folder."
        )
    _require_replaceable(out, place)
    parent = next(path for path in place.parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"nothing can be written into {parent}. Give another: --out DIR")
    return place


def _require_replaceable(out: Path, place: Path) -> None:
    if os.path.ismount(place):
        raise UserError(
            f"--out {out} is a mount point, which can't be replaced. Give a folder in it."
        )
    if place in (here := Path.cwd().resolve(), *here.parents):
        raise UserError(
            f"--out {out} is the folder you stand in, or one above it; it is replaced as a whole. "
            "Give a folder in it, or go to another folder first."
        )


@contextmanager
def staged(place: Path) -> Iterator[Path]:
    """Give a new folder, which replaces the one at the place if the block ends well.

    Args:
        place: As `require_place` returns it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name[:50]}-", dir=place.parent))
    new, old = beside / "new", beside / "old"
    new.mkdir()
    try:
        yield new
        _exchange(new, place, old)
    finally:
        if place.exists() or not old.exists():  # else the old one is there and nowhere else
            shutil.rmtree(beside, ignore_errors=True)


def _exchange(new: Path, place: Path, old: Path) -> None:
    try:
        if place.exists():
            place.rename(old)
        new.rename(place)
    except BaseException:  # a signal, too, which may come after either
        if old.exists() and not place.exists():
            old.rename(place)
        raise
