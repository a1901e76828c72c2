"""The page of several runs: side by side, whether they differ, and the pictures that flipped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src import plots
from src.errors import UserError
from src.missing import Missing
from src.pages import Shown, picture_uri
from src.preprocess import BadImageError, open_rgb
from src.report_parts import (
    Maker,
    Part,
    Ranged,
    Section,
    count,
    duration,
    percent,
    section,
    table,
    with_ends,
)
from src.report_run import column, parameters
from src.run import shown_path
from src.scored import COMMANDS, Scored, data_differences, read_scored
from src.trained import Trained
from src.verdicts import LETTERS, Outcome, compare, verdict

_FLIPPED, _ALL_FLIPPED = 24, 120  # pictures shown of a comparison, and of all
_SIDE = 224  # pixels


def comparison(runs: Sequence[Trained]) -> dict[str, Any]:
    """Return what the page of several runs is filled with.

    Raises:
        UserError: for more runs than there are letters.
    """
    if len(runs) > len(LETTERS):
        raise UserError(f"{len(runs)} runs given; allowed are up to {len(LETTERS)}.")
    names = list(LETTERS[: len(runs)])
    missing = Missing()
    maker = Maker(missing)
    maker.add("the table", lambda: _side_by_side(runs, names))
    maker.add("the curves", lambda: _curves(runs, names))
    found = missing.attempt("the comparison", lambda: _scored(runs))
    if found:
        split, scored = found
        outcomes = compare(scored)
        pictures = runs[0] if runs[0].is_own(split) else None
        maker.add("McNemar's test", lambda: _verdicts(outcomes, split))
        maker.add("the pictures", lambda: _flips(pictures, scored, outcomes))
    for name, run in zip(names, runs, strict=True):
        missing.take(run.missing, f"{name}: ")
    return {
        "title": " against ".join(
            f"{n} {run.folder.path.absolute().name}" for n, run in zip(names, runs, strict=True)
        ),
        "subtitle": f"{len(runs)} runs, lettered in the order in which they were given.",
        "tiles": [],
        "sections": maker.made,
        "missing": missing,
    }


def _side_by_side(runs: Sequence[Trained], names: Sequence[str]) -> Section:
    rows: list[list[str | Ranged]] = [
        ["run folder", *(run.folder.path.absolute().name for run in runs)]
    ]
    rows.append(["seed", *(str(run.record.get("seed", "-")) for run in runs)])
    rows.append(["epochs", *(str(len({row["epoch"] for row in run.rows})) for run in runs)])
    rows.append(
        ["time", *(duration(float(run.rows[-1]["seconds"])) if run.rows else "-" for run in runs)]
    )
    rows.append(["parameters", *(parameters(run) for run in runs)])
    rows.append(["best validation accuracy", *(_best(run) for run in runs)])
    for split, what in (("test", "test accuracy"), ("val", "validation accuracy, scored")):
        if any(run.scores(split) for run in runs):
            rows.append([what, *(_accuracy(run, split) for run in runs)])
    return section("Side by side", (), [table(["", *names], rows)], "side")


def _best(run: Trained) -> str:
    return percent(run.summary.get("best", {}).get("val/accuracy"))


def _accuracy(run: Trained, split: str) -> str | Ranged:
    found = run.scores(split)
    if "accuracy" not in found:
        return "not scored"
    cell = with_ends(found["accuracy"], found.get("accuracy_interval"))
    return cell if run.is_own(split) else f"{percent(found['accuracy'])}, on other pictures"


def _curves(runs: Sequence[Trained], names: Sequence[str]) -> Section | None:
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
    if not made:
        return None
    return section("Learning curves", (), [{"kind": "plots", "plots": made}], "curves")


def _scored(runs: Sequence[Trained]) -> tuple[str, list[Scored]]:
    """Return the split that all runs were scored on, and what they said."""
    reasons = []
    for split in COMMANDS:
        if not all(run.scores(split) for run in runs):
            continue
        try:
            scored = [read_scored(run.folder.path, split) for run in runs]
        except UserError as error:
            reasons.append(str(error))
            continue
        differences = [data_differences(scored[0], other) for other in scored[1:]]
        if not any(differences):
            return split, scored
        first = next(filter(None, differences))
        reasons.append(f"the {split} pictures that they were scored on differ: {first}")
    scoring = "not all runs were scored. Score each: python -m src.train test --run_dir RUN"
    raise UserError("; ".join(reasons) or scoring)


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
    texts: list[Part] = [{"kind": "verdict", "text": verdict(o, len(outcomes))} for o in outcomes]
    return section("Do they differ", [about], [*texts, table(head, rows)], "differ")


def _flips(run: Trained | None, scored: Sequence[Scored], outcomes: Sequence[Outcome]) -> Section:
    """The pictures that one run alone named rightly.

    Args:
        run: Whose own pictures they are; None if they are of other data.
        scored: What each run said of them.
        outcomes: Of each pair of runs.
    """
    index = run.index if run is not None else None
    places = {} if index is None else {path: index.path(i) for i, path in enumerate(index.paths)}
    parts: list[Part] = []
    most = _shown_of_each(len(outcomes))
    for outcome in outcomes:
        pair = scored[outcome.first], scored[outcome.second]
        clearest = sorted(outcome.flipped, key=lambda at: -_apart(pair, at))[:most]
        shown = [_flipped(places, pair, outcome, at) for at in clearest]
        shown_of = f"the {most} clearest of " if len(outcome.flipped) > most else ""
        title = (
            f"{LETTERS[outcome.first]} and {LETTERS[outcome.second]}: {shown_of}"
            f"{count(len(outcome.flipped), 'picture')}"
        )
        if shown:
            parts.append({"kind": "gallery", "title": title, "pictures": shown, "wide": False})
    if not parts:
        parts.append({"kind": "text", "text": "None."})
    return section("Pictures that flipped", (), parts, "flipped")


def _apart(pair: tuple[Scored, Scored], at: int) -> float:
    """Return how far two runs are apart on the class that a picture is of, 0 to 1."""
    first, second = (one.probabilities[at, one.classes.index(one.labels[at])] for one in pair)
    return abs(float(first) - float(second))


def _shown_of_each(comparisons: int) -> int:
    return min(_FLIPPED, _ALL_FLIPPED // max(1, comparisons))


def _flipped(
    places: Mapping[str, Path], pair: tuple[Scored, Scored], outcome: Outcome, at: int
) -> Shown:
    said = (
        f"{LETTERS[place]} {one.predicted[at]} {_sure(one, at)}"
        for place, one in zip((outcome.first, outcome.second), pair, strict=True)
    )
    path = pair[0].paths[at]
    name = shown_path(path)
    return Shown(
        uri=_picture(places.get(path)),
        alt=f"{name}, which is {pair[0].labels[at]}",
        head=pair[0].labels[at],
        text=f"{', '.join(said)}; {name}",
    )


def _sure(run: Scored, at: int) -> str:
    """Return the probability of the class that a run named."""
    return percent(float(run.probabilities[at, run.classes.index(run.predicted[at])]))


def _picture(path: Path | None) -> str:
    """Return a picture for the page, "" if it is not there."""
    try:
        return picture_uri(open_rgb(path), _SIDE) if path is not None else ""
    except (BadImageError, OSError):
        return ""
