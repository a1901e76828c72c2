"""What could not be had of a run, in words for its report."""

import traceback
from collections.abc import Callable, Iterable
from typing import TypeVar

from src.errors import RunFailureError, UserError

Found = TypeVar("Found")

FORESEEN = (UserError, RunFailureError, OSError, ImportError)  # they say themselves what is wrong


class Missing:
    """Takes note of what fails, and lets the rest go on.

    Args:
        lines: What is known to be missing.

    Attributes:
        faulty: Whether anything failed that nobody foresaw; its traceback has been printed.
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.lines = list(lines)
        self.faulty = False

    def note(self, line: str) -> None:
        """Add what is missing, once."""
        if line not in self.lines:
            self.lines.append(line)

    def attempt(self, what: str, make: Callable[[], Found]) -> Found | None:
        """Return what is made; None, and a line, if that fails."""
        try:
            return make()
        except FORESEEN as error:
            self.note(f"{what}: {error}")
        except Exception as error:
            traceback.print_exception(error)
            self.faulty = True
            self.note(
                f"{what}: {type(error).__name__}: {error}. This is a fault in Waggle, in a class "
                "named in the config, or in a file of the run that was changed by hand"
            )
        return None

    def take(self, other: "Missing", prefix: str) -> None:
        """Take over what another has noted, with words before it."""
        self.lines += [f"{prefix}{line}" for line in other.lines]
        self.faulty |= other.faulty
