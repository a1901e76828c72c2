"""Standard error of a program that runs for months: whoever writes to it waits for nobody."""

import atexit
import io
import os
import queue
import sys
import threading
from contextlib import suppress
from typing import TextIO

_TEXTS = 1000  # that may wait
_LAST_SECONDS = 1.0  # for what still waits at the end


def tell_beside() -> None:
    """Let a thread write standard error; a pipe that nobody reads would stop the others.

    What is told while too much waits is lost, and so is what libraries in C write by themselves.
    """
    if sys.stderr is None:
        return
    told = _Told(os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace"))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = told
    atexit.register(told.end)


class _Told(io.TextIOBase):
    """Takes texts, which a thread writes to a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(_TEXTS)
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def write(self, text: str) -> int:
        """Take a text; lose it while too many wait."""
        with suppress(queue.Full):
            self._waiting.put_nowait(text)
        return len(text)

    def end(self) -> None:
        """Wait for the thread, for a while."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=_LAST_SECONDS)
            self._writer.join(_LAST_SECONDS)

    def _write(self) -> None:
        while (text := self._waiting.get()) is not None:
            with suppress(OSError):
                self._stream.write(text)
                self._stream.flush()
