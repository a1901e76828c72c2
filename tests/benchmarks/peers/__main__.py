"""Waggle against its peers on the same pictures: `python -m tests.benchmarks.peers`.

Keras with the seed's program, fastai, and a torch DataLoader over PIL. Each program's time is that
of its whole process. They take turns, one turn for each seed, so that a neighbour's load falls on
all of them. Every finished run is kept in --out: the same command goes on where it was stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from src.bench import machine
from src.data.sources import Archive
from src.errors import UserError
from src.failures import end_with_message
from src.run import git_commit
from tests.benchmarks.page import page_with
from tests.benchmarks.peers.contest import (
    NAMES,
    PEERS,
    Records,
    enter,
    hold,
    measure_loaders,
    warm_up,
)
from tests.benchmarks.peers.environments import HERE, default_home
from tests.benchmarks.peers.programs import ROOT, Contest
from tests.benchmarks.peers.table import NAME, report, write_page


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if a program of ours failed, 2 for a mistake in the options."""
    with end_with_message() as outcome:
        options = _parser().parse_args(args)
        _check(options)
        contest = Contest(
            (options.root or _download()).resolve(),
            options.epochs,
            options.fast_config,
            options.threshold,
        )
        compare(contest, options)
    return outcome.code


def compare(contest: Contest, options: Any) -> None:
    """Measure everything, print the tables and write the page."""
    counts = warm_up(contest.root)
    settings = {name: str(value) for name, value in asdict(contest).items()}
    records = Records(options.out, {**settings, **counts, **_origin(options)})
    names = [name for name in NAMES if name not in options.skip]
    entered, reasons = enter(names, options.venvs.absolute())
    loaders = measure_loaders(contest, options.repeats, options.steps, records)
    found = hold(contest, entered, options.seeds, records, reasons)
    text = report(contest, counts, found, reasons, loaders)
    print(f"\n{text}\n")
    write_page(options.page, text)
    print(f"written: {options.page}; every run: {options.out}")


def _origin(options: Any) -> dict[str, Any]:
    """Return what decides whether kept results belong to this contest."""
    about = machine()
    pins = "".join((HERE / f"{name}.txt").read_text("utf-8") for name in PEERS)
    return {
        "repeats": options.repeats,
        "steps": options.steps,
        "processor": about["processor"],
        "cores": about["cores"],
        "pins": sha256(pins.encode()).hexdigest(),
        "git_commit": git_commit(),
    }


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    out, page = ROOT / "runs" / "bench-peers", ROOT / "docs" / "benchmarks.md"
    add("--root", type=Path, metavar="DIR", help="pictures in train and test; without: download")
    add("--out", type=Path, metavar="DIR", default=out, help="results (runs/bench-peers)")
    add("--venvs", type=Path, metavar="DIR", default=default_home(), help="peers' environments")
    add("--page", type=Path, metavar="FILE", default=page, help="written (docs/benchmarks.md)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a turn for each (0 1 2)")
    add("--epochs", type=int, default=10, help="of each half; below 10 a rehearsal (10)")
    add("--skip", nargs="*", default=[], choices=NAMES, help="left out")
    add("--fast_config", type=Path, metavar="FILE", default=Contest.fast_config)
    add("--threshold", type=float, default=Contest.threshold, help="accuracy to reach (0.79)")
    add("--repeats", type=int, default=5, help="turns of the loaders (5)")
    add("--steps", type=int, default=60, help="batches of a loader's turn (60)")
    return made


def _check(options: Any) -> None:
    """Raise UserError for what would only be found out after hours."""
    for name, least in (("epochs", 1), ("repeats", 1), ("steps", 2)):
        if (value := getattr(options, name)) < least:
            raise UserError(f"--{name} is {value}; allowed is {least} or more.")
    if min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        raise UserError(f"--seeds is {options.seeds}; allowed are different numbers from 0.")
    if not 0 < options.threshold <= 1:
        raise UserError(f"--threshold is {options.threshold}; allowed is above 0, to 1.")
    for name, path in (("fast_config", ROOT / options.fast_config), ("page", options.page)):
        if not path.is_file():
            raise UserError(f"--{name} {path}: there is no such file.")
    page_with(options.page.read_text("utf-8"), "", NAME)
    for part in ("train", "test") if options.root else ():
        if not (options.root / part).is_dir():
            raise UserError(f"--root {options.root} has no folder {part} with one for each class.")


def _download() -> Path:
    """Return the seed's pictures, downloaded once."""
    config = yaml.safe_load((ROOT / "configs" / "seed.yaml").read_text("utf-8"))
    return Path(Archive(**config["data"]["source"]["init_args"]).fetch())


if __name__ == "__main__":
    sys.exit(main())
