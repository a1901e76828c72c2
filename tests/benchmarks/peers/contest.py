"""The turns: every program once for each seed, in rotated order, each result kept as it comes."""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from src.bench import rotated
from src.errors import RunFailureError, UserError
from src.hardware import slow_precision
from src.run import write_json
from tests.benchmarks.peers import environments, programs
from tests.benchmarks.peers.environments import PeerMissingError, complaint
from tests.benchmarks.peers.programs import Contest, ProgramFailedError, Result
from tests.benchmarks.peers.watch import watch

Program = Callable[[Contest, int, Path], Result]
PEERS = ("keras", "fastai")
OURS = {"ours-fp32": "32-true", "ours-bf16": "bf16-mixed"}
NAMES = ("keras", *OURS, "fast", "fastai")


class Records:
    """The folder of results: a file for each program and seed, written when the run is over.

    Args:
        folder: Made if need be.
        settings: What the results belong to; a folder of other settings is refused.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "contest.json"
        if not about.is_file():
            write_json(about, settings)
        there = json.loads(about.read_text("utf-8"))
        other = [f"{k} {there.get(k)}, now {v}" for k, v in settings.items() if there.get(k) != v]
        if other:
            raise UserError(
                f"--out {folder} holds runs with other settings: {'; '.join(other)}. Give another "
                "folder, or the settings of before."
            )

    def log(self, name: str) -> Path:
        """Return a fresh file for what a program prints."""
        path = self.folder / f"{name}.log"
        path.unlink(missing_ok=True)
        return path

    def load(self, name: str) -> Result | None:
        """Return a result, or None if there is none yet."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def save(self, name: str, result: Result) -> None:
        """Keep a result."""
        write_json(self.folder / f"{name}.json", result)


def enter(names: Sequence[str], venvs: Path) -> tuple[dict[str, Program], dict[str, str]]:
    """Return the programs that can be run, and of each peer that can't the reason."""
    entered: dict[str, Program] = {}
    reasons: dict[str, str] = {}
    for name in names:
        if name in OURS and slow_precision(OURS[name], torch.device("cpu")):
            reasons[name] = "not run: this processor has no AVX-512 and emulates bf16, slowly"
        elif name in OURS:
            entered[name] = partial(programs.run_ours, OURS[name])
        elif name == "fast":
            entered[name] = programs.run_fast
        else:
            try:
                python = environments.prepare(name, venvs)
            except PeerMissingError as error:
                reasons[name] = str(error)
                print(f"{name}: {error}", flush=True)
            else:
                entered[name] = partial(programs.run_peer, python, f"{name}_seed.py")
    return entered, reasons


def hold(
    contest: Contest,
    entered: dict[str, Program],
    seeds: Sequence[int],
    records: Records,
    reasons: dict[str, str],
) -> dict[str, dict[int, Result]]:
    """Run what has not been run yet; return every result by program and seed.

    A peer that fails drops out, and `reasons` gets its line.

    Raises:
        RunFailureError: a program of ours failed.
    """
    found: dict[str, dict[int, Result]] = {name: {} for name in entered}
    for turn, seed in enumerate(seeds):
        for name in rotated(list(entered), turn):
            if name in reasons:
                continue
            kept = records.load(f"{name}-{seed}")
            try:
                done = kept or _run(name, entered[name], contest, seed, records)
            except ProgramFailedError as error:
                if name not in PEERS:
                    raise RunFailureError(f"{name}, seed {seed}, {error}") from error
                reasons[name] = f"seed {seed} {error}"
                print(f"{name} seed {seed}: {error}", flush=True)
                continue
            found[name][seed] = done
            print(_line(name, seed, done, " (done before)" if kept else ""), flush=True)
    return found


def _run(name: str, program: Program, contest: Contest, seed: int, records: Records) -> Result:
    print(f"{name} seed {seed} ...", flush=True)
    done = program(contest, seed, records.log(f"{name}-{seed}"))
    records.save(f"{name}-{seed}", done)
    return done


def _line(name: str, seed: int, done: Result, more: str) -> str:
    scores = done["val_accuracy"]
    last = f", accuracy {scores[-1]:.3f}" if scores else ""
    return f"{name} seed {seed}: {done['seconds']:.1f} s{last}{more}"


def measure_loaders(contest: Contest, repeats: int, steps: int, records: Records) -> Result:
    """Return images a second of our loader and of torch + PIL, measured in a process of its own."""
    if kept := records.load("loaders"):
        return kept
    print("loaders ...", flush=True)
    log, out = records.log("loaders"), records.folder / "loaders.json"
    words = [sys.executable, "-m", "tests.benchmarks.peers.loaders", f"--root={contest.root}"]
    words += [f"--out={out}", f"--repeats={repeats}", f"--steps={steps}"]
    done = watch(words, log, programs.ROOT)
    if done.code:
        raise RunFailureError(f"the loaders: {complaint(log.read_text('utf-8', 'replace'))}")
    return records.load("loaders") or {}


def warm_up(root: Path) -> dict[str, int]:
    """Read every picture once, so that no program is the first to; return how many there are."""
    counts = {}
    for part in ("train", "test"):
        files = [path for path in sorted((root / part).rglob("*")) if path.is_file()]
        for path in files:
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass
        counts[part] = len(files)
    return counts
