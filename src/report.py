"""Tells what a run has learned: `python -m src.report RUN_DIR [RUN_DIR ...]`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src import __version__
from src import report_pictures as pictures
from src import report_sections as sections
from src.comparison import comparison
from src.data.scans import scan
from src.errors import UserError
from src.failures import Parser, end_with_message
from src.judged import Judged, measures
from src.pages import page
from src.quiet import quiet_libraries
from src.report_sections import Section
from src.run import write_text
from src.shortcut import look
from src.slices import slices
from src.trained import Trained, open_run

PROGRAM = "python -m src.report"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 for the user's mistakes."""
    with end_with_message() as outcome:
        quiet_libraries()
        options = parser().parse_args(args)
        runs = [open_run(path, options.root, options.trust_code) for path in options.runs]
        out = options.out or options.runs[0] / (
            "report.html" if len(runs) == 1 else "comparison.html"
        )
        content = one_run(runs[0]) if len(runs) == 1 else comparison(runs)
        write_text(out, page("report.html.j2", {"version": __version__, **content}))
        for text in content["missing"]:
            print(f"missing: {text}", file=sys.stderr)
        print(out)
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Write a page on a run: curves, scores, mistakes and where the network looks. "
        "Several runs are laid side by side.",
        epilog="Exit code: 0 written (what was missing is said), 2 a mistake.",
    )
    add = made.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html, of several comparison.html, in the first run folder)",
    )
    add(
        "--data.root", dest="root", metavar="DIR", help="where the pictures are, if they have moved"
    )
    add(
        "--trust_code",
        action="append",
        default=[],
        metavar="PREFIX",
        help="classes of yours that the run may name, by the first part of their path",
    )
    return made


def one_run(run: Trained) -> dict[str, Any]:
    """Return what the page of one run is filled with; what can't be had is said there."""
    maker = Maker(run)
    judged, split = _judged(run)
    found = sections.all_scores(judged) if judged else {}
    if judged and split:
        maker.add("the scores", lambda: sections.score_section(found, split))
    if run.rows:
        maker.add("the curves", lambda: sections.learning_curves(run))
    if judged:
        maker.add("the classes", lambda: sections.confusion_section(found))
        maker.add("the calibration", lambda: sections.calibration_section(judged, found))
        maker.add("the mistakes", lambda: pictures.mistakes(judged))
        maker.add("the heat maps", lambda: pictures.what_it_looks_at(judged))
        maker.add("the shortcut check", lambda: _shortcuts(run, judged, found))
        maker.add("the slices", lambda: _slices(run, judged))
    maker.add("the data card", lambda: _data(run))
    if run.rows:
        maker.add("the time", lambda: sections.time_spent(run))
    maker.add("the command", lambda: sections.reproduce(run))
    recipe = next((w for w in run.record.get("command", ()) if str(w).endswith(".yaml")), "")
    return {
        "title": f"{Path(str(recipe)).stem or 'Run'}: {', '.join(run.classes[:6])}",
        "subtitle": f"{run.folder.path.name}, {len(run.rows)} epoch(s)"
        + ("" if run.summary else "; the training has not ended"),
        "tiles": sections.score_tiles(judged, found, split) if judged and split else [],
        "sections": maker.made,
        "missing": run.missing,
    }


class Maker:
    """Makes sections; what fails is noted and leaves the others as they are.

    Args:
        run: Its list of what is missing grows.
    """

    def __init__(self, run: Trained) -> None:
        self.run = run
        self.made: list[Section] = []

    def add(self, what: str, make: Callable[[], Section | None]) -> None:
        """Make a section, if it can be made."""
        try:
            found = make()
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            self.run.missing.append(f"{what}: {error}")
            return
        if found is not None:
            self.made.append(found)


def _judged(run: Trained) -> tuple[Judged | None, str | None]:
    if run.model is None or run.index is None or run.split is None:
        return None, None
    try:
        return Judged.of(run, run.split), run.split
    except (UserError, ValueError, OSError) as error:
        run.missing.append(f"the scores: {error}")
        return None, None


def _shortcuts(run: Trained, judged: Judged, found: dict[str, Any]) -> Section:
    looks = look(judged.model.net, judged.pictures, run.block_size, judged.decision)
    return sections.shortcut_section(looks, found["baseline_accuracy"])


def _slices(run: Trained, judged: Judged) -> Section | None:
    index = judged.pictures.index
    scans = scan(index.root, index.paths, show_progress=False)
    sizes = np.array([float(scans[i].width * scans[i].height) for i in judged.table.index])
    found = slices({**measures(judged), "size": sizes}, judged.right)
    return sections.slice_section(found) if found else None


def _data(run: Trained) -> Section:
    made = sections.data_card(run)
    if run.index is not None:
        made["parts"] += pictures.samples(run)
    return made


if __name__ == "__main__":
    sys.exit(main())
