"""Tells what a run has learned: `python -m src.report RUN_DIR [RUN_DIR ...]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src import __version__, plots
from src import report_pictures as pictures
from src import report_run as about
from src import report_scores as scored
from src.comparison import comparison
from src.data.scans import scan
from src.errors import UserError, quoted_list, visible
from src.failures import Parser, end_with_message
from src.judged import Judged, measures
from src.memory import keep_freed_memory
from src.missing import Missing
from src.opened import add_options, open_run
from src.pages import is_page, page
from src.quiet import quiet_libraries
from src.report_parts import Maker, Section, count
from src.run import write_text
from src.shortcut import look
from src.slices import slices
from src.trained import Trained

PROGRAM = "python -m src.report"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if a part failed by a fault, or 2 for the user's mistakes."""
    with end_with_message() as outcome:
        quiet_libraries()
        options = parser().parse_args(args)
        _refuse_twice(options.runs)
        runs = [open_run(path, options.root, options.trust_code) for path in options.runs]
        name = "report.html" if len(runs) == 1 else "comparison.html"
        out = options.out or options.runs[0] / name
        _require_place(out)
        if options.out is not None:
            _require_own(out)
        plots.require()
        keep_freed_memory()
        content = one_run(runs[0]) if len(runs) == 1 else comparison(runs)
        missing: Missing = content["missing"]
        if options.out is None:
            _keep_a_better_one(out, runs)
        told = [_without_places(line, options.runs) for line in missing.lines]
        text = page("report.html.j2", {"version": __version__, **content, "missing": told})
        # File names may be no text.
        write_text(out, text, errors="backslashreplace", by_many=True)
        for line in missing.lines:
            print(visible(f"missing: {line}"), file=sys.stderr)
        _say(str(out))
        outcome.code = int(missing.faulty)
    return outcome.code


def _keep_a_better_one(out: Path, runs: Sequence[Trained]) -> None:
    """Raise UserError where a page lies that a poorer one would replace unasked."""
    poor = next((run for run in runs if run.index is None or run.model is None), None)
    if poor is not None and out.is_file():
        why = poor.missing.lines[-1]
        raise UserError(
            f"{out} is kept, since a page of today would have no pictures ({why}). "
            "--out FILE writes it elsewhere."
        )


def _without_places(line: str, folders: Sequence[Path]) -> str:
    """Return a line for a page that may be moved with its run: run folders by their names alone."""
    for folder in folders:
        if folder.is_absolute():
            line = line.replace(str(folder), folder.name)
    return line


def _say(text: str) -> None:
    """Print a path that the terminal's encoding may lack."""
    encoding = sys.stdout.encoding or "utf-8"
    print(visible(text).encode(encoding, "backslashreplace").decode(encoding))


def _refuse_twice(folders: Sequence[Path]) -> None:
    known: dict[str, Path] = {}
    for folder in folders:
        other = known.setdefault(os.path.normcase(os.path.realpath(folder)), folder)
        if other is not folder:
            raise UserError(f"{other} and {folder} are the same run. Give each once.")


def _require_place(out: Path) -> None:
    """Raise UserError if the page can't be written, before any work."""
    if out.is_dir():
        raise UserError(f"--out {out} is a folder. Give a file in it, such as {out / 'a.html'}.")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: give the name of a page, which ends in .html.")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}. Make it, or give another.")
    if not os.access(out.parent, os.W_OK):
        raise UserError(
            f"nothing can be written into {out.parent}. Give a file elsewhere: --out FILE"
        )


def _require_own(out: Path) -> None:
    if out.is_file() and not is_page(out, "report"):
        raise UserError(
            f"--out {out} is there, and is no page of this command. Give another name, or remove "
            "it."
        )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Write a page on a run: curves, scores, mistakes and where the network looks. "
        "Several runs are laid side by side.",
        epilog="Exit code: 0 written (what was missing is said), 1 written without a part that "
        "failed by a fault in the program, 2 a mistake.",
    )
    add = made.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html, of several comparison.html, in the first run folder)",
    )
    add_options(made)
    return made


def one_run(run: Trained) -> dict[str, Any]:
    """Return what the page of one run is filled with; what can't be had is said there."""
    maker = Maker(run.missing)
    judged, found = _judged(run)
    split = run.split
    if judged is None:
        split, found = _stored(run)
    tiles = []
    if split:
        tiles = run.missing.attempt("the scores", lambda: scored.score_tiles(found, split)) or []
        looked = scored.looked_at(judged, found) if judged else scored.as_stored(found)
        maker.add(
            "the scores",
            lambda: scored.score_section(found, split, run.chosen_on_test, looked),
        )
    if run.rows:
        maker.add("the curves", lambda: about.learning_curves(run))
    if split:
        maker.add("the classes", lambda: scored.confusion_section(found))
        maker.add("the calibration", lambda: scored.calibration_section(found, judged))
    if judged:
        maker.add("the mistakes", lambda: pictures.mistakes(judged))
        maker.add("the heat maps", lambda: pictures.what_it_looks_at(judged))
        maker.add("the shortcut check", lambda: _shortcuts(run, judged, found))
        maker.add("the slices", lambda: _slices(judged))
    maker.add("the data card", lambda: _data(run))
    if run.rows:
        maker.add("the time", lambda: about.time_spent(run))
    maker.add("the command", lambda: about.reproduce(run))
    return {
        "title": _title(run),
        "subtitle": _subtitle(run),
        "tiles": tiles,
        "sections": maker.made,
        "missing": run.missing,
    }


def _title(run: Trained) -> str:
    """Return the recipe, as far as it is known, and the classes."""
    words = (str(word) for word in run.record.get("command") or ())
    recipe = next((word for word in words if word.endswith((".yaml", ".yml"))), "")
    shown = quoted_list(run.classes[:6])
    more = len(run.classes) - 6
    stem = Path(recipe.replace("\\", "/")).stem
    return f"{stem or 'A run'}: {shown}{f' and {more:,} more' if more > 0 else ''}"


def _subtitle(run: Trained) -> str:
    epochs = len({row["epoch"] for row in run.rows})
    told = f", {count(epochs, 'epoch')}" if epochs else ""
    more = "" if run.ended else "; the training has not ended"
    return f"{run.folder.path.absolute().name}{told}{more}"


def _judged(run: Trained) -> tuple[Judged | None, dict[str, Any]]:
    """Return the pictures of the split to look at, with their scores; None if there are none."""
    split = run.split
    if run.model is None or split is None:
        return None, {}
    judged = run.missing.attempt("the scores", lambda: Judged.of(run, split))
    found = judged and run.missing.attempt(
        "the scores", lambda: scored.all_scores(judged, run.own_scores(split))
    )
    return (judged, found) if found else (None, {})


def _stored(run: Trained) -> tuple[str | None, dict[str, Any]]:
    """Return the split and the scores that stand for what can't be looked at now."""
    for split in ("test", "val"):
        gone = run.model is None and run.is_own(split)
        found = run.scores(split) if gone else run.own_scores(split)
        if found.keys() >= scored.NEEDED:
            return split, found
    return None, {}


def _shortcuts(run: Trained, judged: Judged, found: dict[str, Any]) -> Section:
    looks = look(judged, run.block_size)
    return scored.shortcut_section(looks, found["baseline_accuracy"])


def _slices(judged: Judged) -> Section:
    index = judged.pictures.index.take(judged.table.index)
    scans = scan(index.root, index.paths, show_progress=False)
    sizes = np.array([float(found.width * found.height) for found in scans])
    values = {**measures(judged), "size": sizes}
    found = slices(values, judged.right)
    alike = [name for name in values if all(s.measure != name for s in found)]
    return scored.slice_section(found, alike)


def _data(run: Trained) -> Section:
    made = about.data_card(run)
    if run.index is not None:
        made["parts"] += run.missing.attempt("the samples", lambda: pictures.samples(run)) or []
    return made


if __name__ == "__main__":
    sys.exit(main())
