"""The table of predictions that src.predict writes: its lines, its place, how it is known again."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from src.errors import UserError
from src.rows import csv_text

_CSV_START = b"path,predicted_class,"
_JSON_KEYS = (b'{"path": ', b', "predicted_class": ')  # of a line
_FIRST_BYTES = 1 << 16

Row = tuple[str, str, list[float], str]  # path, class, probabilities, error; of a bad file "", []
Layout = Callable[[Row | None, Sequence[str]], str]  # a row, or None for the head; and the classes


def layout_of(form: str | None, out: Path | None) -> Layout:
    """Return how rows become lines: csv or jsonl, by the suffix of the file without a word."""
    ends = {".jsonl": "jsonl", ".ndjson": "jsonl"}
    by_name = ends.get(out.suffix.lower(), "csv") if out else "csv"
    return _json_line if (form or by_name) == "jsonl" else _csv_line


def _csv_line(row: Row | None, classes: Sequence[str]) -> str:
    if row is None:
        cells = ["path", "predicted_class", *(f"prob_{name}" for name in classes), "error"]
    else:
        path, name, shares, error = row
        numbers = [f"{share:.6f}" for share in shares] or [""] * len(classes)
        cells = [path, name, *numbers, error]
    return csv_text([cells])


def _json_line(row: Row | None, classes: Sequence[str]) -> str:
    if row is None:
        return ""
    path, name, shares, error = row
    content = {
        "path": path,
        "predicted_class": name or None,
        "probabilities": dict(zip(classes, shares, strict=True)) if shares else None,
        "error": error or None,
    }
    return json.dumps(content) + "\n"


def write(out: Path | None, layout: Layout, classes: Sequence[str], rows: Iterable[Row]) -> int:
    """Write the rows as they come; return how many files could not be read.

    A file takes its name when it is whole; until then it ends with .part.

    Args:
        out: The file; None means standard output.
        layout: How a row becomes a line.
        classes: C names.
        rows: Of all files.
    """
    if out is None:
        sys.stdout.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="surrogateescape", newline=""
        )
        bad = 0
        with _closed_early():
            bad = _write_to(sys.stdout, layout, classes, rows)
        return bad
    part = part_of(out)
    with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        bad = _write_to(file, layout, classes, rows)
    if part != out:
        part.replace(out.resolve())
    return bad


def part_of(out: Path) -> Path:
    """Return what is written; a device or a pipe is written itself, a link's target replaced."""
    if out.exists() and not out.is_file():
        return out
    target = out.resolve()
    return target.with_name(f"{target.name}.part")


@contextlib.contextmanager
def _closed_early() -> Iterator[None]:
    """End in silence where whoever reads standard output has seen enough, such as `head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_to(file: TextIO, layout: Layout, classes: Sequence[str], rows: Iterable[Row]) -> int:
    file.write(layout(None, classes))
    bad = 0
    for row in rows:
        file.write(layout(row, classes))
        bad += bool(row[3])
    return bad


def require_place(out: Path | None) -> None:
    """Raise UserError if the table can't be written, or would replace something else."""
    if out is None:
        if sys.stdout is None:
            raise UserError("standard output is closed. Give a file: --out p.csv")
        return
    if out.is_dir():
        raise UserError(f"--out {out} is a folder. Give a file in it, such as {out / 'p.csv'}.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}. Make it, or give another.")
    if not os.access(out.absolute().parent, os.W_OK):
        raise UserError(f"--out {out}: nothing can be written into {out.parent}. Give another.")
    if part_of(out).is_dir():
        raise UserError(f"--out {out} is first written into {part_of(out)}, which is a folder.")
    for path in (out, part_of(out)):
        if path.is_file() and not is_table(path):
            raise UserError(
                f"--out {out}: {path} is there, and is no table of this command. Give another "
                "name, or remove it."
            )


def is_table(path: Path) -> bool:
    """Return whether a file begins as a table of predictions does, or is empty."""
    with path.open("rb") as file:
        start = file.readline(_FIRST_BYTES)
    of_json = start.startswith(_JSON_KEYS[0]) and _JSON_KEYS[1] in start
    return not start or start.startswith(_CSV_START) or of_json
