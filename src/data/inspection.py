"""Looks at all pictures of a data set and says what is wrong with them.

N sound pictures.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.data.cache import place_of
from src.data.copies import near_pairs
from src.data.findings import (
    Copies,
    Findings,
    Group,
    class_table,
    group_copies,
    sort_copies,
)
from src.data.index import Index, Listing
from src.data.kept import array_key, keep, kept
from src.data.looks import Looker, Looks, kept_looks
from src.data.oddities import notes_of, outliers
from src.data.scans import scan
from src.errors import UserError, typed, visible

_RULES = "copies 4"  # of pairs that are kept; another number finds them anew


@dataclass(frozen=True)
class Inspected:
    """What was looked at, and what was found.

    Attributes:
        root: The folder that relative paths start from.
        fingerprint: Of pictures, labels and splits, as `Index.fingerprint`.
        findings: What is wrong.
        sizes: Width and height of the N sound pictures, in pixels.
        groups: Of each, as `Listing.groups`.
    """

    root: Path
    fingerprint: str
    findings: Findings
    sizes: tuple[tuple[int, int], ...]
    groups: tuple[str, ...]


def inspect(listing: Listing, show_progress: bool = True) -> Inspected:
    """Decode every picture once, and find damage, copies, conflicts, leaks and what is odd.

    What decoding shows is kept in the cache: a second look at the same files takes seconds.

    Args:
        listing: The files, with labels and splits.
        show_progress: Bars on stderr, if that is a terminal.
    """
    looker = Looker()
    scans = scan(listing.root, listing.paths, keep=looker, show_progress=show_progress)
    sound = [i for i, found in enumerate(scans) if not found.error]
    damaged = tuple(
        (path, found.error) for path, found in zip(listing.paths, scans, strict=True) if found.error
    )
    listing, scans = listing.take(sound), [scans[i] for i in sound]
    hashes = [found.hash for found in scans]
    looks = kept_looks(place_of(True), listing.root, listing.paths, hashes, looker, show_progress)
    looker.found.clear()  # half a gigabyte of 100,000 pictures
    sizes = tuple((found.width, found.height) for found in scans)
    groups = group_copies(hashes, _kept_pairs(hashes, looks, show_progress))
    findings = Findings(
        listing.paths,
        listing.labels,
        listing.splits,
        damaged,
        sort_copies(groups, listing.labels, listing.splits),
        (
            *notes_of(listing.paths, listing.labels, listing.splits, scans),
            *outliers(listing.paths, listing.labels, looks, scans),
        ),
        class_table(listing.labels, listing.splits),
    )
    index = Index.of(listing, sorted({*listing.labels} - {""}), hashes)
    return Inspected(listing.root, index.fingerprint(), findings, sizes, listing.groups)


def _kept_pairs(hashes: Sequence[str], looks: Looks, show_progress: bool) -> list[tuple[int, int]]:
    """Return positions of pictures that are near copies; found once for each set of pictures."""
    content, first = _distinct(hashes)
    thumbs = looks["thumb"][first]
    pairs = keep(
        place_of(True),
        _key(content),
        lambda: near_pairs(thumbs, show_progress),
        "looking for copies",
    )
    return [(first[a], first[b]) for a, b in pairs.tolist()]


def _distinct(hashes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the different hashes, sorted, and where each stands first."""
    first: dict[str, int] = {}
    for i, one in enumerate(hashes):
        first.setdefault(one, i)
    content = sorted(first)
    return content, [first[one] for one in content]


def _key(content: Sequence[str]) -> str:
    return array_key(_RULES, "".join(content))


def known_copies(index: Index) -> Copies:
    """Return copies without looking at a file: equal ones, and the near ones that an audit found.

    Args:
        index: With the hashes of all pictures.
    """
    content, first = _distinct(index.hashes)
    pairs = kept(place_of(True), _key(content))
    near = [] if pairs is None else [(first[a], first[b]) for a, b in pairs.tolist()]
    names = (*index.classes, "")  # label -1 finds the last one
    labels = [names[i] for i in index.labels.tolist()]
    return sort_copies(group_copies(index.hashes, near), labels, index.splits.tolist())


def _count(groups: Sequence[Group]) -> str:
    pictures = len({i for group in groups for i in group.members})
    several = len(groups) > 1
    return (
        f"{len(groups):,} group{'s' if several else ''} of copies ({pictures:,} pictures) "
        f"lie{'' if several else 's'}"
    )


def warn_of_copies(index: Index, location: Path, refuse: bool) -> None:
    """Tell on stderr of pictures under two labels or in two splits, or refuse them.

    Args:
        index: Of a training.
        location: The folder or CSV that it was made of.
        refuse: Whether they end it.

    Raises:
        UserError: if there are any and they are refused.
    """
    copies = known_copies(index)
    found = []
    for groups, what in (
        (copies.conflicts, "under several labels"),
        (copies.leaks, "in several splits of this run, so that a score counts pictures trained on"),
    ):
        if groups:
            shown = visible(", ".join(index.paths[i] for i in groups[0].members[:3]))
            found.append(
                f"{_count(groups)} {what}: {shown}{' for one' if len(groups) > 1 else ''}."
            )
    if not found:
        return
    text = " ".join(found)
    see = f"See those of the data: python -m src.audit --data.root {typed(location)}"
    if refuse:
        raise UserError(
            f"{text} {see} and leave them out by its --fix, or train all the same with "
            "--data.on_leak warn."
        )
    print(f"WARNING: {text} {see}", file=sys.stderr)
