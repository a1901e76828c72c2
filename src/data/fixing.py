"""A CSV of the pictures that an audit leaves: no conflicts, one of each group of copies."""

import os
from collections.abc import Sequence
from pathlib import Path

from src.data.findings import Findings
from src.data.tables import write_table

_PREFERRED = {"test": 0, "val": 1, "train": 2}  # of a leak, the copy that is not trained on stays


def left_over(findings: Findings, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Return the positions of the pictures to keep, rising.

    All pictures of a conflict go: which label is right, nobody knows. Of other copies one stays: of
    the test split before val and train, then the largest, then the first.

    Args:
        findings: Of N sound pictures.
        sizes: Width and height of each.
    """
    copies, dropped = findings.copies, set[int]()
    for group in copies.conflicts:
        dropped.update(group.members)

    def rank(i: int) -> tuple[int, int, int]:
        width, height = sizes[i]
        return _PREFERRED.get(findings.splits[i], 3), -width * height, i

    for group in (*copies.leaks, *copies.duplicates):
        alive = sorted(set(group.members) - dropped, key=rank)
        dropped.update(alive[1:])
    return [i for i in range(len(findings.paths)) if i not in dropped]


def write_fixed(
    path: Path, root: Path, findings: Findings, sizes: Sequence[tuple[int, int]]
) -> int:
    """Write path, label and, where the data name any, split of what is left; nothing is deleted.

    Args:
        path: The CSV; an old one is replaced. Paths in it start from its folder where they can.
        root: What the paths of the findings start from.
        findings: Of the data.
        sizes: See `left_over`.

    Returns:
        The number of pictures left.
    """
    kept = left_over(findings, sizes)
    split = any(findings.splits)
    rows = [
        [
            _from(path.parent, root / findings.paths[i]),
            findings.labels[i],
            *([findings.splits[i]] if split else []),
        ]
        for i in kept
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, ["path", "label", *(["split"] if split else [])], rows)
    return len(kept)


def _from(folder: Path, file: Path) -> str:
    """Return a path as a CSV in the folder names it: relative inside, else absolute; posix."""
    whole, start = os.path.abspath(file), os.path.join(os.path.abspath(folder), "")
    inside = whole.removeprefix(start) if whole.startswith(start) else whole
    return inside.replace(os.sep, "/")
