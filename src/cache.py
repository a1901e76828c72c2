"""Lists and clears the decoded pictures that are kept on this machine: `python -m src.cache`."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from src.data.home import cache_home
from src.data.room import ARRAYS, LIMIT, by_use, limit_bytes, size_of, stores_in, sweep
from src.data.segments import Segment
from src.errors import UserError
from src.failures import end_with_message

_MIB, _DAY = 2**20, 86_400


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 for a mistake in the options."""
    with end_with_message() as outcome:
        options = _parser().parse_args(args)
        days = options.days
        if days is not None and not (options.clear and days >= 0):
            raise UserError(f"--days is {days:g}; allowed is 0 or more, beside --clear.")
        if options.place is not None and not options.place.is_dir():
            raise UserError(f"--place {options.place}: there is no such folder.")
        memories = None if options.place else _home() / "scans"
        place = options.place or _home() / "pixels"
        if options.clear:
            print(clear(place, memories, days or 0.0))
        print("\n".join(table(place, memories)))
    return outcome.code


def _home() -> Path:
    try:
        return cache_home()
    except RuntimeError as error:
        raise UserError(f"{error} Name a folder by --place DIR or XDG_CACHE_HOME.") from error


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m src.cache",
        allow_abbrev=False,
        description="List the decoded pictures that are kept, so that no run decodes them again; "
        f"at most {LIMIT} GiB (20), what was used longest ago goes first. Without --place also "
        "what is remembered of the files of each data.root.",
    )
    made.add_argument("--place", type=Path, metavar="DIR", help="the DIR of data.cache")
    made.add_argument("--clear", action="store_true", help="remove them; the next run decodes anew")
    made.add_argument("--days", type=float, help="... unless used in so many days")
    return made


def clear(place: Path, memories: Path | None = None, days: float = 0.0) -> str:
    """Remove segments and what is remembered of files; return a line that says how much.

    Args:
        place: Folder of all stores.
        memories: Folder of what is remembered of the files of each root; None leaves it alone.
        days: Those used within so many days stay.
    """
    latest = time.time() - days * _DAY
    removed, freed = 0, 0
    sweep(place)
    for path in [*by_use(stores_in(place)), *_remembered(memories)]:
        with contextlib.suppress(OSError):  # gone by now, or open on Windows
            found = path.stat()
            if days <= 0 or found.st_mtime < latest:
                os.unlink(path)
                removed, freed = removed + 1, freed + found.st_size
    return f"removed {removed} files, {freed / _MIB:,.1f} MiB"


def _remembered(memories: Path | None) -> list[Path]:
    return [] if memories is None else sorted(memories.glob("*.scans"))


def table(place: Path, memories: Path | None = None) -> list[str]:
    """Return the lines of the list: store, pictures, MiB, and when it was last used."""
    head = ("pictures of (rule, pixels, decoder)", "number", "MiB", "last used")
    rows = [head, *(_row(store) for store in stores_in(place) if by_use([store]))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    total = sum(map(size_of, by_use(stores_in(place))))
    files = _remembered(memories)
    more = sum(map(size_of, files)) / _MIB
    return [
        *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows),
        f"{total / _MIB:,.1f} of {limit_bytes() / _MIB:,.0f} MiB ({LIMIT}) in {place}",
        *([f"{more:,.1f} MiB on what the files of {len(files)} data.root held"] if files else []),
    ]


def _row(folder: Path) -> tuple[str, str, str, str]:
    paths = by_use([folder])
    pictures, latest = 0, 0.0
    for path in paths:
        with contextlib.suppress(ValueError, OSError):
            latest = path.stat().st_mtime
            pictures += len(Segment(path).rows) if folder.name != ARRAYS else 0
    size = sum(map(size_of, paths))
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(latest))
    number = f"{len(paths):,} files" if folder.name == ARRAYS else f"{pictures:,}"
    return folder.name, number, f"{size / _MIB:,.1f}", used


if __name__ == "__main__":
    sys.exit(main())
