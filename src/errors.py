"""What ends a command with one message: two errors and a signal; and what messages are made of."""

import difflib
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

STOP_SIGNALS = ("SIGINT", "SIGUSR1", "SIGTERM")  # they ask a command to end; the first one wins


class UserError(Exception):
    """Something the user can mend in arguments, config, data or checkpoint; exit code 2.

    The message says what is wrong, what was found, what is allowed, and which flag or file to
    change. It is shown as it is, without a traceback.
    """


class RunFailureError(Exception):
    """The device, the disk, the memory or the numbers gave out; exit code 1."""


class StoppedRun(SystemExit):
    """A signal asked the command to end.

    Args:
        name: The signal: SIGINT (Ctrl-C), SIGTERM or SIGUSR1.
        more: What was saved and how to go on.
        together: Whether all processes of the run leave at this point.

    Attributes:
        code: Exit code: 130 after Ctrl-C, else 143.
    """

    def __init__(self, name: str, more: str = "", together: bool = False) -> None:
        super().__init__(130 if name == "SIGINT" else 143)
        self.name, self.more, self.together = name, more, together

    @property
    def message(self) -> str:
        """What happened, for the user."""
        return f"stopped by {'Ctrl-C' if self.name == 'SIGINT' else self.name}{self.more}"


def stop_signals() -> list[int]:
    """Return the numbers of STOP_SIGNALS that this system has."""
    return [int(getattr(signal, name)) for name in STOP_SIGNALS if hasattr(signal, name)]


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the closest of the allowed names, or an empty string."""
    match = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else ""


def command_text(words: Sequence[str]) -> str:
    """Return a command as it is typed into a shell of this system."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def typed(path: Path) -> str:
    """Return a path as it is typed in a command: in double quotes where it has spaces."""
    return subprocess.list2cmdline([str(path)])


def quoted_list(names: Iterable[str]) -> str:
    """Return names parted by commas; one that holds a comma stands in double quotes."""
    return ", ".join(f'"{name}"' if "," in name else name for name in names)


def visible(text: str) -> str:
    """Return text as one line without what moves a cursor or commands a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
