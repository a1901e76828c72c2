"""Rows of CSV without any library: how a table is written, and metrics.csv read."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from src.errors import UserError

COLUMNS = (
    "epoch", "step", "train/loss", "train/accuracy", "val/loss", "val/loss_calibrated",
    "val/accuracy", "val/accuracy_argmax", "val/f1", "val/auroc", "lr", "seconds",
    "images_per_second",
)  # fmt: skip
NEW = {"val/loss_calibrated"}  # what tables of older runs lack


def is_lowest_best(monitor: str, mode: str | None) -> bool:
    """Return whether a low score is a good one: as `monitor_mode` says, else for every loss."""
    return mode == "min" if mode else "/loss" in monitor


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv, none if there is no file; a torn last line is left out.

    Raises:
        UserError: if it is no such table.
    """
    if not path.exists():
        return []
    whole, _, _ = path.read_text("utf-8", errors="replace").rpartition("\n")
    header = whole.split("\n", 1)[0].split(",")
    if whole and [name for name in COLUMNS if name in header or name not in NEW] != header:
        raise UserError(
            f"{path} is damaged: its first line is not {','.join(COLUMNS)}. Bring it back, or move "
            "it away to go on without the earlier rows."
        )
    return [row for row in csv.DictReader(whole.splitlines()) if None not in row.values()]


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV that reads back as it was, whatever characters a file name holds."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    # csv leaves a lone carriage return bare, and then reads it as the end of the line.
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if "\r" in "".join(row) else plain).writerow(row)
    return text.getvalue()
