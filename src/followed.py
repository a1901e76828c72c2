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


def _is_count(value: float | None) -> bool:
    return value is not None and value >= 0


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


def steps_per_epoch(rows: Sequence[Row]) -> float:
    """Return how many steps an epoch has, as far as validations tell; 0 before the first."""
    return max((known(r, "step") / (known(r, "epoch") + 1) for r in rows), default=0.0)


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
    epochs = _above_zero(trainer.get("max_epochs"))
    last_seconds = known(rows[-1], "seconds") if rows else 0.0
    found = {"epoch": 0, "epochs": epochs, "elapsed_seconds": last_seconds + since}
    if not rows:
        return {**found, "share": None, "left_seconds": None}
    step, found["epoch"] = known(rows[-1], "step"), int(known(rows[-1], "epoch")) + 1
    ends = [epochs * steps_per_epoch(rows)] if epochs else []
    ends += [most] if (most := _above_zero(trainer.get("max_steps"))) else []
    if not ends or not step:
        return {**found, "share": None, "left_seconds": None}
    first = rows[-LATEST_ROWS] if len(rows) >= LATEST_ROWS else rows[0]
    steps, seconds = step - known(first, "step"), last_seconds - known(first, "seconds")
    pace = seconds / steps if steps > 0 else last_seconds / step
    left = max(0.0, (min(ends) - step) * pace - since)
    return {**found, "share": min(1.0, step / min(ends)), "left_seconds": left}


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


def curves_of(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """Return the curves over epochs, thinned out evenly where there are very many points."""
    every = math.ceil(len(rows) / _MOST_POINTS) or 1
    shown = [*reversed(rows[::-1][::every])]  # the latest is always among them
    steps = steps_per_epoch(rows) or 1.0
    return {
        "epoch": [known(row, "step") / steps for row in shown],
        **{name: [row.get(name) for row in shown] for name in CURVES},
    }
