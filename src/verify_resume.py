"""Shows that killing a run changes nothing: `python -m src.verify_resume --config C`.

It trains a run in one go, then the same run killed with SIGKILL at random moments and gone on with,
and compares every tensor of the checkpoints and every row of metrics.csv.
"""

import argparse
import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

from src.errors import UserError
from src.failures import Parser, end_with_message
from src.run import RunFolder
from src.sameness import Comparison, compare_runs
from src.sitting import Sitting, saved_step

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
_SHOWN = 20  # differences of a trial
_ON_CPU = re.compile(r"--trainer\.accelerator[ =]cpu\b")
_DETERMINISTIC = ["--trainer.deterministic", "true"]


@dataclass(frozen=True)
class Settings:
    """What is to be tried.

    Attributes:
        fit: The words after `fit` that all sittings share.
        kills: How many for each number of workers.
        workers: Numbers of worker processes.
        processes: Of the training, each on the CPU if there are several.
        seed: Of the moments.
        scratch: Where the trainings put temporary files; None means where the system does.
    """

    fit: tuple[str, ...]
    kills: int
    workers: tuple[int, ...]
    processes: int
    seed: int
    scratch: str | None = None


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
    """Run the command.

    Returns:
        0 if all runs are the same; 1 if one differs, failed, or could not be killed before it was
        over; 2 for the user's mistakes.
    """
    with end_with_message() as outcome:
        settings, out = read_words(list(sys.argv[1:] if args is None else args))
        with _folder(out) as place, tempfile.TemporaryDirectory(prefix="verify_resume-") as scratch:
            # What killed processes leave in their folder for temporary files goes with it.
            trials = verify(replace(settings, scratch=scratch), place)
        print("\n".join(table(trials, settings.kills)))
        outcome.code = int(any(trial.found.different or not trial.places for trial in trials))
    return outcome.code


# The command line


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers from 0, such as 0,2")
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options that are not those of fit."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Train a run in one go, and the same run killed at random moments and gone on "
        "with; compare every tensor of last.ckpt and best.ckpt and every row of metrics.csv.",
        epilog="Every other option goes to fit: --data.root DIR, --trainer.max_epochs 3. "
        "Loggers are off. On a GPU, --trainer.deterministic true is added. Exit code: 0 all the "
        "same, 1 a difference, a failure or no kill, 2 a mistake in the options.",
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
    taken = TAKEN | (dict.fromkeys(SPREAD, "--processes sets it") if known.processes > 1 else {})
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
    on_cpu = processes > 1 or _ON_CPU.search(" ".join(fit))
    exact = [] if on_cpu or not torch.accelerator.is_available() else _DETERMINISTIC
    quiet = ["--trainer.logger", "false", "--progress", "off"]
    return [*exact, *fit, *(several if processes > 1 else []), *quiet]


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


# The runs


def verify(settings: Settings, place: Path) -> list[Trial]:
    """Train the run in one go, and once more for each number of workers; compare.

    Raises:
        RunFailureError: if a sitting failed by itself.
        UserError: likewise, if by a mistake that the user can mend.
    """
    whole = RunFolder(place / "whole")
    _train_whole(settings, whole)
    steps = saved_step(whole)
    seconds = float(json.loads(whole.summary.read_text("utf-8"))["wall_seconds"])
    print(f"in one go: {steps} steps in {seconds:.1f} s", flush=True)
    settings = _with_saves(settings, whole, steps)
    trials = []
    for workers in settings.workers:
        parts = RunFolder(place / f"workers-{workers}")
        places = _train_in_parts(settings, parts, workers, seconds / max(steps, 1), steps)
        trials.append(Trial(workers, tuple(places), compare_runs(whole, parts)))
    return trials


def _start(settings: Settings, folder: RunFolder, workers: int, name: str) -> Sitting:
    words = ("--data.num_workers", str(workers), "--run_dir", str(folder.path))
    threads = os.environ.get("OMP_NUM_THREADS", "1")  # Lightning would choose by the cores
    env = {"OMP_NUM_THREADS": threads} if settings.processes > 1 else {}
    env |= {"TMPDIR": settings.scratch} if settings.scratch else {}
    log = folder.path.with_name(f"{name}.log")
    return Sitting((*settings.fit, *words, "--ckpt_path", "auto"), folder, log, env)


def _train_whole(settings: Settings, folder: RunFolder) -> None:
    with _start(settings, folder, settings.workers[0], folder.path.name) as sitting:
        trained = sitting.trains()
        sitting.ends_within(None)
    sitting.require_well()
    if not trained or not folder.begun:
        raise UserError("nothing was trained and saved: give --trainer.max_epochs 1 or more.")


def _with_saves(settings: Settings, whole: RunFolder, steps: int) -> Settings:
    """Return the settings with a number of steps between checkpoints, unless the config has one."""
    stored = yaml.safe_load(whole.config.read_text("utf-8"))
    if stored.get("checkpoint_every_steps") or stored.get("checkpoint_every_minutes"):
        return settings
    every = max(1, steps // (_SAVES_PER_KILL * settings.kills))
    return replace(settings, fit=(*settings.fit, "--checkpoint_every_steps", str(every)))


def _train_in_parts(
    settings: Settings, folder: RunFolder, workers: int, step_seconds: float, steps: int
) -> list[str]:
    """Train, kill and go on until the run is over; return where the kills came."""
    moments = random.Random(f"{settings.seed} {workers}")
    places: list[str] = []
    for number in range(settings.kills + 1):
        left = settings.kills - number
        saved = saved_step(folder)
        # An even share of what is left, so that the kills spread over the whole run.
        share = step_seconds * (steps - saved) / max(left, 1)
        delay = moments.uniform(0, share) if left else None
        name = f"{folder.path.name}-sitting-{number + 1}"
        with _start(settings, folder, workers, name) as sitting:
            over = not sitting.trains() or sitting.ends_within(delay)
        if over:
            sitting.require_well()
            break
        writing = any(folder.checkpoints.glob("*.tmp"))
        places.append(f"{saved_step(folder)}{'*' if writing else ''}")
        print(f"{workers} workers: killed after {delay:.2f} s, saved: {places[-1]}", flush=True)
    print(f"{workers} workers: over after {len(places)} kills", flush=True)
    return places


# The result


def table(trials: Sequence[Trial], asked: int) -> list[str]:
    """Return the lines that say how the trials came out.

    Args:
        trials: A line each, and what differs below.
        asked: How many kills were asked for.
    """
    head = ("workers", "kills", "saved step at each kill", "tensors", "rows", "result")
    rows = [head, *(_row(trial, asked) for trial in trials)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if any("*" in place for trial in trials for place in trial.places):
        lines.append("* a checkpoint was being written")
    if any(len(trial.places) < asked for trial in trials):
        lines.append("a kill that is missing came too late, when the run was over: train longer")
    if any(not trial.places for trial in trials):
        lines.append("nothing is shown for a run that was never killed")
    for trial in trials:
        found = trial.found.different
        lines += [f"{trial.workers} workers: {line}" for line in found[:_SHOWN]]
        more = len(found) - _SHOWN
        lines += [f"{trial.workers} workers: and {more} more"] if more > 0 else []
    return lines


def _row(trial: Trial, asked: int) -> tuple[str, ...]:
    found = trial.found
    result = f"differs in {len(found.different)}" if found.different else "equal"
    kills, places = f"{len(trial.places)} of {asked}", ", ".join(trial.places) or "-"
    return str(trial.workers), kills, places, str(found.tensors), str(found.rows), result


if __name__ == "__main__":
    sys.exit(main())
