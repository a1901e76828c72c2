"""Labels that a run contradicts with confidence.

Confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068): a picture of another label
is counted for a class if its probability is at least the mean one of the pictures that bear that
label. Only pictures that the run was not trained on can say anything.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from src.data.findings import Note
from src.errors import UserError, typed
from src.run import RunFolder
from src.scored import COMMANDS, Scored, read_scored


def read_all_scored(run: RunFolder) -> list[Scored]:
    """Return what the run said of its validation and test pictures, of whichever it was scored on.

    Raises:
        UserError: if it was scored on neither.
    """
    there = [s for s, command in COMMANDS.items() if (run.path / f"{command}.json").is_file()]
    if not there:
        raise UserError(
            f"{run.path} was not scored, so it contradicts no label. Score it: python -m src.train "
            f"validate --run_dir {typed(run.path)}"
        )
    return [read_scored(run.path, split) for split in there]


def suspicious(scored: Iterable[Scored], paths: Iterable[str]) -> list[Note]:
    """Return the labels that a run contradicts, a note for each pair of classes, the surest first.

    Args:
        scored: What the run said.
        paths: The pictures to speak of.
    """
    there = set(paths)
    by_note: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for one in scored:
        for at in doubted(one):
            if one.paths[at] in there:
                own = float(one.probabilities[at, one.classes.index(one.labels[at])])
                what = f"labelled {one.labels[at]}, and the run is sure of {one.predicted[at]}"
                by_note[what].append((own, one.paths[at]))
    return [
        Note(note, tuple(path for _, path in sorted(found)))
        for note, found in sorted(by_note.items())
    ]


def doubted(scored: Scored) -> list[int]:
    """Return the places of pictures whose label a run contradicts with confidence."""
    places = {name: c for c, name in enumerate(scored.classes)}
    rows = np.flatnonzero([bool(label) for label in scored.labels])  # [L], of those with a label
    labels = np.array([places[scored.labels[at]] for at in rows], np.int64)  # [L]
    said = np.array([places[scored.predicted[at]] for at in rows], np.int64)  # [L]
    counts = np.bincount(labels, minlength=len(places))
    sums = np.bincount(labels, scored.probabilities[rows, labels], minlength=len(places))
    usual = np.where(counts, sums / np.maximum(counts, 1), np.inf)  # of nothing, nothing is usual
    sure = (said != labels) & (scored.probabilities[rows, said] >= usual[said])
    found: list[int] = rows[sure].tolist()
    return found
