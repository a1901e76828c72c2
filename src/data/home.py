"""The folder for what is made once a machine, and the locks that let one process make it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def cache_home() -> Path:
    """Return `$XDG_CACHE_HOME/waggle`, or `~/.cache/waggle`.

    Raises:
        RuntimeError: where there is no home folder, as in some containers.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG rule: a relative path is as good as none.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "waggle"


@contextmanager
def alone(lock: Path, doing: str, wait: bool = True) -> Iterator[None]:
    """Hold a lock; the system drops it when the process dies, however it dies.

    Args:
        lock: Its file; the folder must exist.
        doing: What another process does meanwhile, for whoever waits.
        wait: Whether to wait for it.

    Raises:
        TimeoutError: if another process holds it and `wait` is false.
        OSError: where the file system has no locks.
    """
    # Another thread may let it go. Never by a mere file, which would outlive its process.
    held = FileLock(lock, thread_local=False, fallback_to_soft=False)
    try:
        held.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise
        print(f"waiting for another process that is {doing}", file=sys.stderr)
        held.acquire()
    try:
        yield
    finally:
        held.release()
