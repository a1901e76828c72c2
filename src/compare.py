"""Says whether one run is better than another: `python -m src.compare RUN_A RUN_B [...]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from src.errors import UserError
from src.failures import Parser, end_with_message
from src.run import write_json
from src.scored import COMMANDS, Scored, data_differences, read_scored
from src.verdicts import LETTERS, as_json, compare, report

PROGRAM = "python -m src.compare"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0 whether or not the runs differ, 2 for the user's mistakes."""
    with end_with_message() as outcome:
        options = parser().parse_args(args)
        runs = read_runs(options.runs, options.split)
        found = compare(runs, options.all_pairs)
        _say("\n".join(report(runs, found)))
        if options.json is not None:
            write_json(options.json, as_json(runs, found, options.split))
            _say(f"all of it: {options.json}")
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Say whether runs differ in accuracy on the same pictures, beyond chance.",
        epilog="Exit code: 0 compared, 2 a mistake, or runs that were not scored on the same "
        "pictures.",
    )
    add = made.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders; the first is the yardstick")
    add(
        "--split",
        choices=list(COMMANDS),
        default="test",
        help="what the runs were scored on, by `test` or by `validate` (default: test)",
    )
    add("--all_pairs", action="store_true", help="each with each, not the first with each")
    add("--json", type=Path, metavar="FILE", help="write all of it here, every flipped picture too")
    return made


# The runs


def read_runs(folders: Sequence[Path], split: str) -> list[Scored]:
    """Return what the runs said of the pictures of a split.

    Raises:
        UserError: fewer than two or too many runs, one given twice, one that was not scored, or
            runs that were not scored on the same pictures.
    """
    if not 2 <= len(folders) <= len(LETTERS):
        raise UserError(f"{len(folders)} run(s) given; allowed are 2 to {len(LETTERS)}.")
    for one, other in combinations(folders, 2):
        if os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other)):
            raise UserError(f"{one} and {other} are the same run. Give each once.")
    runs = [read_scored(folder, split) for folder in folders]
    for other_run in runs[1:]:
        if differences := data_differences(runs[0], other_run):
            raise UserError(
                f"{runs[0].folder} and {other_run.folder} were not scored on the same pictures: "
                f"{differences}. Score both on the same: python -m src.train {COMMANDS[split]} "
                "--run_dir RUN --data.root DATA"
            )
    return runs


def _say(text: str) -> None:
    """Print file names that the terminal's encoding may lack."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


if __name__ == "__main__":
    sys.exit(main())
