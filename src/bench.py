"""How fast a training is on this machine, and how far from what it could be: `python -m src.bench`.

Every measurement is repeated in turn with the others, so that a neighbour's load falls on all of
them alike; the table shows medians, and the spread of the middle half.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from src.data.sources import SyntheticInsects
from src.errors import UserError
from src.failures import end_with_message
from src.measure import CASES, Bench, Case
from src.memory import keep_freed_memory
from src.run import versions, write_json

Measurements = dict[str, Callable[[], float]]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 for a mistake in the options."""
    with end_with_message() as outcome:
        options = _parser().parse_args(args)
        _check(options)
        keep_freed_memory()
        torch.set_num_threads(os.cpu_count() or 1)
        root = options.root or SyntheticInsects(200, 20, picture_size=200).fetch()
        result: dict[str, Any] = {"machine": machine(), "options": vars(options), "nets": {}}
        for case in CASES:
            result["nets"][case.name] = found = measure(case, root, options)
            print("\n".join(table(case, found)), flush=True)
        if options.json:
            write_json(options.json, json.loads(json.dumps(result, default=str)))
    return outcome.code


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m src.bench",
        allow_abbrev=False,
        description="Measure images a second: of the loader alone, of a step on a batch that stays "
        "in place (the ceiling), of a bare loop and of trainer.fit.",
    )
    add = made.add_argument
    add("--root", type=Path, metavar="DIR", help="pictures, as --data.root; without: built-in ones")
    add("--repeats", type=int, default=5, help="turns of every measurement (default: 5)")
    add("--steps", type=int, default=30, help="of one measurement (default: 30)")
    add("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    add("--workers", type=int, default=0, help="of the bare loop and of fit (default: 0)")
    add("--json", type=Path, metavar="FILE", help="write the numbers here too")
    return made


def _check(options: Any) -> None:
    for name, least in (("repeats", 1), ("steps", 2), ("workers", 0)):
        value = getattr(options, name)
        if value < least:
            raise UserError(f"--{name} is {value}; allowed is {least} or more.")


def measure(case: Case, root: Path, options: Any) -> dict[str, list[float]]:
    """Return images a second of every measurement, a number for each turn."""
    with ExitStack() as open_benches:

        def bench(augmented: bool, workers: int) -> Bench:
            made = Bench(case, root, augmented, workers, options.precision, options.steps)
            open_benches.callback(made.close)
            return made

        plain, full = bench(False, options.workers), bench(True, options.workers)
        todo: Measurements = {
            **{f"loader, {n} workers": bench(True, n).loader for n in (0, 1, 2)},
            "loader, no augmentation": bench(False, 0).loader,
            "step on a resident batch": plain.ceiling,
            "bare loop": plain.bare_loop,
            "trainer.fit": plain.fit,
            "bare loop, augmented": full.bare_loop,
            "trainer.fit, augmented": full.fit,
        }
        found: dict[str, list[float]] = {name: [] for name in todo}
        for _ in range(options.repeats):
            for name, once in todo.items():
                found[name].append(once())
    return found


def table(case: Case, found: dict[str, list[float]]) -> list[str]:
    """Return the lines of a network's table."""
    about = f"{case.name}, {case.image_size} pixels, batches of {case.batch_size}"
    lines = [f"{about}: images a second"]
    for name, values in found.items():
        low, high = spread(values)
        lines.append(f"  {name:26} {statistics.median(values):8.0f}  ({low:.0f} to {high:.0f})")
    for one, other in (
        ("trainer.fit", "bare loop"),
        ("trainer.fit", "step on a resident batch"),
        ("trainer.fit, augmented", "bare loop, augmented"),
    ):
        lines.append(f"  {one} / {other}: {ratio(found[one], found[other]):.3f}")
    return lines


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the ratios within each turn."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the middle half."""
    if len(values) < 2:
        return values[0], values[0]
    quarters = statistics.quantiles(values, n=4, method="inclusive")
    return quarters[0], quarters[2]


def machine() -> dict[str, Any]:
    """Return what the numbers belong to."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
