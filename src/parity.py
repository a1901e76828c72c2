"""Whether an exported model says of files what training says of them.

N pictures, S their side, C classes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from src.bundle import MODELS, Bundle
from src.calibration import Decision
from src.errors import RunFailureError
from src.intervals import wilson_interval
from src.known import PixelSource, blocks

PICTURES = 32
TOLERANCE = 1e-4  # between two probabilities
_REPEATS = 5
_RANGES = {"fp32": "32-bit floats", "fp16": "half precision", "int8": "its 8-bit maps"}

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Expected:
    """What the trained network says of pictures on the disk.

    Attributes:
        paths: The N files.
        logits: float32 [N, C].
        decision: How they become probabilities and a class.
    """

    paths: Sequence[Path]
    logits: npt.NDArray[Any]
    decision: Decision


def check_parity(bundle: Bundle, expected: Expected) -> dict[str, Any]:
    """Let the bundle predict each file by itself, from the disk to the class.

    Returns:
        pictures, largest_difference (of any probability) and tolerance.

    Raises:
        RunFailureError: a probability differs by more than TOLERANCE, or a class differs.
    """
    wanted = expected.decision.probabilities(expected.logits)
    classes = expected.decision.predicted(expected.logits)
    worst, faults = 0.0, []
    for i, path in enumerate(expected.paths):
        found = bundle.probabilities(bundle.pixels(path)[None])
        apart = float(np.abs(found[0] - wanted[i]).max())
        worst = max(worst, apart)
        said = int(bundle.predicted(found)[0])
        if not apart <= TOLERANCE or said != classes[i]:
            names = bundle.classes[int(classes[i])], bundle.classes[said]
            shares = wanted[i, classes[i]], found[0, classes[i]]
            faults.append(
                f"{path.name}: {names[0]} became {names[1]}, {apart:.2g} apart, p({names[0]}) "
                f"{shares[0]:.7f} and {shares[1]:.7f}"
            )
    if faults:
        raise RunFailureError(
            f"the exported model disagrees with the trained one on {len(faults)} of "
            f"{len(expected.paths)} pictures ({'; '.join(faults[:3])}); allowed are {TOLERANCE:g} "
            "and the same class. No bundle was written."
        )
    return {
        "pictures": len(expected.paths),
        "largest_difference": worst,
        "tolerance": TOLERANCE,
    }


def scored(
    bundle: Bundle, said: npt.NDArray[Any], target: npt.NDArray[Any], exact: npt.NDArray[Any]
) -> dict[str, Any]:
    """Return how right a model is on labelled pictures, and how far from the exact one.

    Args:
        bundle: The model.
        said: Its probabilities, [N, C].
        target: Their classes, int64 [N].
        exact: The probabilities of the fp32 model, [N, C].

    Returns:
        n, accuracy, accuracy_interval (95 %), loss (nats), largest_difference (of a probability
        from the exact one) and other_classes (how many pictures it names otherwise).
    """
    right = int((bundle.predicted(said) == target).sum())
    truth = np.maximum(said[np.arange(len(target)), target].astype(np.float64), 1e-12)
    return {
        "n": len(target),
        "accuracy": right / len(target),
        "accuracy_interval": list(wilson_interval(right, len(target))),
        "loss": float(-np.log(truth).mean()),
        "largest_difference": float(np.abs(said - exact).max()),
        "other_classes": int((bundle.predicted(said) != bundle.predicted(exact)).sum()),
    }


def probabilities_of(
    bundles: Sequence[Bundle], pixels: PixelSource
) -> list[npt.NDArray[np.float32]]:
    """Return what each model says of all pictures, float32 [N, C]; each picture is read once.

    Raises:
        RunFailureError: some of it is not finite.
    """
    said: list[list[npt.NDArray[np.float32]]] = [[] for _ in bundles]
    for block in blocks(pixels):
        for bundle, rows in zip(bundles, said, strict=True):
            rows.append(_finite(bundle, block))
    return [np.concatenate(rows) for rows in said]


def _finite(bundle: Bundle, block: Pixels) -> npt.NDArray[np.float32]:
    found = bundle.probabilities(block)
    if not np.isfinite(found).all():
        remedy = "" if bundle.variant == "fp32" else f" Leave out --{bundle.variant}."
        raise RunFailureError(
            f"{MODELS[bundle.variant]} gives probabilities that are not finite: its numbers "
            f"leave the range of {_RANGES[bundle.variant]}. No bundle was written.{remedy}"
        )
    return found


def pictures_per_second(bundles: Sequence[Bundle], block: Pixels) -> list[float]:
    """Time models in turns on one block of pictures; medians, without decoding."""
    seconds: list[list[float]] = [[] for _ in bundles]
    for turn in range(_REPEATS + 1):
        for bundle, taken in zip(bundles, seconds, strict=True):
            start = time.perf_counter()
            bundle.probabilities(block)
            if turn:  # the first one warms up
                taken.append(time.perf_counter() - start)
    return [len(block) / median(taken) for taken in seconds]
