"""Opens a run folder to be looked at; what the folder may not name is refused first."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.followed import is_of_the_end
from src.missing import Missing
from src.rows import read_rows
from src.run import RunFolder
from src.run_rules import read_stored
from src.trained import Trained
from src.trust import Origin, check_names

_NEEDED = ("image_size", "resize", "batch_size")  # of a config's section data


def add_options(parser: ArgumentParser) -> None:
    """Add what `open_run` takes besides the folder: --data.root as `root`, and --trust_code."""
    parser.add_argument(
        "--data.root", dest="root", metavar="DIR", help="where the pictures are, if they have moved"
    )
    parser.add_argument(
        "--trust_code",
        action="append",
        default=[],
        metavar="PREFIX",
        help="classes of yours that the run may name, by the first part of their path",
    )


def open_run(path: Path, root: str | None = None, trust_code: Sequence[str] = ()) -> Trained:
    """Return a run folder's contents.

    Args:
        path: The run folder.
        root: Where its pictures are now; None means where they were.
        trust_code: Prefixes of class paths that the user vouches for.

    Raises:
        UserError: if this is no run folder, or its config can't be read or names what it must not.
    """
    folder = RunFolder(path).require("")
    config = _config(folder, trust_code)
    missing = Missing()
    record = missing.attempt("the record of the run", lambda: _record(folder)) or {}
    place = root or record.get("data", {}).get("root")
    rows = missing.attempt("the curves", lambda: _rows(folder)) or []
    summary = missing.attempt("the summary", lambda: _summary(folder.summary))
    ended = summary is None or is_of_the_end(summary, rows)
    return Trained(
        folder,
        config,
        record,
        (summary or {}) if ended else {},
        ended,
        rows,
        Path(place) if place else None,
        missing,
        tuple(trust_code),
    )


def _config(folder: RunFolder, trust_code: Sequence[str]) -> dict[str, Any]:
    path = folder.newest_config
    found = read_stored(folder)
    check_names(found, Origin(str(path), prefixes=tuple(trust_code), folder=folder.path))
    data = found.get("data")
    lacking = [key for key in _NEEDED if not isinstance(data, dict) or key not in data]
    if lacking:
        raise UserError(
            f"{path} is no config of a run: it has no data.{lacking[0]}. Bring it back."
        )
    return found


def _record(folder: RunFolder) -> dict[str, Any]:
    if not folder.record.is_file():
        raise UserError(f"there is no {folder.record.name}")
    found = folder.read_record()
    if not isinstance(found.get("data", {}), dict):
        raise UserError(f"{folder.record} is damaged: its data is no mapping")
    return found


def _rows(folder: RunFolder) -> list[dict[str, str]]:
    found = read_rows(folder.metrics)
    if not found:
        there = "holds no validation" if folder.metrics.is_file() else "is not there"
        raise UserError(f"{folder.metrics.name} {there}")
    return found


def _summary(path: Path) -> dict[str, Any]:
    """Return what the end of a run has written; empty if it has not ended."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path.name} is damaged: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("best", {}), dict):
        raise UserError(f"{path.name} is damaged: it holds no scores by their names")
    return found
