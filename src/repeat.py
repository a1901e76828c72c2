"""Trains a recipe with several seeds: `python -m src.repeat --config C --seeds 0,1,2,3,4`.

Each seed is a run of its own, begun by `python -m src.train`; what is over is not done again.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.child import require_well, run_child, sole_use
from src.errors import StoppedRun, UserError
from src.failures import Parser, end_with_message
from src.repetition import (
    LOCK,
    SCORES,
    cell,
    check_same_data,
    keep_plan,
    options_of,
    plan_of,
    result_of,
    scores_of,
    spreads,
    table,
    unlike,
)
from src.run import RunFolder, write_json
from src.scored import COMMANDS

PROGRAM = "python -m src.repeat"
RESULT = "repeat.json"
# What it sets itself -> what to give instead.
TAKEN = {
    "--run_dir": "--out DIR is the folder of all runs",
    "--ckpt_path": "a run that is not over goes on by itself",
    "--seed_everything": "--seeds lists them",
    "--trainer.fast_dev_run": "it keeps nothing that could be scored",
    "--minutes": "settle it with fit once, and give --trainer.max_epochs as config.yaml says",
    "--find_lr": "settle it with fit once, and give --model.optimizer.init_args.lr",
    "--config": "give it before the lone --",
    "-c": "give it before the lone --",
}


@dataclass(frozen=True)
class Settings:
    """What is to be repeated.

    Attributes:
        configs: Of the recipe.
        fit: The other words after `fit`, alike for all seeds.
        seeds: No seed twice.
        folder: Where the runs go, `seed-<n>` each.
        splits: What is scored: val, and test if that was asked for.
    """

    configs: tuple[Path, ...]
    fit: tuple[str, ...]
    seeds: tuple[int, ...]
    folder: Path
    splits: tuple[str, ...]

    def run(self, seed: int) -> RunFolder:
        """Return the run of a seed."""
        return RunFolder(self.folder / f"seed-{seed}")

    def log(self, seed: int) -> Path:
        """Return where the output of its commands goes."""
        return self.folder / f"seed-{seed}.log"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 if all runs are over and scored; 2 for the user's mistakes, 1 for another failure of a
        run; after a signal what the run under way returned, 130 or 143.
    """
    with end_with_message() as outcome:
        settings = read_words(list(sys.argv[1:] if args is None else args))
        plan = plan_of(settings.configs, settings.fit)
        keep_plan(settings.folder, plan)
        with sole_use(settings.folder / LOCK) as held:
            repeat(settings, held)
    return outcome.code


# The command line


def _seeds(text: str) -> tuple[int, ...]:
    seeds = [int(word) for word in text.split(",")] if re.fullmatch(r"\d+(,\d+)*", text) else []
    if not seeds or len(set(seeds)) < len(seeds) or max(seeds) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of different numbers from 0 to {2**32 - 1}, such as 0,1,2"
        )
    return tuple(seeds)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options that are not those of fit."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        usage=f"{PROGRAM} --config C [--seeds 0,1,2] [--out DIR] [--test] [-- OPTIONS OF FIT]",
        description="Train and score a recipe with several seeds, and say how far the scores lie "
        "apart. Type the same line again to go on after a stop; a run that is over is not run "
        "again, so seeds may be added.",
        epilog="Every other option goes to fit: --data.root DIR, --trainer.max_epochs 3. "
        "The split into training, validation and test pictures stays (data.split_seed). Exit code: "
        "0 all runs are over, 1 or 2 as one of them ended, 130 or 143 after a signal.",
    )
    add = made.add_argument
    add("--config", "-c", required=True, action="append", type=Path, metavar="C", help="as for fit")
    add(
        "--seeds",
        type=_seeds,
        default=(0, 1, 2, 3, 4),
        metavar="N,N",
        help="one run each (default: 0,1,2,3,4)",
    )
    add("--out", type=Path, metavar="DIR", help="folder of the runs (default: runs/repeat/RECIPE)")
    add(
        "--test",
        action="store_true",
        help="score the test pictures too; without it nobody looks at them, and choices between "
        "recipes are made on the validation pictures alone",
    )
    return made


def read_words(args: list[str]) -> Settings:
    """Return what the command line says.

    Raises:
        UserError: for a value out of range, or an option of fit that is not free here.
    """
    end = args.index("--") if "--" in args else len(args)
    known, rest = parser().parse_known_args(args[:end])
    fit = (*rest, *args[end + 1 :])
    names = [name for name, _ in options_of(fit)]
    for name, instead in TAKEN.items():
        if name in names:
            raise UserError(f"{name} can't be given here: {instead}. Leave it out.")
    folder = known.out or Path("runs") / "repeat" / known.config[0].stem
    splits = ("val", "test") if known.test else ("val",)
    return Settings(tuple(known.config), fit, known.seeds, folder, splits)


# The runs


def repeat(settings: Settings, held: Sequence[int] = ()) -> None:
    """Train and score each seed, then tell and write what came out.

    Args:
        settings: What is to be repeated.
        held: File descriptors that the runs inherit.

    Raises:
        UserError: if a run ended by a mistake that the user can mend.
        RunFailureError: if one failed otherwise.
        StoppedRun: if a signal came; it has gone on to the run under way.
    """
    results = []
    for number, seed in enumerate(settings.seeds, start=1):
        name = f"seed {seed} ({number} of {len(settings.seeds)})"
        for command in ("fit", *(COMMANDS[split] for split in settings.splits)):
            if not _is_over(settings.run(seed), command):
                _say(f"{name}: {command}, see {settings.log(seed)}")
                _run(settings, seed, command, held)
        results.append(result_of(settings.run(seed), seed, settings.splits))
        _say(f"{name}: {_scores_line(results[-1], settings.splits)}")
    check_same_data(results, settings.splits)
    for line in unlike({seed: settings.run(seed) for seed in settings.seeds}):
        print(f"WARNING: the runs differ in more than their seed: {line}", file=sys.stderr)
    _finish(settings, results)


def _is_over(folder: RunFolder, command: str) -> bool:
    if command == "fit":
        return folder.summary.is_file()
    split = next(split for split, name in COMMANDS.items() if name == command)
    return scores_of(folder, split) is not None


def _run(settings: Settings, seed: int, command: str, held: Sequence[int]) -> None:
    """Run one command of a seed to its end, or to its stop by a signal."""
    words = [command, *_words(settings, seed, command)]
    ended = run_child(words, settings.log(seed), held)
    if ended.signal is not None:
        stop = StoppedRun(ended.signal, f" in seed {seed}. Go on: type the same line again")
        stop.code = ended.code or stop.code
        raise stop
    require_well(ended.code, settings.log(seed), f"seed {seed}: {command}")
    if not _is_over(settings.run(seed), command):
        raise UserError(
            f"seed {seed}: {command} went well and kept nothing; a dev run can't be repeated. See "
            f"{settings.log(seed)}."
        )


def _words(settings: Settings, seed: int, command: str) -> list[str]:
    """Return the words after a command."""
    folder = ["--run_dir", str(settings.run(seed).path)]
    if command != "fit":
        trusted = [value for name, value in options_of(settings.fit) if name == "--trust_code"]
        return [*folder, *(word for prefix in trusted for word in ("--trust_code", prefix))]
    configs = [word for config in settings.configs for word in ("--config", str(config))]
    ours = [*folder, "--ckpt_path", "auto", "--seed_everything", str(seed)]
    return [*configs, *settings.fit, *ours]


# What is told


def _say(text: str) -> None:
    print(text, flush=True)


def _scores_line(result: dict[str, Any], splits: Sequence[str]) -> str:
    parts = [
        f"{split} " + ", ".join(f"{name} {cell(result[split], name)}" for name in SCORES)
        for split in splits
    ]
    return "; ".join(parts)


def _finish(settings: Settings, results: list[dict[str, Any]]) -> None:
    path = settings.folder / RESULT
    found = {
        "configs": [str(config) for config in settings.configs],
        "options": list(settings.fit),
        "runs": results,
        "spread": spreads(results, settings.splits),
    }
    write_json(path, found)
    _say("\n".join(["", *table(results, settings.splits), ""]))
    _say("in brackets: 95 % for other pictures like these")
    if len(results) > 1:
        _say("last row: 95 % for ever more seeds on these pictures (Student's t for the mean)")
    _say(str(path))


if __name__ == "__main__":
    sys.exit(main())
