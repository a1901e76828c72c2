"""What is wrong with the pictures of a data set, as plain data: copies, conflicts, leaks, oddities.

N sound pictures.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from src.class_weights import balanced_weights
from src.data.ties import groups_of

Kind = Literal["exact", "near"]


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
            `model.class_weights: balanced` would give, None where nothing is trained on.
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
    counts = Counter(hashes)
    same: dict[str, list[int]] = defaultdict(list)
    for i, content in enumerate(hashes):
        if counts[content] > 1:
            same[content].append(i)
    exact = [tuple(members) for members in same.values()]
    ties = [(members[0], other) for members in exact for other in members[1:]]
    joined = groups_of([*ties, *near])
    several = [tuple(m) for m in joined if len({hashes[i] for i in m}) > 1]
    return [Group(m, "exact") for m in exact] + [Group(m, "near") for m in several]


def sort_copies(groups: Iterable[Group], labels: Sequence[str], splits: Sequence[str]) -> Copies:
    """Tell groups with several labels and groups in several splits from mere duplicates.

    Equal pictures in a near group of the same list are no finding of their own.

    Args:
        groups: Of positions.
        labels: [N]; "" is no label and contradicts none.
        splits: [N]; "" is trained on, or split later.
    """
    conflicts, leaks, duplicates = [], [], []
    for group in groups:
        conflict = len({labels[i] for i in group.members} - {""}) > 1
        leak = len({splits[i] or "train" for i in group.members}) > 1
        if conflict:
            conflicts.append(group)
        if leak:
            leaks.append(group)
        if not conflict and not leak:
            duplicates.append(group)
    return Copies(*(_outermost(found) for found in (conflicts, leaks, duplicates)))


def _outermost(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Leave out exact groups that lie in a near one, which has all their members."""
    in_near = {i for group in groups if group.kind == "near" for i in group.members}
    return tuple(g for g in groups if g.kind == "near" or g.members[0] not in in_near)


def class_table(labels: Sequence[str], splits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {class: {"count", "share", "splits": {split: count}, "weight"}}, sorted by name.

    The weight comes from the pictures to train on; without any, it is None.
    """
    counts = Counter(label for label in labels if label)
    total = sum(counts.values())
    pairs = zip(labels, splits, strict=True)
    trained = Counter(label for label, split in pairs if label and split in ("train", ""))
    weights = dict(zip(trained, balanced_weights(trained), strict=True))
    table: dict[str, dict[str, Any]] = {
        name: {
            "count": counts[name],
            "share": counts[name] / total,
            "splits": {},
            "weight": weights.get(name),
        }
        for name in sorted(counts)
    }
    for (label, split), number in sorted(Counter(zip(labels, splits, strict=True)).items()):
        if label:
            table[label]["splits"][split or "all"] = number
    return table
