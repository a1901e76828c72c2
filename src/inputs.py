"""Files to predict, as a command line names them: files, folders, patterns, lists.

It imports nothing heavy, and lists without opening a picture.
"""

import csv
import os
import sys
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import TextIO

from src.errors import UserError

STANDARD_INPUT = "-"
_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}  # left by Windows and archives of a Mac


def listed(words: Iterable[str], lines: TextIO | None = None) -> list[str]:
    """Return the files that words name, in their order; a folder's, sorted by name.

    Args:
        words: A file; a folder, of which every file below is taken but those that begin with a dot
            or are the system's own; a pattern such as `*.jpg` or `**/*.png`; a CSV with a column
            `path`, relative to its folder; or `-` for standard input, a file in each line.
        lines: Standard input; None means that of this process.

    Raises:
        UserError: a word names nothing.
    """
    found: list[str] = []
    for word in words:
        found += _of(word, sys.stdin if lines is None else lines)
    if not found:
        raise UserError("there is no picture to predict. Give files or folders.")
    return found


def _of(word: str, lines: TextIO) -> Iterable[str]:
    if word == STANDARD_INPUT:
        return [line.rstrip("\r\n") for line in lines if line.strip()]
    path = Path(word)
    if path.is_dir():
        return _below(word)
    if path.is_file() and path.suffix.lower() == ".csv":
        return _of_table(path)
    if path.is_file():
        return [word]
    if has_magic(word):
        matches = [name for name in sorted(glob(word, recursive=True)) if os.path.isfile(name)]
        if matches:
            return matches
        raise UserError(f"{word}: nothing matches this pattern. Give files or folders.")
    raise UserError(f"{word}: there is no such file or folder.")


def _below(folder: str) -> Iterator[str]:
    """Yield the files below a folder; of links that lead in a circle, each once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_system(name))
        yield from (os.path.join(place, name) for name in sorted(names) if not _is_system(name))


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _of_table(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            names = rows.fieldnames or ()
            if "path" not in names:
                raise UserError(
                    f"{path} has no column path; it has {', '.join(names) or 'no columns'}."
                )
            return [str(path.parent / row["path"]) for row in rows if row["path"]]
    except csv.Error as error:
        raise UserError(f"{path} is no CSV: {error}.") from error
