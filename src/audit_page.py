"""What an audit shows: audit.html, one file with its pictures inside, and lines for a terminal."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src import __version__
from src.data.findings import Findings, Group, Note
from src.data.inspection import Inspected
from src.errors import visible
from src.pages import page, picture_uri
from src.preprocess import BadImageError, open_rgb

_SIDE = 200  # of a picture on the page, in pixels
# Shown at most; audit.json has all.
_GROUPS, _OF_GROUP, _NOTES, _OF_NOTE, _FILES = 60, 8, 60, 8, 200
_LINES, _NOTE_LINES = 5, 20  # of a kind, on a terminal
_SECTIONS = (
    (
        "conflicts",
        "Label conflicts",
        True,
        "The same picture under several labels: one of them is wrong, and whatever the network "
        "answers is counted as a mistake half of the time.",
    ),
    (
        "leaks",
        "Leaks between splits",
        True,
        "The same picture in several splits: a score on one of them counts pictures that were "
        "trained on, and is too good.",
    ),
    (
        "duplicates",
        "Duplicates",
        False,
        "The same picture twice in one class and split. It counts double; no score is falsified.",
    ),
)


def audit_page(title: str, found: Inspected, command: Sequence[str]) -> str:
    """Return audit.html.

    Args:
        title: The name of the data.
        found: What was found.
        command: The words that found it.
    """
    findings = found.findings
    copies = findings.copies
    shown = Shown(found)
    place = {path: i for i, path in enumerate(findings.paths)}
    return page(
        "audit.html.j2",
        {
            "title": title,
            "n": len(findings.paths) + len(findings.damaged),
            "fingerprint": found.fingerprint,
            "verdict": verdict(findings),
            "copies": bool(copies.conflicts or copies.leaks or copies.duplicates),
            "tiles": [
                ("label conflicts", len(copies.conflicts), "bad"),
                ("leaks between splits", len(copies.leaks), "bad"),
                ("damaged files", len(findings.damaged), "bad"),
                ("duplicates", len(copies.duplicates), ""),
                ("notes", len(findings.notes), ""),
            ],
            "sections": [
                _section(shown, getattr(copies, name), name, title, falsifies, about)
                for name, title, falsifies, about in _SECTIONS
            ],
            "damaged": findings.damaged[:_FILES],
            "more_damaged": max(0, len(findings.damaged) - _FILES),
            "classes": findings.classes,
            "splits": sorted({split or "all" for split in findings.splits}, key=_split_order),
            "notes": [_note(shown, note, place) for note in findings.notes[:_NOTES]],
            "more_notes": max(0, len(findings.notes) - _NOTES),
            "command": shlex.join(command),
            "version": __version__,
        },
    )


def summary(findings: Findings) -> list[str]:
    """Return lines for a terminal."""
    copies = findings.copies
    lines = [f"{len(findings.paths) + len(findings.damaged):,} files looked at"]
    for name, groups in (
        ("label conflicts", copies.conflicts),
        ("leaks between splits", copies.leaks),
        ("duplicates", copies.duplicates),
    ):
        exact = sum(group.kind == "exact" for group in groups)
        kinds = f" ({exact:,} exact, {len(groups) - exact:,} near)" if groups else ""
        lines.append(f"{name}: {len(groups):,}{kinds}")
        lines += _some([_members(findings, group) for group in groups])
    lines.append(f"damaged files: {len(findings.damaged):,}")
    lines += _some([f"{path}: {reason}" for path, reason in findings.damaged])
    for note in findings.notes[:_NOTE_LINES]:
        lines.append(f"note: {note.note}{f' ({len(note.paths):,})' if note.paths else ''}")
    if len(findings.notes) > _NOTE_LINES:
        lines.append(f"and {len(findings.notes) - _NOTE_LINES:,} more notes")
    return [visible(line) for line in (*lines, verdict(findings))]


def _members(findings: Findings, group: Group) -> str:
    more = len(group.members) - _LINES
    named = [findings.paths[i] for i in group.members[:_LINES]]
    return "  ".join([*named, f"and {more:,} more"] if more > 0 else named)


def _some(items: Sequence[str]) -> list[str]:
    """Return the first items, indented."""
    more = [f"and {len(items) - _LINES:,} more"] if len(items) > _LINES else []
    return [f"  {line}" for line in (*items[:_LINES], *more)]


def verdict(findings: Findings) -> str:
    """Return in a sentence whether scores on these data can be trusted."""
    if not findings.falsify:
        return "Nothing was found that would falsify a score."
    copies = findings.copies
    faults = {
        "label conflict": len(copies.conflicts),
        "leak": len(copies.leaks),
        "damaged file": len(findings.damaged),
    }
    named = [f"{n:,} {name}{'s' if n > 1 else ''}" for name, n in faults.items() if n]
    first = f"{', '.join(named[:-1])} and " if len(named) > 1 else ""
    return f"{first}{named[-1]} would falsify a score."


def _split_order(name: str) -> tuple[int, str]:
    order = ("train", "val", "test")
    return (order.index(name) if name in order else len(order), name)


class Shown:
    """The pictures of a page; each is decoded once."""

    def __init__(self, found: Inspected) -> None:
        self.found = found
        self._made: dict[int, dict[str, str | int]] = {}

    def __call__(self, i: int) -> dict[str, str | int]:
        """Return path, picture, its sides and a few words of the picture at a position."""
        if i not in self._made:
            self._made[i] = self._make(i)
        return self._made[i]

    def _make(self, i: int) -> dict[str, str | int]:
        findings = self.found.findings
        width, height = self.found.sizes[i]
        said = [findings.labels[i], findings.splits[i], f"{width} x {height}"]
        return {
            "path": findings.paths[i],
            "uri": _uri(self.found.root / findings.paths[i]),
            "width": width,
            "height": height,
            "about": ", ".join(part for part in said if part),
        }


def _uri(path: Path) -> str:
    """Return the picture; an empty one where the file has gone meanwhile."""
    try:
        return picture_uri(open_rgb(path), _SIDE)
    except (BadImageError, OSError):
        return "data:,"


def _section(
    shown: Shown, groups: Sequence[Group], name: str, title: str, falsifies: bool, about: str
) -> dict[str, Any]:
    return {
        "id": name,
        "title": title,
        "about": about,
        "falsifies": falsifies,
        "groups": [_group(shown, group) for group in groups[:_GROUPS]],
        "more": max(0, len(groups) - _GROUPS),
    }


def _group(shown: Shown, group: Group) -> dict[str, Any]:
    findings, members = shown.found.findings, group.members
    labels = Counter(findings.labels[i] or "no label" for i in members)
    splits = Counter(findings.splits[i] for i in members if findings.splits[i])
    parts = [" and ".join(names) for names in (labels, splits) if len(names) > 1]
    return {
        "kind": group.kind,
        "count": len(members),
        "said": ", ".join(parts),
        "pictures": [shown(i) for i in members[:_OF_GROUP]],
    }


def _note(shown: Shown, note: Note, place: Mapping[str, int]) -> dict[str, Any]:
    return {
        "note": note.note,
        "count": len(note.paths),
        "pictures": [shown(place[path]) for path in note.paths[:_OF_NOTE]],
        "more": max(0, len(note.paths) - _OF_NOTE),
    }
