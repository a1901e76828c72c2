"""What a run said of every picture it was scored on: `test.csv` beside `test.json`.

N pictures, C classes.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.calibration import Decision
from src.errors import UserError, typed
from src.rows import csv_text as csv_text
from src.run import write_blocks
from src.seal import mark_of
from src.table import UNLABELLED, Table

COMMANDS = {"test": "test", "val": "validate"}  # split -> the command that scores it
CHECKSUM = "csv_sha256"  # the key of test.json that ties test.csv to it
MARK = "checkpoint_checksum"  # the key that ties test.json to what was scored
_AT_ONCE = 100_000  # probabilities of a block: some MB of text
_FIRST = ("path", "label", "predicted_class")


def write_scored(
    path: Path, paths: Sequence[str], table: Table, classes: Sequence[str], decision: Decision
) -> str:
    """Write path, label, predicted_class, prob_<class>..., a row for each sample of the table.

    Probabilities have all their digits, so that two runs can be compared exactly.

    Args:
        path: test.csv or validate.csv; an old one is replaced.
        paths: Of the pictures, by sample index.
        table: The evaluation, N rows; finite logits.
        classes: The C names in the order of the logits.
        decision: How logits become probabilities and a class.

    Returns:
        The sha256 of the file.
    """
    digest = sha256()

    def blocks() -> Iterator[bytes]:
        for rows in _blocks(paths, table, classes, decision):
            block = csv_text(rows).encode("utf-8", "surrogateescape")
            digest.update(block)
            yield block

    write_blocks(path, blocks())
    return digest.hexdigest()


def _blocks(
    paths: Sequence[str], table: Table, classes: Sequence[str], decision: Decision
) -> Iterator[list[list[str]]]:
    """Yield the rows of the file, so many at once that their text stays small."""
    yield [_header(classes)]
    step = max(1, _AT_ONCE // len(classes))
    for start in range(0, len(table.index), step):
        some = slice(start, start + step)
        logits = table.logits[some]
        winners, shares = decision.predicted(logits), decision.probabilities(logits)
        columns = (table.index[some], table.target[some], winners, shares)
        yield [
            [
                paths[at],
                classes[true] if true != UNLABELLED else "",
                classes[winner],
                *map(repr, row),
            ]
            for at, true, winner, row in zip(*(c.tolist() for c in columns), strict=True)
        ]


def is_stale(folder: Path, found: Mapping[str, Any]) -> bool:
    """Return whether the checkpoint has been replaced since it was scored.

    Args:
        folder: The run folder.
        found: What test.json or validate.json says.
    """
    path = folder / "checkpoints" / Path(str(found["checkpoint"])).name
    return path.is_file() and MARK in found and mark_of(path) != found[MARK]


def _header(classes: Sequence[str]) -> list[str]:
    return [*_FIRST, *(f"prob_{name}" for name in classes)]


@dataclass(frozen=True, eq=False)
class Scored:
    """The labelled pictures that a run was scored on.

    Attributes:
        folder: The run.
        checkpoint: The file that was scored.
        classes: The C names in the order of the logits.
        fingerprint: Of the data.
        paths: Of the pictures, in the order of the data.
        labels: Their classes.
        predicted: What the run named them.
        probabilities: float64 [N, C].
    """

    folder: Path
    checkpoint: str
    classes: tuple[str, ...]
    fingerprint: str
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    probabilities: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each picture was named rightly, bool [N]."""
        pairs = zip(self.labels, self.predicted, strict=True)
        return np.array([label == predicted for label, predicted in pairs])


def read_scored(folder: Path, split: str) -> Scored:
    """Return what `test` or `validate` left in a run folder.

    Args:
        folder: The run folder.
        split: test or val.

    Raises:
        UserError: nothing lies there, or not what was written together.
    """
    command = COMMANDS[split]
    summary, rows = folder / f"{command}.json", folder / f"{command}.csv"
    again = f"Score the run: python -m src.train {command} --run_dir {typed(folder)}"
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder. Give run folders.")
    missing = [path.name for path in (summary, rows) if not path.is_file()]
    if missing:
        raise UserError(f"{folder} has no {' and no '.join(missing)}. {again}")
    try:
        found = json.loads(summary.read_text("utf-8"))
        data, expected = rows.read_bytes(), found.get(CHECKSUM)
        if sha256(data).hexdigest() != expected:
            raise UserError(f"{rows} is not the file that {summary.name} was made with. {again}")
        if is_stale(folder, found):
            raise UserError(
                f"{summary} is of an earlier {found['checkpoint']}: the run has gone on since. "
                f"{again}"
            )
        return _scored(folder, found, data.decode("utf-8", "surrogateescape"))
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{summary} is damaged ({type(error).__name__}: {error}). {again}"
        ) from error


def _scored(folder: Path, found: dict[str, Any], text: str) -> Scored:
    classes = tuple(map(str, found["classes"]))
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    labelled = [row for row in rows if row[1]]
    if header != _header(classes) or not labelled:
        raise ValueError(f"columns {header}, {len(labelled)} labelled rows")
    paths, labels, predicted, *shares = zip(*labelled, strict=True)
    if foreign := {*labels, *predicted} - {*classes}:
        raise ValueError(f"{', '.join(sorted(foreign))} is none of the classes")
    return Scored(
        folder,
        str(found["checkpoint"]),
        classes,
        str(found["data_fingerprint"]),
        paths,
        labels,
        predicted,
        np.array(shares, np.float64).T,
    )


def data_differences(one: Scored, other: Scored) -> str:
    """Return how the pictures of two runs differ, an empty string if they do not."""
    if one.classes != other.classes:
        return f"their classes are {', '.join(one.classes)} and {', '.join(other.classes)}"
    if len(one.paths) != len(other.paths):
        return f"there are {len(one.paths):,} and {len(other.paths):,}"
    for mine, theirs in zip(_rows(one), _rows(other), strict=True):
        if mine != theirs:
            return f"where one has {mine[0]} ({mine[1]}), the other has {theirs[0]} ({theirs[1]})"
    if one.fingerprint != other.fingerprint:
        return (
            "they have the same names and not the same content (fingerprints "
            f"{one.fingerprint[:12]} and {other.fingerprint[:12]})"
        )
    return ""


def _rows(run: Scored) -> list[tuple[str, str]]:
    """Return name and label; of a path outside the data's root, the name alone is the picture's."""
    names = (
        path.rpartition("/")[2] if path[:1] == "/" or path[1:3] == ":/" else path
        for path in run.paths
    )
    return list(zip(names, run.labels, strict=True))
