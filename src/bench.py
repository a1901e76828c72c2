"""How fast a training is on this machine, and how far from what it could be: `python -m src.bench`.

Every measurement is repeated in turn with the others, so that a neighbour's load falls on all of
them alike; the table shows medians, and the spread of the middle half.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from src.data.sources import SyntheticInsects
from src.data.workers import usable_cores
from src.errors import RunFailureError, UserError
from src.failures import end_with_message
from src.measure import CASES, Bench, Case, case_of
from src.memory import keep_freed_memory
from src.probe import Way, probe
from src.run import versions, write_json
from src.startup import start_twice

WAITING = "of trainer.fit, augmented, waiting for data"
BUSY = "of trainer.fit, augmented, with a busy GPU"
Measurements = dict[str, Callable[[], float]]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 for a mistake in the options."""
    with end_with_message() as outcome:
        options = parser().parse_args(args)
        _check(options)
        keep_freed_memory()
        torch.set_num_threads(usable_cores())
        result: dict[str, Any] = {"machine": machine(), "options": vars(options), "nets": {}}
        for case in [case_of(options.config)] if options.config else CASES:
            if options.batch_size is not None:
                case = replace(case, batch_size=options.batch_size)
            found, lines = (_probe if options.probe else _measure)(case, options)
            result["nets"][case.name] = found
            print("\n".join(lines), flush=True)
        if options.json:
            write_json(options.json, json.loads(json.dumps(result, default=str)))
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m src.bench",
        allow_abbrev=False,
        description="Measure images a second: of the loader alone, of a step on a batch that stays "
        "in place (the ceiling), of a bare loop and of trainer.fit.",
    )
    add = made.add_argument
    add("--config", type=Path, metavar="FILE", help="its network instead of the two built-in ones")
    add(
        "--probe",
        action="store_true",
        help="measure instead which precision is fastest, and whether compiled",
    )
    add("--root", type=Path, metavar="DIR", help="pictures, as --data.root; without: built-in ones")
    add("--repeats", type=int, default=5, help="turns of every measurement (default: 5)")
    add("--steps", type=int, default=30, help="of one measurement (default: 30)")
    add("--batch_size", type=int, help="instead of the network's own")
    add("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    add("--workers", type=int, help="of the augmented loop and fit; without: as many as auto takes")
    add("--start_workers", type=int, default=2, help="of the whole fits (default: 2)")
    add("--json", type=Path, metavar="FILE", help="write the numbers here too")
    return made


def _check(options: Any) -> None:
    for name, least in (
        ("repeats", 1),
        ("steps", 2),
        ("workers", 0),
        ("start_workers", 0),
        ("batch_size", 2),
    ):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}; allowed is {least} or more.")


def _probe(case: Case, options: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what the ways to compute a step take, and the lines of a table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw = torch.Generator().manual_seed(0)
    shape = (case.batch_size, case.image_size, case.image_size, 3)
    batch = {
        "image": torch.randint(256, shape, dtype=torch.uint8, generator=draw).to(device),
        "target": torch.randint(2, shape[:1], generator=draw).to(device),
    }
    ways = probe(case.make_net(2), batch, device, options.repeats)
    return [vars(way) for way in ways], probe_table(case, ways)


def _measure(case: Case, options: Any) -> tuple[dict[str, Any], list[str]]:
    root = options.root or SyntheticInsects(200, 20, picture_size=200).fetch()
    found = measure(case, root, options)
    turns = range(min(options.repeats, 3))
    starts = [start_twice(case, root, options.start_workers, options.precision) for _ in turns]
    return {"rates": found, "starts": starts}, [*table(case, found), *starts_table(starts)]


def probe_table(case: Case, ways: Sequence[Way]) -> list[str]:
    """Return the lines of a network's probe, the last of which names the fastest way."""
    about = f"{case.name}, {case.image_size} pixels, batches of {case.batch_size}"
    done = [way for way in ways if way.seconds]
    if not done:
        raise RunFailureError(f"{case.name} can't be trained here: {ways[0].reason}")
    lines = [f"{about}: milliseconds of forward and backward, against {done[0].name}"]
    for way in ways:
        if way.reason:
            lines.append(f"  {way.name:22} not here: {way.reason}")
            continue
        low, high = (1000 * end for end in spread(way.seconds))
        lines.append(
            f"  {way.name:22} {1000 * statistics.median(way.seconds):7.1f}  "
            f"({low:.1f} to {high:.1f})  {ratio(done[0].seconds, way.seconds):.2f} times as fast, "
            f"a probability differs by at most {way.difference:.1g}"
        )
    best = min(done, key=lambda w: statistics.median(w.seconds))
    return [*lines, f"  fastest: {best.name}{f' ({best.options})' if best.options else ''}"]


def measure(case: Case, root: Path, options: Any) -> dict[str, list[float]]:
    """Return images a second of every measurement, a number for each turn; then shares of time."""
    with ExitStack() as open_benches:

        def bench(augmented: bool, workers: int | Literal["auto"]) -> Bench:
            made = Bench(case, root, augmented, workers, options.precision, options.steps)
            open_benches.callback(made.close)
            return made

        plain = bench(False, 0)
        full = bench(True, "auto" if options.workers is None else options.workers)
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
        found |= {WAITING: full.waiting, **({BUSY: full.busy} if full.busy else {})}
    return found


def table(case: Case, found: dict[str, list[float]]) -> list[str]:
    """Return the lines of a network's table."""
    about = f"{case.name}, {case.image_size} pixels, batches of {case.batch_size}"
    lines = [f"{about}: images a second"]
    for name, values in found.items():
        if name in (WAITING, BUSY):
            continue
        low, high = spread(values)
        lines.append(f"  {name:26} {statistics.median(values):8.0f}  ({low:.0f} to {high:.0f})")
    for name in (WAITING, BUSY):
        if name in found:
            lines.append(f"  {name}: {statistics.median(found[name]):.1%}")
    allowed = allowed_by_cores(found["step on a resident batch"], found["loader, 0 workers"])
    against = found | {f"what {usable_cores()} cores allow": allowed}
    for one, other in (
        ("trainer.fit", "bare loop"),
        ("trainer.fit", "step on a resident batch"),
        ("trainer.fit, augmented", "bare loop, augmented"),
        ("trainer.fit, augmented", [*against][-1]),
    ):
        lines.append(f"  {one} / {other}: {ratio(found[one], against[other]):.3f}")
    return lines


def allowed_by_cores(steps: Sequence[float], loader: Sequence[float]) -> list[float]:
    """Return the images a second that no training can pass which computes its data on its cores.

    Args:
        steps: Images a second of the step alone, on all cores; a number for each turn.
        loader: Of the loader alone, on one core.
    """
    cores = usable_cores()
    return [1 / (1 / step + 1 / (cores * load)) for step, load in zip(steps, loader, strict=True)]


def starts_table(starts: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines on what a whole `fit` takes."""
    lines = ["  from the start of fit to the end of its first step, seconds"]
    for turn in ("cold", "warm"):
        seconds = [start[turn] for start in starts]
        low, high = spread(seconds)
        lines.append(
            f"    {turn + ' cache':24} {statistics.median(seconds):8.2f}  ({low:.2f} to {high:.2f})"
        )
    latest = starts[-1]
    if latest["peak_gib"] is not None:
        lines.append(f"  peak memory of its main process: {latest['peak_gib']:.2f} GiB")
    workers = ", ".join(f"{mib:.0f}" for mib in latest["workers_mib"])
    return [*lines, f"  private memory of its workers: {workers} MiB"] if workers else lines


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
        "cores": usable_cores(),
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
