"""One program under the clock: wall time of the whole process, and memory of all its processes."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.05
MEMORY_SECONDS = 1.0
END_SECONDS = 30.0  # a training that is asked to end writes a checkpoint first


@dataclass(frozen=True)
class Watched:
    """How a process went.

    Attributes:
        code: Its exit code; below 0, the signal that ended it.
        seconds: From its start to its end, or to the moment that `until` waited for.
        reached: Whether `until` came true.
        process_gib: The most memory that one of its processes held; None where nobody tells.
        tree_gib: The most that all of them held together, memory that they share counted once,
            looked at once a second; None where there is no /proc.
    """

    code: int
    seconds: float
    reached: bool
    process_gib: float | None
    tree_gib: float | None


def watch(
    command: list[str],
    log: Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    until: Callable[[], bool] | None = None,
    until_seconds: float = 0.2,
) -> Watched:
    """Run a command to its end, or until something is true, and then end it.

    It gets a session of its own, and none of its processes outlives this call.

    Args:
        command: The program and its words.
        log: Where its output goes, behind what is there.
        folder: What it runs in.
        env: Its variables; None for ours.
        until: Looked at now and then.
        until_seconds: Time between two looks.
    """
    with log.open("ab") as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True
        )
        try:
            return _follow(process, start, until, until_seconds)
        finally:
            _end(process)


def _follow(
    process: "subprocess.Popen[bytes]",
    start: float,
    until: Callable[[], bool] | None,
    until_seconds: float,
) -> Watched:
    tree: list[float] = []
    next_memory = next_until = start
    while (usage := _ended(process)) is None:
        now = time.perf_counter()
        if now >= next_memory:
            tree += _tree_gib(process.pid)
            next_memory = now + MEMORY_SECONDS
        if until is not None and now >= next_until:
            if until():
                seconds = time.perf_counter() - start
                return Watched(0, seconds, True, None, max(tree, default=None))
            next_until = now + until_seconds
        time.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - start
    reached = until is not None and until()
    code = process.returncode
    return Watched(code, seconds, reached, usage or None, max(tree, default=None))


def _ended(process: "subprocess.Popen[bytes]") -> float | None:
    """Return None while it runs, then its peak memory in GiB, or 0 where nobody tells."""
    if not hasattr(os, "wait4"):
        return None if process.poll() is None else 0.0
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid == 0:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if os.uname().sysname == "Darwin" else 1024  # bytes there, KiB elsewhere
    return usage.ru_maxrss * unit / 2**30


def _tree_gib(session: int) -> Iterator[float]:
    """Yield the memory of a session's processes, if this system tells."""
    total, found = 0, False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int(stat.read_text("utf-8").rpartition(")")[2].split()[3]) == session:
                total += _pss_kib((stat.parent / "smaps_rollup").read_text("utf-8"))
                found = True
    if found:
        yield total / 2**20


def _pss_kib(rollup: str) -> int:
    """Return the proportional set size: a page that n processes share is 1/n of each."""
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it started: politely, then not."""
    try:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
    finally:  # a second Ctrl-C comes here at once
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            process.kill()
            process.wait()
