"""What a whole `fit` takes before its first step, and how much memory, seen from outside."""

import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, Trainer

from src.cases import AUGMENT, Case
from src.pace import wait_for
from src.run import RunFolder
from src.sitting import Sitting

_STEPS = 10


class Gauge(Callback):
    """Writes down when the first step was over, and what private memory each worker has.

    Args:
        path: A new file; JSON with `first_step` (seconds since 1970) and `workers_mib`.
    """

    def __init__(self, path: str) -> None:
        self.path, self._first = Path(path), 0.0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Note the time of the first step, and the memory at the last."""
        wait_for(trainer.strategy.root_device)
        self._first = self._first or time.time()
        if trainer.global_step == trainer.max_steps:
            found = {"first_step": self._first, "workers_mib": private_memory(children())}
            self.path.write_text(json.dumps(found), "utf-8")


def start_twice(case: Case, root: Path, workers: int, precision: str) -> dict[str, Any]:
    """Run a short fit with an empty cache and then with the same, full one.

    Returns:
        cold and warm: seconds from the start of the process to the end of its first step.
        peak_gib: Peak memory of the warm one's main process; None if unknown.
        gpu_gib: The same on the GPU; None without one.
        workers_mib: Private memory of each of its workers.
    """
    with tempfile.TemporaryDirectory() as name:
        cold, warm = (
            _start(case, root, workers, precision, Path(name), turn) for turn in ("cold", "warm")
        )
    seconds = {"cold": cold.pop("seconds"), "warm": warm.pop("seconds")}
    return seconds | warm


def _start(
    case: Case, root: Path, workers: int, precision: str, place: Path, turn: str
) -> dict[str, Any]:
    config, gauge, folder = place / f"{turn}.yaml", place / f"{turn}.json", RunFolder(place / turn)
    config.write_text(yaml.safe_dump(_config(case, root, workers, precision, gauge)), "utf-8")
    words = ["--config", str(config), "--run_dir", str(folder.path), "--progress", "off"]
    began = time.time()
    cache = {"XDG_CACHE_HOME": str(place / "cache")}
    with Sitting(words, folder, place / f"{turn}.log", cache) as sitting:
        sitting.ends_within(None)
        sitting.require_well()
    found = json.loads(gauge.read_text("utf-8"))
    summary = json.loads(folder.summary.read_text("utf-8"))
    return {
        "seconds": found["first_step"] - began,
        "peak_gib": summary["peak_memory"]["process_gib"],
        "gpu_gib": summary["peak_memory"]["gpu_gib"],
        "workers_mib": found["workers_mib"],
    }


def _config(case: Case, root: Path, workers: int, precision: str, gauge: Path) -> dict[str, Any]:
    made: Any = case.net
    call, arguments = (made.func, made.keywords) if isinstance(made, partial) else (made, {})
    net = {"class_path": f"{call.__module__}.{call.__qualname__}", "init_args": arguments}
    return {
        "data": {
            "root": str(root.absolute()),
            "image_size": case.image_size,
            "batch_size": case.batch_size,
            "num_workers": workers,
            "augment": AUGMENT,
        },
        "model": {"net": net, "optimizer": {"class_path": "torch.optim.SGD"}},
        "trainer": {
            "max_steps": _STEPS,
            "max_epochs": -1,
            "limit_val_batches": 0,
            "logger": False,
            "precision": precision,
            "callbacks": [{"class_path": "src.startup.Gauge", "init_args": {"path": str(gauge)}}],
        },
    }


def children() -> list[int]:
    """Return the processes that this one has started; none where the system does not say."""
    own, found = str(os.getpid()), []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = status.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if after_name[1] == own:
            found.append(int(status.parent.name))
    return sorted(found)


def private_memory(processes: list[int]) -> list[float]:
    """Return the memory that each process shares with no other, in MiB; Linux alone."""
    if sys.platform != "linux":
        return []
    found = []
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text("ascii").splitlines()
        except OSError:  # it has ended, or the system does not say
            continue
        kib = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
        found.append(round(sum(kib) / 1024, 1))
    return found
