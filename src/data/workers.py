"""Who decodes and augments: how many, how their processes start, which signals they heed."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from src.cores import usable_cores
from src.errors import stop_signals

_CAN_WAIT = hasattr(signal, "sigwaitinfo")  # Linux
_FEW = 4  # threads hold the interpreter's lock by turns: two make 1.4 times the pictures of one


def start_method() -> str:
    """Return how workers start: forking is quick and shares memory, and is safe on Linux alone."""
    return "fork" if sys.platform == "linux" else "spawn"


def own_cores(processes: int) -> int:
    """Return the cores for each of several training processes on this machine, 1 or more."""
    return max(1, usable_cores() // processes)


def few(cores: int) -> int:
    """Return how many of these cores make batches where nobody has measured: threads or workers."""
    return min(_FEW, cores)


@contextlib.contextmanager
def deaf_from_birth() -> Iterator[None]:
    """Hold signals back while workers are started, which inherit that.

    A signal to the whole group would end a worker that has not come to `start_worker` yet. This
    process gets what was held back at the end of the block.
    """
    if not _CAN_WAIT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(worker_id: int) -> None:
    """Prepare a worker; called in it, before its first batch.

    Args:
        worker_id: From 0; unused, since no worker has a state of its own.
    """
    import cv2

    cv2.setNumThreads(0)  # the workers are the parallelism
    if _CAN_WAIT:
        _heed_the_parent_alone()
    else:  # macOS, Windows: the parent ends a worker by SIGTERM, which stays as it is
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _heed_the_parent_alone() -> None:
    """Pass over signals that a whole process group gets: Ctrl-C, SLURM, torchrun.

    The main process wants to finish its batch and to save, and would end with an error if a worker
    were gone. The parent itself may end a worker by SIGTERM.
    """
    passed_over = stop_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_over)  # later threads inherit it

    def wait() -> None:
        while True:
            came = signal.sigwaitinfo(passed_over)
            if came.si_signo == signal.SIGTERM and came.si_pid == os.getppid():
                os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
