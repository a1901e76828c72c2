"""Things that pairs tie together."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


class Ties:
    """Which things are tied to which, directly or by others."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def tie(self, a: int, b: int) -> None:
        """Tie two things, and all that is tied to them."""
        low, high = sorted((self._top(a), self._top(b)))
        self._above[high] = low

    def tied(self, a: int, b: int) -> bool:
        """Return whether two things are tied, or are the same."""
        return a == b or self._top(a) == self._top(b)

    def numbers(self, count: int) -> npt.NDArray[np.int64]:
        """Return a number for each thing from 0 to count - 1: equal ones for those tied."""
        found = np.arange(count)
        for a in self._above:
            found[a] = self._top(a)
        return found

    def groups(self) -> list[list[int]]:
        """Return the sets of things that are tied, each sorted, by their first member."""
        groups: dict[int, list[int]] = {}
        for a in sorted(self._above):
            groups.setdefault(self._top(a), []).append(a)
        return sorted(group for group in groups.values() if len(group) > 1)

    def _top(self, a: int) -> int:
        above = self._above
        while above.setdefault(a, a) != a:
            above[a] = above[above[a]]
            a = above[a]
        return a


def groups_of(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the sets of things that pairs tie together, each sorted, by their first member."""
    ties = Ties()
    for a, b in pairs:
        ties.tie(a, b)
    return ties.groups()
