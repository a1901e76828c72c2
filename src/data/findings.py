"""What is wrong with the pictures of a data set, as plain data: copies, conflicts, leaks, oddities.

N sound pictures.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from src.class_weights import balanced_weights
from src.data.copies import groups_of
from src.data.looks import Looks
from src.data.remembered import Scan

Kind = Literal["exact", "near"]
TINY = 32  # pixels of the shorter side below which a picture is noted
EXTREME = 4.0  # ratio of the sides above which it is
_FAR = 5.0  # robust standard deviations from the median of its class
_FEWEST = 20  # pictures of a class below which nothing stands out


@dataclass(frozen=True)
class Group:
    """Pictures that show the same.

    Attributes:
        members: Their positions, two or more.
        kind: "exact" if every pixel is equal, "near" if some differ.
    """

    members: tuple[int, ...]
    kind: Kind


@dataclass(frozen=True)
class Note:
    """Something odd that falsifies no score.

    Attributes:
        note: What it is.
        paths: The pictures; none where it is about a class.
    """

    note: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copies:
    """Groups of copies, each in one list or in the first two.

    Attributes:
        conflicts: With different labels.
        leaks: In different splits.
        duplicates: All others.
    """

    conflicts: tuple[Group, ...] = ()
    leaks: tuple[Group, ...] = ()
    duplicates: tuple[Group, ...] = ()


@dataclass(frozen=True)
class Findings:
    """All that an audit has found.

    Attributes:
        paths: Of the N sound pictures.
        labels: Theirs; "" where there is none.
        splits: Theirs; "" where the data names none.
        damaged: Path and reason of files that are no sound pictures.
        copies: By position in `paths`.
        notes: What is odd.
        classes: class -> {"count", "share", "splits", "weight"}; the weight is what
            `model.class_weights: balanced` would give.
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...] = ()
    copies: Copies = field(default_factory=Copies)
    notes: tuple[Note, ...] = ()
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def falsify(self) -> bool:
        """Whether anything was found that would falsify a score."""
        return bool(self.damaged or self.copies.conflicts or self.copies.leaks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        copies = self.copies
        return {
            "n": len(self.paths) + len(self.damaged),
            "damaged": [{"path": path, "reason": reason} for path, reason in self.damaged],
            "conflicts": [self._group(group, "labels") for group in copies.conflicts],
            "leaks": [self._group(group, "splits") for group in copies.leaks],
            "duplicates": [self._group(group) for group in copies.duplicates],
            "notes": [{"note": note.note, "paths": list(note.paths)} for note in self.notes],
            "classes": {name: dict(about) for name, about in self.classes.items()},
        }

    def _group(self, group: Group, column: Literal["labels", "splits", ""] = "") -> dict[str, Any]:
        found: dict[str, Any] = {"paths": [self.paths[i] for i in group.members]}
        if column:
            found[column] = [getattr(self, column)[i] for i in group.members]
        return {**found, "kind": group.kind}


def group_copies(hashes: Sequence[str], near: Iterable[tuple[int, int]] = ()) -> list[Group]:
    """Return groups of equal pictures, then groups of nearly equal ones, all their copies in them.

    Args:
        hashes: Of the content, [N].
        near: Pairs of positions.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for i, content in enumerate(hashes):
        same[content].append(i)
    exact = [tuple(members) for members in same.values() if len(members) > 1]
    ties = [(members[0], other) for members in exact for other in members[1:]]
    joined = groups_of([*ties, *near])
    several = [tuple(m) for m in joined if len({hashes[i] for i in m}) > 1]
    return [Group(m, "exact") for m in exact] + [Group(m, "near") for m in several]


def sort_copies(groups: Iterable[Group], labels: Sequence[str], splits: Sequence[str]) -> Copies:
    """Tell groups with several labels and groups in several splits from mere duplicates.

    Args:
        groups: Of positions.
        labels: [N]; "" is no label and contradicts none.
        splits: [N].
    """
    conflicts, leaks, duplicates = [], [], []
    for group in groups:
        conflict = len({labels[i] for i in group.members} - {""}) > 1
        leak = len({splits[i] for i in group.members}) > 1
        if conflict:
            conflicts.append(group)
        if leak:
            leaks.append(group)
        if not conflict and not leak:
            duplicates.append(group)
    return Copies(tuple(conflicts), tuple(leaks), tuple(duplicates))


def class_table(labels: Sequence[str], splits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {class: {"count", "share", "splits": {split: count}, "weight"}}, sorted by name."""
    counts = Counter(label for label in labels if label)
    total = sum(counts.values())
    weights = dict(zip(sorted(counts), balanced_weights(dict(sorted(counts.items()))), strict=True))
    table: dict[str, dict[str, Any]] = {
        name: {
            "count": counts[name],
            "share": counts[name] / total,
            "splits": {},
            "weight": weights[name],
        }
        for name in sorted(counts)
    }
    for (label, split), number in sorted(Counter(zip(labels, splits, strict=True)).items()):
        if label:
            table[label]["splits"][split or "all"] = number
    return table


def notes_of(
    paths: Sequence[str], labels: Sequence[str], splits: Sequence[str], scans: Sequence[Scan]
) -> list[Note]:
    """Return what is odd about files and classes.

    Args:
        paths: Of the N sound pictures.
        labels: Theirs.
        splits: Theirs.
        scans: Theirs.
    """
    by_note: dict[str, list[str]] = defaultdict(list)
    for path, scan in zip(paths, scans, strict=True):
        for note in scan.notes:
            by_note[note].append(path)
        if min(scan.width, scan.height) < TINY:
            by_note[f"tiny: a side below {TINY} pixels"].append(path)
        if max(scan.width, scan.height) > EXTREME * min(scan.width, scan.height):
            by_note[f"extreme aspect: one side over {EXTREME:g} times the other"].append(path)
    found = [Note(note, tuple(files)) for note, files in sorted(by_note.items())]
    return [*_class_notes(labels, splits), *found]


def _class_notes(labels: Sequence[str], splits: Sequence[str]) -> list[Note]:
    """Return notes on imbalance, and on classes that a split lacks."""
    counts = Counter(label for label in labels if label)
    notes = []
    if len(counts) > 1 and max(counts.values()) > 2 * min(counts.values()):
        (most, many), (least, few) = max_and_min(counts)
        notes.append(
            Note(
                f"imbalance: {many:,} of {most}, {few:,} of {least}; "
                "model.class_weights balanced or data.sampling balanced evens that out"
            )
        )
    pairs = set(zip(labels, splits, strict=True))
    for split in sorted(set(splits) - {""}):
        absent = [name for name in sorted(counts) if (name, split) not in pairs]
        if absent:
            notes.append(Note(f"{split} has no picture of {', '.join(absent)}"))
    return notes


def max_and_min(counts: Mapping[str, int]) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the most and the least frequent, the first by name of equals."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ordered[0], ordered[-1]


def outliers(
    paths: Sequence[str], labels: Sequence[str], looks: Looks, scans: Sequence[Scan]
) -> list[Note]:
    """Return the pictures that stand out of their class by brightness, sharpness or size.

    A value stands out if it is over 5 robust standard deviations (1.4826 times the median distance
    from the median) away; sharpness and size by their logarithms. No more than a hundredth of a
    class is named, the farthest.

    Args:
        paths: [N].
        labels: [N].
        looks: [N].
        scans: [N].
    """
    pixels = np.array([scan.width * scan.height for scan in scans], np.float64)
    measures = {
        "dark": (looks["brightness"].astype(np.float64), -1),
        "bright": (looks["brightness"].astype(np.float64), 1),
        "blurred": (np.log(looks["sharpness"] + 1.0).astype(np.float64), -1),
        "small": (np.log(pixels), -1),
        "large": (np.log(pixels), 1),
    }
    notes = []
    names = np.array(labels)
    for word, (values, sign) in measures.items():
        for name in sorted(set(labels)):
            here = np.flatnonzero(names == name)
            if here.size >= _FEWEST and (at := _farthest(sign * values[here])).size:
                notes.append(
                    Note(f"unusually {word} for {name or 'the data'}", _named(paths, here[at]))
                )
    return notes


def _named(paths: Sequence[str], at: npt.NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(paths[i] for i in at.tolist())


def _farthest(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the places of values far above the median, the farthest first, a hundredth at most."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    far = np.flatnonzero(values - middle > _FAR * spread) if spread > 0 else np.empty(0, np.int64)
    most = max(1, len(values) // 100)
    return np.asarray(far[np.argsort(-values[far], kind="stable")][:most], np.int64)
