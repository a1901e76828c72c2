"""How many cores this process may use."""

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return how many cores this process may run on: a container may allow fewer than there are."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, _quota(CGROUP)))


def _quota(file: Path) -> int:
    """Return the cores that a control group allows (Linux, version 2), rounded up."""
    try:
        most, period = file.read_text("ascii").split()
        return math.ceil(int(most) / int(period))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return sys.maxsize
