"""A CSV of the pictures that an audit leaves: no conflicts, one of each group of copies."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from src.data.findings import Findings
from src.data.tables import write_table
from src.errors import UserError

_PREFERRED = {"test": 0, "val": 1, "train": 2}  # of a leak, the copy that is not trained on stays


def left_over(
    findings: Findings, sizes: Sequence[tuple[int, int]], num_bytes: Callable[[int], int]
) -> list[int]:
    """Return the positions of the pictures to keep, rising.

    All pictures of a conflict go: which label is right, nobody knows. Of other copies one stays: of
    the test split before val and train, then the one of most pixels, of most bytes, the first.

    Args:
        findings: Of N sound pictures.
        sizes: Width and height of each.
        num_bytes: Returns those of the file at a position.
    """
    copies, dropped = findings.copies, set[int]()
    for group in copies.conflicts:
        dropped.update(group.members)

    def rank(i: int) -> tuple[int, int, int, int]:
        width, height = sizes[i]
        return _PREFERRED.get(findings.splits[i], 3), -width * height, -num_bytes(i), i

    for group in (*copies.leaks, *copies.duplicates):
        alive = sorted(set(group.members) - dropped, key=rank)
        dropped.update(alive[1:])
    return [i for i in range(len(findings.paths)) if i not in dropped]


def write_fixed(
    path: Path,
    root: Path,
    findings: Findings,
    sizes: Sequence[tuple[int, int]],
    groups: Sequence[str] = (),
) -> list[int]:
    """Write path, label and, where the data name any, split and group of what is left.

    Nothing is deleted.

    Args:
        path: The CSV. Paths in it start from its folder where they can.
        root: What the paths of the findings start from.
        findings: Of the data.
        sizes: See `left_over`.
        groups: Of each picture, "" for none; empty if there are none.

    Returns:
        The positions of the pictures left.

    Raises:
        UserError: if a file's name is no UTF-8, which a CSV that is read for a training must be.
    """

    def num_bytes(i: int) -> int:
        with suppress(OSError):  # gone meanwhile
            return (root / findings.paths[i]).stat().st_size
        return 0

    kept = left_over(findings, sizes, num_bytes)
    names = [_from(path.parent, root / findings.paths[i]) for i in kept]
    columns = {"path": names, "label": [findings.labels[i] for i in kept]}
    for column, values in (("split", findings.splits), ("group", groups)):
        if any(values):
            columns[column] = [values[i] for i in kept]
    _check_utf8(path, names)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, list(columns), list(zip(*columns.values(), strict=True)))
    return kept


def _check_utf8(path: Path, names: Sequence[str]) -> None:
    odd = [name for name in names if any("\udc80" <= letter <= "\udcff" for letter in name)]
    if odd:
        raise UserError(
            f"--fix {path}: {len(odd):,} of the files have names that are no UTF-8, "
            f"{os.fsencode(odd[0])!r} for one, and a CSV can't name them. Rename them."
        )


def _from(folder: Path, file: Path) -> str:
    """Return a path as a CSV in the folder names it: relative inside, else absolute; posix."""
    whole, start = os.path.abspath(file), os.path.join(os.path.abspath(folder), "")
    inside = whole.removeprefix(start) if whole.startswith(start) else whole
    return inside.replace(os.sep, "/")
