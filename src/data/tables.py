"""CSV files of samples: read with care, and every fault named with its line."""

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.errors import UserError, nearest

Row = tuple[str, ...]
MAX_NAMED = 20  # how many faulty rows or files one message lists
# What people call the splits elsewhere.
OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def some_of(items: Sequence[str], indent: str = "  ") -> str:
    """Return the items one a line, and `and n more` where there are more than MAX_NAMED."""
    lines = [indent + item for item in items[:MAX_NAMED]]
    if len(items) > MAX_NAMED:
        lines.append(f"{indent}and {len(items) - MAX_NAMED:,} more")
    return "\n".join(lines)


def labelled_rows(path: Path, splits: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return path, label, split and group of every row of a CSV; "" for no split or group.

    Raises:
        UserError: no CSV, an empty label, an unknown split, a file that is missing or named twice.
    """
    rows = read_table(path, ["path", "label"], ["split", "group"])
    if not rows:
        raise UserError(f"{path} names its columns and no pictures.")
    _check_labels_and_splits(path, rows, splits)
    resolved = [resolve(path.parent, row[0]) for row in rows]
    _check_files(path, rows, resolved)
    return [  # interned: the same few words in every row
        (name, *(sys.intern(value.strip()) for value in row[1:]))  # type: ignore[misc]
        for (name, _), row in zip(resolved, rows, strict=True)
    ]


def _check_labels_and_splits(path: Path, rows: Sequence[Row], splits: Sequence[str]) -> None:
    unlabelled = [name for name, label, _, _ in rows if not label.strip()]
    if unlabelled:
        raise UserError(
            f"{path}: {len(unlabelled):,} of {len(rows):,} rows have an empty label:\n"
            + some_of(unlabelled)
        )
    for name in dict.fromkeys(split.strip() for _, _, split, _ in rows):
        if name not in ("", *splits):
            raise UserError(
                f"{path}: unknown split '{name}'. Allowed are {', '.join(splits)} or an empty "
                f"value. {nearest(OTHER_NAMES.get(name.lower(), name), splits)}"
            )


def _check_files(path: Path, rows: Sequence[Row], resolved: Sequence[tuple[str, bool]]) -> None:
    pairs = zip(rows, resolved, strict=True)
    missing = [row[0] or "(an empty path)" for row, (_, there) in pairs if not there]
    if missing:
        raise UserError(
            f"{path}: {len(missing):,} of {len(rows):,} rows have no file behind them:\n"
            f"{some_of(missing)}\nPaths are absolute or start from {path.parent}."
        )
    twice = [name for name, count in Counter(name for name, _ in resolved).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: {len(twice):,} files are named more than once:\n{some_of(twice)}\n"
            "Keep one row for each."
        )


def read_table(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, errors: str = "strict"
) -> list[Row]:
    """Read a CSV file with a header line; column names are taken without case and outer blanks.

    Args:
        path: UTF-8 text, with or without a byte order mark.
        needed: columns that must be there; others may be there as well.
        optional: columns that are "" in every row where they are missing.
        errors: "surrogateescape" for files of ours, which keep file names that are no UTF-8.

    Returns:
        The rows, each with the values of `needed` and `optional` in their order.

    Raises:
        UserError: the file can't be read, is no text, is no CSV, or lacks a column.
    """
    data = _read_bytes(path, errors)
    # Not from one string: StringIO takes four bytes for each character.
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", errors, newline="")
    reader = csv.reader(text, strict=True)
    rows: list[list[str]] = []
    odd: tuple[int, int] | None = None  # line and length of the first row of another length
    try:
        for row in reader:
            if row and rows and odd is None and len(row) != len(rows[0]):
                odd = reader.line_num, len(row)
            rows += [row] if row else []
    except csv.Error as error:
        raise UserError(f"{path} is no CSV: line {reader.line_num}: {error}.") from error
    if not rows:
        raise UserError(f"{path} is empty. Its first line must name the columns: path,label.")
    columns = [name.strip().lower() for name in rows[0]]
    _check_columns(path, columns, needed)
    if odd is not None:
        raise UserError(
            f"{path}, line {odd[0]}: {odd[1]} values for {len(columns)} columns. "
            "Put quotes around a value that holds a comma."
        )
    where = [columns.index(name) if name in columns else -1 for name in (*needed, *optional)]
    return [tuple(row[at] if at >= 0 else "" for at in where) for row in rows[1:]]


def _read_bytes(path: Path, errors: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}.") from error
    try:
        data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no UTF-8 text (byte {error.start:,} is {data[error.start]:#04x}). "
            "Save it as 'CSV UTF-8'."
        ) from error
    if b"\0" in data:
        raise UserError(f"{path} is a binary file, not a CSV: it holds zero bytes.")
    return data


def _check_columns(path: Path, columns: Sequence[str], needed: Iterable[str]) -> None:
    missing = [name for name in needed if name not in columns]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if not missing and not twice:
        return
    fault = f"has no column '{missing[0]}'" if missing else f"has the column '{twice[0]}' twice"
    shown = ", ".join(repr(name[:40]) for name in columns[:10])
    hint = nearest(missing[0], columns) if missing else ""
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        hint = "Separate the columns by commas."
    raise UserError(
        f"{path} {fault}. Its first line names the columns {shown}. {hint}\n"
        "Needed are path,label for training and path for predicting; split and group are optional."
    )


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file, whole or not at all; `read_table` gives the same values back."""
    # All quoted, because csv leaves a lone carriage return in a file's name bare and then reads it
    # as the end of the line.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            plain = csv.writer(file, lineterminator="\n")
            quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
            plain.writerow(columns)
            for row in rows:
                (quoted if "\r" in "".join(row) else plain).writerow(row)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # a full disk must not stay full of it


def resolve(root: Path, value: str) -> tuple[str, bool]:
    """Find the file that a CSV's `path` means; return its path as listings hold it.

    Returns:
        The path, posix and relative to `root` where the file lies inside; whether it is there.
    """
    path, there = located(root, value)
    return _relative(root, path), there


def located(root: Path, value: str) -> tuple[str, bool]:
    """Find the file that a CSV's `path` means, in a folder.

    Tried as it stands, then with Windows separators, then both without outer blanks.

    Returns:
        The path, with the folder before it; whether there is such a file.
    """
    windows = value.replace("\\", "/")
    for candidate in dict.fromkeys((value, windows, value.strip(), windows.strip())):
        path = os.path.normpath(os.path.join(root, candidate))
        if os.path.isfile(path):
            return path, True
    return os.path.normpath(os.path.join(root, windows.strip())), False


def _relative(root: Path, path: str) -> str:
    prefix = os.path.join(root, "")
    inside = path.removeprefix(prefix) if path.startswith(prefix) else path
    return inside.replace(os.sep, "/")
