"""Files to predict, as a command line names them: files, folders, patterns, lists.

It imports nothing heavy, and lists without opening a picture.
"""

import errno
import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import TextIO

from src.data.folders import is_system
from src.data.tables import located, read_table
from src.errors import UserError
from src.predicted import is_table

STANDARD_INPUT = "-"
_TABLES = (".csv", ".jsonl", ".ndjson", ".part")  # how tables of predictions end


def listed(
    words: Iterable[str], lines: TextIO | None = None, written: Iterable[Path] = ()
) -> list[str]:
    """Return the files that words name, in their order; a folder's, sorted by name.

    Args:
        words: A file; a folder, of which every file below is taken but those that begin with a dot,
            are the system's own or are tables of predictions, and at the end each folder below that
            can't be listed; a pattern such as `*.jpg` or `**/*.png`; a CSV with a column `path`,
            relative to its folder, empty where a row has none; or `-` for standard input, a file in
            each line.
        lines: Standard input; None means that of this process.
        written: Files that the program itself writes: they are left out.

    Raises:
        UserError: a word names nothing.
    """
    own = {os.path.realpath(path) for path in written}
    names = {os.path.basename(path) for path in own}
    found: list[str] = []
    for word in words:
        found += (
            path
            for path in _of(word, lines)
            if os.path.basename(path) not in names or os.path.realpath(path) not in own
        )
    if not found:
        raise UserError("there is no picture to predict. Give files or folders.")
    return found


def require_regular(path: str) -> None:
    """Raise OSError for what is no regular file, without opening it: a pipe would block for ever.

    A folder raises what hinders its listing, or says that it is a folder.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _of(word: str, lines: TextIO | None) -> Iterable[str]:
    if word == STANDARD_INPUT:
        given = _standard_input() if lines is None else lines
        return [line.rstrip("\r\n") for line in given if line.strip()]
    if not word:
        raise UserError("an empty name was given. Give files or folders.")
    path = Path(word)
    if path.is_dir():
        return _below(word)
    if path.is_file() and path.suffix.lower() == ".csv":
        return _of_table(path)
    if os.path.lexists(word):  # also a link that leads nowhere: its row says so
        return [word]
    if has_magic(word):
        matches = [name for name in sorted(glob(word, recursive=True)) if not os.path.isdir(name)]
        if matches:
            return matches
        raise UserError(f"{word}: nothing matches this pattern. Give files or folders.")
    raise UserError(f"{word}: there is no such file or folder.")


def _standard_input() -> TextIO:
    """Return standard input with names read as the system writes them, on Windows too."""
    if sys.stdin is None:
        raise UserError("standard input is closed, and - stands for it. Give files or folders.")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    return sys.stdin


def _below(folder: str) -> Iterator[str]:
    """Yield the files below a folder, then the folders that can't be listed.

    Of links that lead in a circle, each once.
    """
    seen: set[str] = set()
    closed: list[str] = []
    for place, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: closed.append(str(error.filename))
    ):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_system(name))
        paths = (os.path.join(place, name) for name in sorted(names) if not is_system(name))
        yield from (path for path in paths if not _is_result(path))
    yield from closed


def _is_result(path: str) -> bool:
    """Return whether it is what an earlier prediction has written."""
    if not path.lower().endswith(_TABLES):
        return False
    try:
        return is_table(Path(path))
    except OSError:  # its row will say why
        return False


def _of_table(path: Path) -> list[str]:
    rows = read_table(path, ["path"], errors="surrogateescape")
    return [located(path.parent, name)[0] if name.strip() else "" for (name,) in rows]
