"""What ends a command with one message: two errors and a signal; and the nearest-name hint."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend in arguments, config, data or checkpoint; exit code 2.

    The message says what is wrong, what was found, what is allowed, and which flag or file to
    change. It is shown as it is, without a traceback.
    """


class RunFailureError(Exception):
    """The device, the disk, the memory or the numbers gave out; exit code 1."""


class StoppedRun(SystemExit):
    """The run ended at a safe point because a signal asked for it.

    Attributes:
        code: Exit code: 130 after Ctrl-C, else 143.
        message: What was saved and how to go on; empty on all processes but the first.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the closest of the allowed names, or an empty string."""
    match = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else ""
