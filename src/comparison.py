"""The page of several runs: side by side, whether they differ, and the pictures that flipped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src import plots
from src.errors import UserError
from src.pages import Shown, picture_uri
from src.preprocess import BadImageError, open_rgb
from src.report_sections import Part, Section, column, duration, percent, section, with_ends
from src.scored import COMMANDS, Scored, read_scored
from src.trained import Trained
from src.verdicts import LETTERS, Outcome, compare, verdict

_FLIPPED = 24  # pictures shown
_SIDE = 224  # pixels


def comparison(runs: Sequence[Trained]) -> dict[str, Any]:
    """Return what the page of several runs is filled with.

    Raises:
        UserError: for more runs than there are letters.
    """
    if len(runs) > len(LETTERS):
        raise UserError(f"{len(runs)} runs given; allowed are up to {len(LETTERS)}.")
    names = list(LETTERS[: len(runs)])
    missing = [text for run in runs for text in run.missing]
    made = [_side_by_side(runs, names), _curves(runs, names)]
    found = _scored(runs, missing)
    if found:
        split, scored = found
        outcomes = compare(scored)
        made.append(_verdicts(outcomes, split))
        made.append(_flips(runs[0], scored, outcomes))
    return {
        "title": " against ".join(
            f"{n} {run.folder.path.name}" for n, run in zip(names, runs, strict=True)
        ),
        "subtitle": f"{len(runs)} runs, lettered in the order in which they were given.",
        "tiles": [],
        "sections": made,
        "missing": missing,
    }


def _side_by_side(runs: Sequence[Trained], names: Sequence[str]) -> Section:
    rows = [["run folder", *(str(run.folder.path) for run in runs)]]
    rows.append(["seed", *(str(run.record.get("seed", "-")) for run in runs)])
    rows.append(["epochs", *(str(len(run.rows)) for run in runs)])
    rows.append(
        ["time", *(duration(float(run.rows[-1]["seconds"])) if run.rows else "-" for run in runs)]
    )
    rows.append(["parameters", *(f"{run.summary.get('parameters', 0):,}" for run in runs)])
    rows.append(["best validation accuracy", *(_best(run) for run in runs)])
    for command, what in (("test", "test accuracy"), ("validate", "validation accuracy, scored")):
        if any(run.scores(command) for run in runs):
            rows.append([what, *(_accuracy(run.scores(command)) for run in runs)])
    table = {"kind": "table", "head": ["", *names], "rows": rows}
    return section("Side by side", (), [table], "side")


def _best(run: Trained) -> str:
    return percent(run.summary.get("best", {}).get("val/accuracy"))


def _accuracy(found: dict[str, Any]) -> str:
    return with_ends(found["accuracy"], found["accuracy_interval"]) if found else "not scored"


def _curves(runs: Sequence[Trained], names: Sequence[str]) -> Section:
    made = []
    for score in ("loss", "accuracy"):
        lines = {
            name: column(run.rows, f"val/{score}")
            for name, run in zip(names, runs, strict=True)
            if run.rows
        }
        if lines:
            svg = plots.curves(f"curve-{score}", f"validation {score}", lines, None)
            made.append({"svg": svg, "caption": f"Validation {score} over the epochs."})
    return section("Learning curves", (), [{"kind": "plots", "plots": made}], "curves")


def _scored(runs: Sequence[Trained], missing: list[str]) -> tuple[str, list[Scored]] | None:
    """Return the split that all runs were scored on, and what they said; None for none."""
    for split, command in COMMANDS.items():
        if all(run.scores(command) for run in runs):
            scored = [read_scored(run.folder.path, split) for run in runs]
            if len({(run.fingerprint, run.classes, run.labels) for run in scored}) > 1:
                missing.append(f"the comparison: the runs were not scored on the same {split} data")
                return None
            return split, scored
    missing.append(
        "the comparison: not all runs were scored. Score each: python -m src.train test "
        "--run_dir RUN"
    )
    return None


def _verdicts(outcomes: Sequence[Outcome], split: str) -> Section:
    rows = [
        [
            f"{LETTERS[o.first]} and {LETTERS[o.second]}",
            *(
                f"{n:,}"
                for n in (
                    o.pairs.both_right,
                    o.pairs.only_first,
                    o.pairs.only_second,
                    o.pairs.both_wrong,
                )
            ),
        ]
        for o in outcomes
    ]
    head = ["runs", "both right", "first alone", "second alone", "both wrong"]
    about = f"McNemar's exact test on the same {split} pictures; intervals are Tango's, 95 %."
    texts: list[Part] = [{"kind": "text", "text": verdict(o, len(outcomes))} for o in outcomes]
    return section(
        "Do they differ", [about], [*texts, {"kind": "table", "head": head, "rows": rows}], "differ"
    )


def _flips(run: Trained, scored: Sequence[Scored], outcomes: Sequence[Outcome]) -> Section:
    """The pictures that one run alone named rightly."""
    parts: list[Part] = []
    for outcome in outcomes:
        pair = scored[outcome.first], scored[outcome.second]
        shown = [_flipped(run, pair, outcome, at) for at in outcome.flipped[:_FLIPPED]]
        title = f"{LETTERS[outcome.first]} and {LETTERS[outcome.second]}: {len(outcome.flipped):,}"
        if shown:
            parts.append({"kind": "gallery", "title": title, "pictures": shown, "wide": False})
    if not parts:
        parts.append({"kind": "text", "text": "None."})
    return section("Pictures that flipped", (), parts, "flipped")


def _flipped(run: Trained, pair: tuple[Scored, Scored], outcome: Outcome, at: int) -> Shown:
    said = (
        f"{LETTERS[place]}: {one.predicted[at]} {percent(float(one.probabilities[at].max()))}"
        for place, one in zip((outcome.first, outcome.second), pair, strict=True)
    )
    path = pair[0].paths[at]
    return Shown(
        uri=_picture(run.root, path),
        alt=f"{path}, which is {pair[0].labels[at]}",
        head=pair[0].labels[at],
        text=f"{', '.join(said)}; {path}",
    )


def _picture(root: Path | None, path: str) -> str:
    if root is None:
        return "data:,"
    try:
        return picture_uri(open_rgb((root.parent if root.is_file() else root) / path), _SIDE)
    except (BadImageError, OSError):
        return "data:,"
