"""What a run folder says while its run trains; every file in it may be half there, or not at all.

The words and numbers are those of the page of `src.watch`. No path of the machine is among them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from src.followed import (
    LATEST_ROWS,
    Row,
    best_of,
    curves_of,
    is_of_the_end,
    known,
    number,
    progress_of,
    read_scores,
)
from src.run import RunFolder, shown_path

PICTURES = ("confusion", "train", "worst")  # kinds, as callbacks name their files
_FILE = re.compile(r"([a-z]+)-epoch-[0-9]+\.png")
_MOST_MISTAKES = 50
_FIRST_PATIENCE_SECONDS = 900.0  # the data may be decoded first, and the first epoch may be long
_LEAST_PATIENCE_SECONDS = 120.0


def state_of(folder: RunFolder, now: float) -> dict[str, Any]:
    """Return all that the page shows.

    Args:
        folder: The run folder; it need not exist yet.
        now: Seconds, by the clock of the files.
    """
    rows, config = read_scores(folder.metrics), _config(folder)
    trainer = _part(config, "trainer")
    status, message = _status(folder, rows, now)
    begun = _changed(folder.metrics) if status == "running" else 0.0
    since = max(0.0, now - begun) if begun else 0.0
    return {
        "name": folder.path.resolve().name,
        "about": _about(config),
        "status": status,
        "message": message,
        **progress_of(rows, trainer, since),
        "latest": rows[-1] if rows else None,
        "best": best_of(rows, config),
        "curves": curves_of(rows, trainer),
        "mistakes": _mistakes(folder),
        "pictures": _newest(folder),
    }


# What the run is, and whether it goes on


def _config(folder: RunFolder) -> Mapping[str, Any]:
    """Return the config of the latest sitting, an empty one if there is none that can be read."""
    try:
        path = folder.newest_config
        found = _parsed(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=4)
def _parsed(path: Path, changed: int) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _about(config: Mapping[str, Any]) -> str:
    """Return a line on what is trained."""
    net = _part(_part(config, "model"), "net").get("class_path")
    classes = _part(config, "data").get("classes")
    parts = [str(net).rpartition(".")[2]] if net else []
    parts += [f"{len(classes)} classes"] if isinstance(classes, list) else []
    return ", ".join(parts)


def _status(folder: RunFolder, rows: Sequence[Row], now: float) -> tuple[str, str]:
    """Return waiting, running, quiet or finished, and a sentence for whoever reads it."""
    if not folder.path.is_dir():
        return "waiting", "There is no such folder yet. The page waits for the run to begin."
    if not folder.config.is_file():
        return "waiting", "The folder holds no run yet. The page waits for the run to begin."
    news = max(map(_changed, (folder.newest_config, folder.metrics, folder.record, folder.last)))
    age, patience = now - news, _patience(rows)
    if _is_finished(folder, rows, age <= patience):
        return "finished", "The run has finished."
    if age > patience:
        ended = "it has ended early, or an epoch takes very long"
        return "quiet", f"No news for {_minutes(age)}: {ended}."
    if not rows:
        return "running", "The first epoch has no scores yet."
    return "running", "The run is training."


def _is_finished(folder: RunFolder, rows: Sequence[Row], is_fresh: bool) -> bool:
    """Return whether the summary is of the latest sitting, and not of one that was gone on with."""
    try:
        same = is_of_the_end(json.loads(folder.summary.read_text("utf-8")), rows)
    except (OSError, ValueError, AttributeError):
        return False
    goes_on = is_fresh and _changed(folder.metrics) > _changed(folder.summary)
    return same and not goes_on


def _patience(rows: Sequence[Row]) -> float:
    """Return for how many seconds a run may say nothing."""
    if not rows:
        return _FIRST_PATIENCE_SECONDS
    times = [0.0, *(known(row, "seconds") for row in rows[-LATEST_ROWS:])]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return max(_LEAST_PATIENCE_SECONDS, 4 * max(gaps[1:] or gaps))


def _changed(path: Path) -> float:
    """Return when a file was written, in seconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _minutes(seconds: float) -> str:
    whole = round(seconds / 60)
    return f"{whole} min" if whole < 120 else f"{whole // 60} h"


# What the callbacks have shown


def pictures_of(folder: RunFolder) -> dict[str, Path]:
    """Return the pictures of a run by name; links, and files of other names, are none."""
    try:
        found = list(folder.pictures.iterdir())
    except OSError:
        return {}
    return {p.name: p for p in found if _FILE.fullmatch(p.name) and not p.is_symlink()}


def _newest(folder: RunFolder) -> dict[str, dict[str, str]]:
    """Return the newest picture of each kind: its name, and a word that changes with it.

    Newest by time: a run that was cut back draws the pictures of an epoch again.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted(pictures_of(folder).values(), key=_changed):
        kind = path.name.partition("-")[0]
        if kind in PICTURES:
            found[kind] = {"name": path.name, "version": f"{_changed(path):.6f}"}
    return found


def _mistakes(folder: RunFolder) -> dict[str, Any] | None:
    """Return what RUN/tables/worst.json says; None if it is not there or not what we write."""
    try:
        found = json.loads((folder.tables / "worst.json").read_text("utf-8"))
        return {
            "epoch": int(found["epoch"]),
            "pictures": int(found["pictures"]),
            "mistakes": int(found["mistakes"]),
            "sheet": found["sheet"] if isinstance(found["sheet"], str) else None,
            "worst": [_mistake(one) for one in found["worst"][:_MOST_MISTAKES]],
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
        return None


def _mistake(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "path": shown_path(str(found["path"])),
        "label": str(found["label"]),
        "predicted": str(found["predicted"]),
        "probability": number(found["probability"]),
    }
