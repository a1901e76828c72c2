"""What metrics.csv says of a run under way: how far it is, how long it takes, its curves."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.rows import is_lowest_best, read_rows

CURVES = ("train/loss", "val/loss", "train/accuracy", "val/accuracy", "lr")
LATEST_ROWS = 6  # whose pace the time left goes by
_MOST_POINTS = 400  # of a curve

Row = dict[str, float | None]


def read_scores(path: Path) -> list[Row]:
    """Return the rows of metrics.csv as numbers, None where one is missing or none.

    A file that is damaged has no rows; a run that goes on says what is wrong with it.
    """
    try:
        found = [{k: number(text) for k, text in row.items()} for row in read_rows(path)]
    except (OSError, UserError, csv.Error):
        return []
    counted = ("epoch", "step", "seconds")
    return [row for row in found if all(_is_count(row[name]) for name in counted)]


def is_of_the_end(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a summary.json was written after the last row of metrics.csv.

    Of a run that goes on, it is that of an earlier sitting.
    """
    final = summary.get("final")
    last = number(rows[-1].get("step")) if rows else None
    return not rows or (isinstance(final, dict) and last is not None and final.get("step") == last)


def _is_count(value: float | None) -> bool:
    return value is not None and 0 <= value < 2**53


def number(text: Any) -> float | None:
    """Return a finite number, None for anything else."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def known(row: Row, name: str) -> float:
    """Return a number that `read_scores` has made sure of."""
    value = row[name]
    assert value is not None
    return value


def steps_per_epoch(rows: Sequence[Row], interval: Any) -> float | None:
    """Return how many steps an epoch has, None before the validations tell.

    Args:
        rows: Of metrics.csv.
        interval: The Trainer's val_check_interval: a share of the epoch as a fraction, a whole
            number of batches, a time, or None for the whole epoch.
    """
    least = max((known(r, "step") / (known(r, "epoch") + 1) for r in rows), default=0.0)
    if not least or interval is None or (isinstance(interval, float) and interval >= 1):
        return least or None
    if known(rows[-1], "epoch") > 0:
        return max(least, _steps_between_epochs(rows, interval))
    if not isinstance(interval, float) or interval <= 0:
        return None
    return max(least, known(rows[-1], "step") / (len(rows) * interval))


def _steps_between_epochs(rows: Sequence[Row], interval: Any) -> float:
    """Return the steps from one epoch's first validation to the next one's; 0 if not known.

    They come equally far into their epochs, also where the interval does not divide the epoch.
    """
    latest = next(row for row in rows if row["epoch"] == rows[-1]["epoch"])
    epochs = known(latest, "epoch") - known(rows[0], "epoch")
    if not isinstance(interval, int | float) or not epochs:
        return 0.0
    return (known(latest, "step") - known(rows[0], "step")) / epochs


def progress_of(rows: Sequence[Row], trainer: Mapping[str, Any], since: float) -> dict[str, Any]:
    """Return how far the run is, and how long it will take.

    The pace is that of the latest validations, in wall seconds a step.

    Args:
        rows: Of metrics.csv.
        trainer: That part of the config.
        since: Seconds since the latest of them, 0 if the run does not go on.

    Returns:
        epoch (validated ones), epochs, share (0 to 1), elapsed_seconds, left_seconds; None what is
        not known.
    """
    last: Row = rows[-1] if rows else {"epoch": -1.0, "step": 0.0, "seconds": 0.0}
    found = {
        "epoch": int(known(last, "epoch")) + 1,
        "epochs": _above_zero(trainer.get("max_epochs")),
        "elapsed_seconds": known(last, "seconds") + since,
    }
    step, end = known(last, "step"), _last_step(rows, trainer)
    if not end or not step:
        return {**found, "share": None, "left_seconds": None}
    left = max(0.0, (end - step) * _pace(rows) - since)
    return {**found, "share": min(1.0, step / end), "left_seconds": left}


def _last_step(rows: Sequence[Row], trainer: Mapping[str, Any]) -> float | None:
    """Return the number of steps that the run ends after; None if it is not known."""
    epochs, most = _above_zero(trainer.get("max_epochs")), _above_zero(trainer.get("max_steps"))
    steps = steps_per_epoch(rows, trainer.get("val_check_interval"))
    if not epochs:
        return most
    if not steps:
        return None
    return min(epochs * steps, most or math.inf)


def _pace(rows: Sequence[Row]) -> float:
    """Return the wall seconds of a step by the latest validations; there is one with a step."""
    first, last = rows[-LATEST_ROWS:][0], rows[-1]
    steps = known(last, "step") - known(first, "step")
    if steps <= 0:
        return known(last, "seconds") / known(last, "step")
    return (known(last, "seconds") - known(first, "seconds")) / steps


def _above_zero(value: Any) -> int | None:
    """Return a limit of the Trainer's; -1 and None mean that there is none."""
    return value if isinstance(value, int) and value > 0 else None


def best_of(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return name, value and epoch of the best score by what the run monitors."""
    name = str(config.get("monitor"))
    lowest = is_lowest_best(name, config.get("monitor_mode"))
    scored = [row for row in rows if row.get(name) is not None]
    if not scored:
        return None
    sign = -1 if lowest else 1
    best = max(scored, key=lambda row: (sign * known(row, name), -(row["val/loss"] or 0.0)))
    return {"name": name, "value": best[name], "epoch": int(known(best, "epoch")) + 1}


def curves_of(rows: Sequence[Row], trainer: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Return the curves over epochs, thinned out evenly where there are very many points.

    While the length of an epoch is not known, the latest point stands at the end of the first one.

    Args:
        rows: Of metrics.csv.
        trainer: That part of the config.
    """
    every = math.ceil(len(rows) / _MOST_POINTS) or 1
    shown = [*reversed(rows[::-1][::every])]  # the latest is always among them
    steps = steps_per_epoch(rows, trainer.get("val_check_interval"))
    steps = steps or max((known(row, "step") for row in rows), default=0.0) or 1.0
    return {
        "epoch": [known(row, "step") / steps for row in shown],
        **{name: [row.get(name) for row in shown] for name in CURVES},
    }
