"""Shows that killing a run changes nothing: `python -m src.verify_resume --config C`.

It trains a run in one go, then the same run killed with SIGKILL at random moments and gone on with,
and compares every tensor of the checkpoints and every row of metrics.csv.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import yaml

from src.checkpoint import read_checkpoint
from src.errors import RunFailureError, UserError
from src.failures import end_with_message
from src.run import RunFolder
from src.run_rules import option_values
from src.sameness import Comparison, compare_runs
from src.sitting import Sitting

PROGRAM = "python -m src.verify_resume"
# What it sets itself -> what to give instead.
TAKEN = {
    "--run_dir": "--out DIR keeps the run folders",
    "--ckpt_path": "every sitting goes on with `auto`",
    "--data.num_workers": "--workers names the numbers to try",
    "--trainer.fast_dev_run": "it keeps nothing that could be compared",
}
SPREAD = ("--trainer.devices", "--trainer.strategy", "--trainer.accelerator")
_SAVES_PER_KILL = 4  # so that each sitting can get on before its end, and repeats some steps
_SHOWN = 20
_NO_WAY = re.compile(r"(\S+) does not have a deterministic implementation")


@dataclass(frozen=True)
class Settings:
    """What is to be tried.

    Attributes:
        fit: The words after `fit` that all sittings share.
        kills: How many for each number of workers.
        workers: Numbers of worker processes.
        processes: Of the training, each on the CPU if there are several.
        seed: Of the moments.
    """

    fit: tuple[str, ...]
    kills: int
    workers: tuple[int, ...]
    processes: int
    seed: int


@dataclass(frozen=True)
class Trial:
    """One run that was killed and gone on with.

    Attributes:
        workers: Its number of worker processes.
        places: For each kill that was made, the step that was saved by then; a star behind it if a
            checkpoint was being written.
        found: How it compares with the run in one go.
    """

    workers: int
    places: tuple[str, ...]
    found: Comparison


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if all runs are the same, 1 if not, 2 for the user's mistakes."""
    with end_with_message() as outcome, _ended_by_sigterm():
        settings, out = read_words(list(sys.argv[1:] if args is None else args))
        with _folder(out) as place:
            trials = verify(settings, place)
        print("\n".join(table(trials, settings.kills)))
        outcome.code = int(any(trial.found.different for trial in trials))
    return outcome.code


# The command line


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0,2")
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options that are not those of fit."""
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Train a run in one go, and the same run killed at random moments and gone on "
        "with; compare every tensor of last.ckpt and best.ckpt and every row of metrics.csv.",
        epilog="Every other option goes to fit: --data.root DIR, --trainer.max_epochs 3. "
        "Loggers are off. On a GPU, --trainer.deterministic true is added. Exit code: 0 all the "
        "same, 1 a difference or a failure, 2 a mistake in the options.",
    )
    add = made.add_argument
    add("--config", "-c", required=True, action="append", metavar="C", help="as for fit")
    add("--kills", type=int, default=5, help="for each number of workers (default: 5)")
    add(
        "--workers",
        type=_numbers,
        default=(0, 2),
        metavar="N,N",
        help="numbers of worker processes; the run in one go has the first (default: 0,2)",
    )
    add("--processes", type=int, default=1, help="train on so many, on the CPU (default: 1)")
    add("--out", type=Path, metavar="DIR", help="keep run folders and logs here; must be free")
    add("--seed", type=int, default=0, help="of the moments of the kills (default: 0)")
    return made


def read_words(args: list[str]) -> tuple[Settings, Path | None]:
    """Return what the command line says.

    Raises:
        UserError: for a value out of range, or an option of fit that is not free here.
    """
    known, fit = parser().parse_known_args(args)
    for name, value in (("kills", known.kills), ("processes", known.processes)):
        if value < 1:
            raise UserError(f"--{name} is {value}; allowed is 1 or more.")
    for config in known.config:
        if not Path(config).is_file():
            raise UserError(f"--config {config}: there is no such file. Give a .yaml file.")
    taken = TAKEN | ({name: "--processes sets it" for name in SPREAD} if known.processes > 1 else {})
    for name, instead in taken.items():
        if name in {word.partition("=")[0] for word in fit}:
            raise UserError(f"{name} can't be given here: {instead}. Leave it out.")
    if not hasattr(os, "killpg"):
        raise UserError("this system has no SIGKILL and no process groups: use Linux or macOS.")
    configs = [word for config in known.config for word in ("--config", config)]
    words = (*configs, *_settled(fit, known.processes))
    return Settings(words, known.kills, known.workers, known.processes, known.seed), known.out


def _settled(fit: list[str], processes: int) -> list[str]:
    """Return the words for fit with those that exactness, or the absence of a user, asks for."""
    several = [
        *("--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"),
        *("--trainer.devices", str(processes)),
    ]
    on_cpu = processes > 1 or "cpu" in option_values(fit, "--trainer.accelerator")
    exact = [] if on_cpu or not torch.accelerator.is_available() else _DETERMINISTIC
    quiet = ["--trainer.logger", "false", "--progress", "off"]
    return [*exact, *fit, *(several if processes > 1 else []), *quiet]


_DETERMINISTIC = ["--trainer.deterministic", "true"]


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Yield the folder for all runs: the one that is kept, or one that is removed at the end."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="verify_resume-") as name:
            yield Path(name)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} is not free. Give a folder that does not exist yet.")
    out.mkdir(parents=True, exist_ok=True)
    yield out
    print(f"runs and logs are kept in {out}")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this program as an error does, so that no training goes on without it."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# The runs


def verify(settings: Settings, place: Path) -> list[Trial]:
    """Train the run in one go, and once more for each number of workers; compare.

    Raises:
        RunFailureError: if a sitting failed by itself.
        UserError: likewise, if by a mistake that the user can mend.
    """
    whole = RunFolder(place / "whole")
    with _sitting(settings, whole, settings.workers[0], place / "whole.log") as sitting:
        seconds = sitting.train()
    _require_well(sitting)
    steps = saved_step(whole)
    print(f"in one go: {steps} steps in {seconds:.1f} s of training", flush=True)
    every = yaml.safe_load(whole.config.read_text("utf-8")).get("checkpoint_every_steps")
    if every is None:
        every = max(1, steps // (_SAVES_PER_KILL * settings.kills))
        more = ("--checkpoint_every_steps", str(every))
        settings = Settings(**{**vars(settings), "fit": (*settings.fit, *more)})
    trials = []
    for workers in settings.workers:
        parts = RunFolder(place / f"workers-{workers}")
        places = killed_run(settings, parts, workers, seconds, steps)
        trials.append(Trial(workers, tuple(places), compare_runs(whole, parts)))
    return trials
