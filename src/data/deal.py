"""Deal units of samples out to splits, by class and by content.

A unit is a set of samples that must stay together: exact duplicates (equal content hashes) and
members of one group. Units are dealt in an order that depends on their contents and the seed alone,
so neither the file system, nor the machine, nor the file names decide. N samples; c is a class.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import numpy.typing as npt


@dataclass(slots=True)  # there is one for nearly every sample
class Unit:
    """Samples that stay together: their positions, and how many there are of each class."""

    members: Sequence[int]
    counts: Mapping[int, int]
    split: str = "train"

    def __len__(self) -> int:
        return len(self.members)


@dataclass
class _Deal:
    """The units while they are dealt out. Everything starts in train.

    `need[split][c]`: pictures of class c the split still wants. `units[split][c]`: its units that
    hold class c.
    """

    need: dict[str, Counter[int]]
    units: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def fits(self, unit: Unit, split: str) -> bool:
        """Whether at least half of the unit is wanted there, and train keeps every class."""
        wanted = sum(min(count, self.need[split][c]) for c, count in unit.counts.items())
        return 2 * wanted >= len(unit) and self.can_leave(unit)

    def can_leave(self, unit: Unit) -> bool:
        return all(self.units["train"][c] > 1 for c in unit.counts)

    def wants_none(self) -> bool:
        return not any(any(need.values()) for need in self.need.values())

    def move(self, unit: Unit, split: str) -> None:
        unit.split = split
        for c, count in unit.counts.items():
            self.need[split][c] = max(0, self.need[split][c] - count)
            self.units["train"][c] -= 1
            self.units[split][c] += 1


def make_units(
    pool: Iterable[int],
    labels: npt.NDArray[np.int64],
    hashes: Sequence[str],
    groups: Sequence[str],
) -> list[Unit]:
    """Join the samples of the pool that share a hash or a group, over any number of steps."""
    positions = np.fromiter(pool, np.int64)
    roots = np.array(_roots(positions.tolist(), len(labels), hashes, groups), np.int64)
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1, append=-1)).tolist()
    members, classes = positions[order].tolist(), labels.tolist()
    alone = {c: {c: 1} for c in set(classes)}  # shared: most units are a single sample
    return [
        Unit(m, alone[classes[m[0]]] if len(m) == 1 else Counter(classes[i] for i in m))
        for m in (members[start:end] for start, end in pairwise(starts))
    ]


def _roots(pool: Sequence[int], size: int, *columns: Sequence[str]) -> list[int]:
    """Return for each sample of the pool the first one that it is joined with."""
    parent = list(range(size))

    def root_of(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]  # halves the way for the next one
            i = parent[i]
        return i

    for column in filter(any, columns):
        first: dict[str, int] = {}
        for i in pool:
            other = first.setdefault(column[i], i) if column[i] else i
            if other != i:
                low, high = sorted((root_of(i), root_of(other)))
                parent[high] = low
    return [root_of(i) for i in pool]


def deal(
    units: list[Unit], fractions: dict[str, float], split_seed: int, hashes: Sequence[str]
) -> list[Unit]:
    """Set the split of every unit, and return them in the order in which they were dealt."""
    units.sort(key=lambda unit: _key(unit, split_seed, hashes))
    by_class: dict[int, list[Unit]] = defaultdict(list)
    for unit in units:
        for c in unit.counts:
            by_class[c].append(unit)
    state = _Deal({split: Counter() for split in fractions})
    for c, holders in by_class.items():
        state.units["train"][c] = len(holders)
        for split, pictures in _quotas(holders, c, fractions).items():
            state.need[split][c] = pictures
    # The rarest class first: with groups over several classes it has the fewest ways to be served.
    for c in sorted(by_class, key=lambda c: (len(by_class[c]), c)):
        _serve_once(state, by_class[c], c)
    _fill(state, units)
    return units


def _key(unit: Unit, split_seed: int, hashes: Sequence[str]) -> bytes:
    content = min(map(hashes.__getitem__, unit.members))
    return blake2b(f"{split_seed} {content}".encode(), digest_size=16).digest()


def _quotas(holders: Sequence[Unit], c: int, fractions: dict[str, float]) -> dict[str, int]:
    """Return how many pictures of class c each split should get."""
    pictures = sum(unit.counts[c] for unit in holders)
    # Train gets the first unit, val the second, test the third; a split without one gets nothing.
    served = [split for split in ("val", "test") if split in fractions][: len(holders) - 1]
    # The small number makes 0.15 x 30 = 4.5 round up whatever its last bit is.
    quotas: dict[str, int] = {
        split: max(1, math.floor(pictures * fractions[split] + 0.5 + 1e-9)) for split in served
    }
    while sum(quotas.values()) >= pictures:
        quotas[max(quotas, key=lambda split: quotas[split])] -= 1
    return quotas


def _serve_once(state: _Deal, holders: Sequence[Unit], c: int) -> None:
    """Give each split that wants class c one unit of it: the first that is not too large."""
    for split, need in state.need.items():
        if not need[c] or state.units[split][c]:
            continue
        free = (unit for unit in holders if unit.split == "train" and state.can_leave(unit))
        best: Unit | None = None
        for unit in free:
            if best is None or unit.counts[c] < best.counts[c]:
                best = unit
            if best.counts[c] <= need[c]:  # none can be better: most searches end at the first
                break
        if best is not None:
            state.move(best, split)


def _fill(state: _Deal, units: Sequence[Unit]) -> None:
    """Deal the units in their order to whichever split lacks more, until none is wanted."""
    for unit in units:
        if unit.split != "train":
            continue
        lacks = {split: sum(need[c] for c in unit.counts) for split, need in state.need.items()}
        lacking = sorted(filter(lacks.__getitem__, lacks), key=lambda split: -lacks[split])
        chosen = next((split for split in lacking if state.fits(unit, split)), None)
        if chosen is not None:
            state.move(unit, chosen)
            if state.wants_none():  # most units are left, and stay in train
                return
