"""What sections of a report are made of: plain data for the template, and numbers as text."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from src.missing import Missing

Part = dict[str, Any]
Section = dict[str, Any]


class Ranged(NamedTuple):
    """A cell of a table: a value, and its 95 % interval below it."""

    value: str
    ends: str


class Maker:
    """Makes sections; what fails is noted and leaves the others as they are.

    Args:
        missing: Takes note.
    """

    def __init__(self, missing: Missing) -> None:
        self.missing = missing
        self.made: list[Section] = []

    def add(self, what: str, make: Callable[[], Section | None]) -> None:
        """Make a section, if it can be made; None leaves it out."""
        found = self.missing.attempt(what, make)
        if found is not None:
            self.made.append(found)


def section(title: str, about: Sequence[str], parts: Sequence[Part], name: str = "") -> Section:
    """Return a section; its id is the title's first word unless it has a name."""
    return {
        "id": name or title.lower().split()[0],
        "title": title,
        "about": [text for text in about if text],
        "parts": list(parts),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], words: Sequence[int] = ()) -> Part:
    """Return a table; its columns are numbers but for the first and those at `words`."""
    return {"kind": "table", "head": list(head), "rows": list(rows), "words": list(words)}


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as text; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def with_ends(share: float | None, ends: Sequence[float] | None) -> str | Ranged:
    """Return a share with its 95 % interval, if it has one."""
    if share is None or ends is None:
        return percent(share)
    return Ranged(percent(share), f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}")


def plain_with_ends(value: float, ends: Sequence[float] | None) -> str | Ranged:
    """Return a number that is no share with its 95 % interval, if it has one."""
    if ends is None:
        return f"{value:.4f}"
    return Ranged(f"{value:.4f}", f"{ends[0]:.4f} to {ends[1]:.4f}")


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def count(number: int, what: str) -> str:
    """Return a number of things, such as `1 epoch` and `2 epochs`."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"
