"""What is odd about files and classes, and falsifies no score.

N sound pictures.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from src.data.findings import Note
from src.data.looks import Looks
from src.data.remembered import Scan

TINY = 32  # pixels of the shorter side below which a picture is noted
EXTREME = 4.0  # ratio of the sides above which it is
_FAR = 5.0  # robust standard deviations from the median of its class
_FEWEST = 20  # pictures of a class below which nothing stands out


def notes_of(
    paths: Sequence[str], labels: Sequence[str], splits: Sequence[str], scans: Sequence[Scan]
) -> list[Note]:
    """Return what is odd about files and classes.

    Args:
        paths: Of the N sound pictures.
        labels: Theirs.
        splits: Theirs.
        scans: Theirs.
    """
    by_note: dict[str, list[str]] = defaultdict(list)
    for path, scan in zip(paths, scans, strict=True):
        for note in scan.notes:
            by_note[note].append(path)
        if min(scan.width, scan.height) < TINY:
            by_note[f"tiny: a side below {TINY} pixels"].append(path)
        if max(scan.width, scan.height) > EXTREME * min(scan.width, scan.height):
            by_note[f"extreme aspect: one side over {EXTREME:g} times the other"].append(path)
    found = [Note(note, tuple(files)) for note, files in sorted(by_note.items())]
    return [*_class_notes(labels, splits), *found]


def _class_notes(labels: Sequence[str], splits: Sequence[str]) -> list[Note]:
    """Return notes on imbalance, and on classes that a split lacks."""
    if any(splits):  # then what names none is trained on
        splits = [split or "train" for split in splits]
    counts = Counter(label for label in labels if label)
    notes = []
    if len(counts) > 1 and max(counts.values()) > 2 * min(counts.values()):
        (most, many), (least, few) = max_and_min(counts)
        notes.append(
            Note(
                f"imbalance: {many:,} of {most}, {few:,} of {least}; "
                "model.class_weights balanced or data.sampling balanced evens that out"
            )
        )
    pairs = set(zip(labels, splits, strict=True))
    for split in sorted(set(splits) - {""}):
        absent = [name for name in sorted(counts) if (name, split) not in pairs]
        if absent:
            notes.append(Note(f"{split} has no picture of {', '.join(absent)}"))
    return notes


def max_and_min(counts: Mapping[str, int]) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the most and the least frequent, the first by name of equals."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ordered[0], ordered[-1]


def outliers(
    paths: Sequence[str], labels: Sequence[str], looks: Looks, scans: Sequence[Scan]
) -> list[Note]:
    """Return the pictures that stand out of their class by brightness, sharpness or size.

    A value stands out if it is over 5 robust standard deviations (1.4826 times the median distance
    from the median) away; sharpness and size by their logarithms. Where most pictures are equal, a
    deviation counts as 5 grey levels or a factor of 1.2. No more than a hundredth of a class is
    named, the farthest.

    Args:
        paths: [N].
        labels: [N].
        looks: [N].
        scans: [N].
    """
    pixels = np.array([scan.width * scan.height for scan in scans], np.float64)
    measures = {
        "dark": (looks["brightness"].astype(np.float64), -1, 5.0),
        "bright": (looks["brightness"].astype(np.float64), 1, 5.0),
        "blurred": (np.log(looks["sharpness"] + 1.0).astype(np.float64), -1, np.log(1.2)),
        "small": (np.log(pixels), -1, np.log(1.2)),
        "large": (np.log(pixels), 1, np.log(1.2)),
    }
    notes = []
    by_class = _by_class(labels)
    for word, (values, sign, least) in measures.items():
        for name, here in by_class.items():
            if here.size >= _FEWEST and (at := _farthest(sign * values[here], least)).size:
                notes.append(
                    Note(f"unusually {word} for {name or 'the data'}", _named(paths, here[at]))
                )
    return notes


def _by_class(labels: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the positions of each class, by name."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, label in enumerate(labels):
        found[label].append(i)
    return {name: np.array(found[name], np.int64) for name in sorted(found)}


def _named(paths: Sequence[str], at: npt.NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(paths[i] for i in at.tolist())


def _farthest(values: npt.NDArray[np.float64], least: float) -> npt.NDArray[np.int64]:
    """Return the places of values far above the median, the farthest first, a hundredth at most."""
    middle = np.median(values)
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), least)
    far = np.flatnonzero(values - middle > _FAR * spread)
    most = max(1, len(values) // 100)
    return np.asarray(far[np.argsort(-values[far], kind="stable")][:most], np.int64)
