"""How good a network is on the dark, the blurred, the small pictures, and on the others.

N pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.intervals import wilson_interval

LEAST = 10  # pictures of a third; fewer say nothing
NAMES = {
    "brightness": ("dark", "medium", "bright"),
    "sharpness": ("soft", "medium", "sharp"),
    "size": ("small", "medium", "large"),
}


@dataclass(frozen=True)
class Slice:
    """A third of the pictures by one measure.

    Attributes:
        measure: A key of NAMES.
        name: Which third.
        low: The measure's lowest value in it.
        high: Its highest.
        n: Number of pictures.
        accuracy: Share of them named rightly, 0 to 1.
        interval: Its 95 % interval (Wilson).
    """

    measure: str
    name: str
    low: float
    high: float
    n: int
    accuracy: float
    interval: tuple[float, float]


def slices(
    measures: Mapping[str, npt.NDArray[np.float64]], right: npt.NDArray[np.bool_]
) -> list[Slice]:
    """Cut the pictures into thirds by each measure; equal values stay together.

    Args:
        measures: A key of NAMES -> float64 [N].
        right: Whether each picture was named rightly, bool [N].

    Returns:
        Nothing for a measure of which any third would hold less than LEAST pictures.
    """
    found = []
    for measure, values in measures.items():
        if not values.size:
            continue
        third = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="left")
        if np.bincount(third, minlength=3).min() >= LEAST:
            found += [_slice(measure, k, values, right, third == k) for k in range(3)]
    return found


def _slice(
    measure: str,
    k: int,
    values: npt.NDArray[np.float64],
    right: npt.NDArray[np.bool_],
    here: npt.NDArray[np.bool_],
) -> Slice:
    n, hits = int(here.sum()), int(right[here].sum())
    low, high = float(values[here].min()), float(values[here].max())
    return Slice(measure, NAMES[measure][k], low, high, n, hits / n, wilson_interval(hits, n))
