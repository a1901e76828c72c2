"""A command of the program in a process of its own, to which the signals that we get go on."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import src
from src.data.home import alone
from src.errors import RunFailureError, UserError, stop_signals

REPORT = "WAGGLE_REPORT"  # in the environment: false lets fit write no report
_LINES = 15  # of the log of a command that failed
_PROMPT = "$ python -m src.train "  # before the words of each command in a log
_ON_WINDOWS = sys.platform == "win32"


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; of one that a signal killed, 128 and the signal's number.
        signal: The first signal that was passed on to it, such as SIGTERM; None if there was none.
    """

    code: int
    signal: str | None


def command_line(words: Sequence[str]) -> list[str]:
    """Return the command that runs `python -m src.train` with these words."""
    return [sys.executable, "-m", "src.train", *words]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our variables, so that the child finds the src of this process, wherever it starts."""
    paths = [str(Path(src.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **(more or {})}


def run_child(words: Sequence[str], log: Path, keep: Sequence[int] = ()) -> Ended:
    """Run a command of the program to its end.

    It gets a process group of its own, and with it no Ctrl-C from the terminal: each signal reaches
    it once, from here. On Windows the terminal sends Ctrl-C to both.

    Args:
        words: Those after `python -m src.train`.
        log: Where its output is added.
        keep: File descriptors that it inherits.
    """
    received: list[int] = []
    early: list[int] = []  # when there was nobody yet to pass it on to
    process: subprocess.Popen[bytes] | None = None

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if process is None:
            early.append(number)
        else:
            _pass_on(process, number)

    with _listening(note), log.open("ab") as file:
        file.write(f"{_PROMPT}{subprocess.list2cmdline(words)}\n".encode())
        file.flush()
        process = subprocess.Popen(
            command_line(words),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if _ON_WINDOWS else tuple(keep),
            env=environment({REPORT: "false"}),  # of many runs nobody reads each
        )
        for number in early:
            _pass_on(process, number)
        code = process.wait()
    if code < 0:
        _kill_orphans(process.pid)
        code = 128 - code
    return Ended(code, signal.Signals(received[0]).name if received else None)


@contextmanager
def _listening(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call a function for the signals that ask a command to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, note) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(process: subprocess.Popen[bytes], number: int) -> None:
    if not _ON_WINDOWS:
        process.send_signal(number)
    elif number != signal.SIGINT:
        process.terminate()


def _kill_orphans(group: int) -> None:
    """Kill what a process that was killed has left behind: workers, ranks."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def require_well(code: int, log: Path, what: str) -> None:
    """Raise an error that shows the end of a log, unless the exit code is 0.

    Args:
        code: Of a process that is over.
        log: Of its output.
        what: The name of the command, for the message.

    Raises:
        UserError: for exit code 2.
        RunFailureError: for any other.
    """
    if code == 0:
        return
    text = log.read_text("utf-8", errors="replace")
    _, command, said = f"\n{text}".rpartition(f"\n{_PROMPT}")  # the latest one alone
    lines = said.strip().splitlines()[1 if command else 0 :]
    end = "\n".join(f"  {line}" for line in lines[-_LINES:]) or "  nothing"
    kind = UserError if code == 2 else RunFailureError
    raise kind(f"{what} ended by itself with exit code {code}; it said last:\n{end}")


@contextmanager
def sole_use(lock: Path) -> Iterator[tuple[int, ...]]:
    """Hold a lock for as long as this process or a child of it is alive.

    Args:
        lock: Its file; the folder must exist.

    Yields:
        The file descriptors that children have to inherit, so that it is held by one who goes on
        after this process was killed.

    Raises:
        UserError: if another process holds it.
    """
    busy = UserError(
        f"{lock.parent}: another process is at work there. Wait for its end, or stop it."
    )
    if sys.platform == "win32":
        try:
            with alone(lock, "repeating a run", wait=False):
                yield ()
        except TimeoutError:
            raise busy from None
        return
    import fcntl

    with lock.open("w") as file:
        held: tuple[int, ...] = (file.fileno(),)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError:  # a file system without locks
            held = ()
        yield held
