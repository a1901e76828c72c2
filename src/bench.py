"""How fast a training is on this machine, and how far from what it could be: `python -m src.bench`.

Every measurement is repeated in turn with the others, so that a neighbour's load falls on all of
them alike; the table shows medians, and the spread of the middle half.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from src.bench_report import LOADER, STEP, Rates, probe_table, ratios, starts_table, table
from src.cases import CASES, Case, case_of
from src.cores import usable_cores
from src.data.sources import SyntheticInsects
from src.errors import UserError
from src.failures import end_with_message
from src.measure import Bench, device_here
from src.memory import keep_freed_memory
from src.probe import probe
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
        result: dict[str, Any] = {"machine": machine(), "options": vars(options), "nets": {}}
        for case in _cases(options):
            found, lines = (_probe if options.probe else _measure)(case, options)
            result["nets"][case.name] = found
            print("\n".join(lines), flush=True)
            write_json(options.json, json.loads(json.dumps(result, default=str)))
        print(f"written: {options.json}")
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
        help="measure instead which precision is fastest, and whether compiled; of the others it "
        "heeds --config, --repeats, --batch_size and --json",
    )
    add("--root", type=Path, metavar="DIR", help="pictures, as --data.root; without: built-in ones")
    add("--repeats", type=int, default=10, help="turns of every measurement (default: 10)")
    add("--steps", type=int, help="of one measurement (default: 15, on a GPU 300)")
    add("--batch_size", type=int, help="instead of the network's own")
    add("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    add("--workers", type=int, help="of the augmented loop and fit; without: as many as auto takes")
    add("--start_workers", type=int, default=2, help="of the whole fits (default: 2)")
    add("--json", type=Path, metavar="FILE", help="the numbers (default: runs/bench/TIME.json)")
    return made


def _check(options: Any) -> None:
    """Raise UserError for what would only be found out at the end; fill in what was left out."""
    for name, least in (
        ("repeats", 1),
        ("steps", 1),
        ("workers", 0),
        ("start_workers", 0),
        ("batch_size", 2),
    ):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}; allowed is {least} or more.")
    if options.json is None:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
        options.json = Path("runs", "bench", f"{moment}.json")
        options.json.parent.mkdir(parents=True, exist_ok=True)
    if not options.json.parent.is_dir() or options.json.is_dir():
        raise UserError(f"--json {options.json}: give a file in a folder that is there.")
    if options.steps is None:
        options.steps = 15 if device_here().type == "cpu" else 300


def _cases(options: Any) -> list[Case]:
    found = [case_of(options.config)] if options.config else CASES
    size = options.batch_size
    return [case if size is None else replace(case, batch_size=size) for case in found]


def _probe(case: Case, options: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what the ways to compute a step take, and the lines of a table."""
    device = device_here()
    draw = torch.Generator().manual_seed(0)
    shape = (case.batch_size, case.image_size, case.image_size, 3)
    batch = {
        "image": torch.randint(256, shape, dtype=torch.uint8, generator=draw).to(device),
        "target": torch.randint(2, shape[:1], generator=draw).to(device),
    }
    ways = probe(case.make_net(2), batch, device, options.repeats)
    return {**_about(case), "ways": list(map(asdict, ways))}, probe_table(case, ways)


def _measure(case: Case, options: Any) -> tuple[dict[str, Any], list[str]]:
    root = options.root or SyntheticInsects(200, 20, picture_size=200).fetch()
    found = {**_about(case), **measure(case, root, options)}
    workers = options.start_workers
    turns = range(min(options.repeats, 3))
    starts = [start_twice(case, root, workers, options.precision) for _ in turns]
    return {**found, "starts": starts}, [*table(case, found), *starts_table(starts, workers)]


def _about(case: Case) -> dict[str, Any]:
    return {"image_size": case.image_size, "batch_size": case.batch_size}


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Return the order of a turn: each begins one name later than the one before."""
    first = turn % max(len(names), 1)
    return [*names[first:], *names[:first]]


def measure(case: Case, root: Path, options: Any) -> dict[str, Any]:
    """Return images a second of every measurement, a number for each turn, and what follows."""
    with ExitStack() as open_benches:

        def bench(
            augmented: bool, workers: int | Literal["auto"], threads: int | None = None
        ) -> Bench:
            given = workers, options.precision, options.steps, threads
            made = Bench(case, root, augmented, *given)
            open_benches.callback(made.close)
            return made

        plain = bench(False, 0)
        full = bench(True, "auto" if options.workers is None else options.workers)
        todo: Measurements = {
            LOADER: bench(True, 0, threads=1).loader,
            **{f"loader, {n} workers": bench(True, n).loader for n in (0, 1, 2)},
            "loader, no augmentation": bench(False, 0).loader,
            STEP: plain.ceiling,
            "bare loop": plain.bare_loop,
            "trainer.fit": plain.fit,
            "bare loop, augmented": full.bare_loop,
            "trainer.fit, augmented": full.fit,
        }
        rates: Rates = {name: [] for name in todo}
        for turn in range(options.repeats):
            for name in rotated(list(todo), turn):
                rates[name].append(todo[name]())
    on_cpu = plain.device.type == "cpu"
    shares = {WAITING: full.waiting, **({} if on_cpu else {BUSY: full.busy})}
    found = {"workers": full.workers, "rates": rates, "shares": shares}
    return {**found, "ratios": ratios(rates, on_cpu)}


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
