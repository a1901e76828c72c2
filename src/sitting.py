"""One start of `python -m src.train fit` in a process group of its own, which can be killed."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from src.checkpoint import read_checkpoint
from src.child import REPORT, command_line, environment, require_well
from src.errors import RunFailureError
from src.run import RunFolder

_LOOK_SECONDS = 0.005  # between two looks; a run may train for less than a second
_GONE_SECONDS = 5.0  # how long a killed group is waited for
_NO_WAY = re.compile(r"(\S+) does not have a deterministic implementation")


class Sitting:
    """A process that trains until it is over or killed; leaving the block kills it.

    Args:
        words: Those after `fit`, `--run_dir` among them.
        folder: The run folder that they name.
        log: Where the output goes.
        env: Variables of the environment to set.

    """

    def __init__(
        self, words: Sequence[str], folder: RunFolder, log: Path, env: Mapping[str, str]
    ) -> None:
        self.folder, self.log = folder, log
        self._before = _stamp(folder.metrics)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command_line(("fit", *words)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment({REPORT: "false", **(env or {})}),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def trains(self) -> bool:
        """Wait until the training begins; return False if the process ended before.

        A fit writes metrics.csv anew at that moment, in a new run and when it goes on.
        """
        while _stamp(self.folder.metrics) == self._before:
            if self._process.poll() is not None:
                return _stamp(self.folder.metrics) != self._before
            time.sleep(_LOOK_SECONDS)
        return True

    def ends_within(self, seconds: float | None) -> bool:
        """Wait, for ever if None; return whether the process has ended by itself."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill the process and all that it started, workers and ranks; wait until they are gone."""
        if self._process.poll() is not None:
            return
        group = self._process.pid
        if not hasattr(os, "killpg"):  # Windows
            self._process.kill()
            self._process.wait()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended just now
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        limit = time.monotonic() + _GONE_SECONDS
        while _has_members(group) and time.monotonic() < limit:
            time.sleep(_LOOK_SECONDS)

    def require_well(self) -> None:
        """Raise an error that shows the end of the log, unless the process ended with code 0.

        Raises:
            UserError: for exit code 2.
            RunFailureError: for any other.
        """
        code = self._process.returncode
        found = _NO_WAY.search(self.log.read_text("utf-8", errors="replace")) if code else None
        if found:
            raise RunFailureError(
                f"{found[1]} has no deterministic implementation on this device, and it prevents "
                "equal runs. Take another layer or loss in its place, or train on the CPU: "
                "--trainer.accelerator cpu."
            )
        require_well(code, self.log, "fit")


def saved_step(folder: RunFolder) -> int:
    """Return the optimizer step of the checkpoint that a run would go on from, 0 without one."""
    path = folder.last if folder.last.is_file() else folder.previous
    return int(read_checkpoint(path)["global_step"]) if path.is_file() else 0


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written anew."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of zombies
        return False
    return True
