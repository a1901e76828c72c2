"""What in a picture drives a decision, by hiding parts of it: needs the model's answers alone.

Occlusion sensitivity (Zeiler and Fergus 2014, arXiv 1311.2901). S side of a picture, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from src.preprocess import Pixels

CELLS = 8  # of a map, along each side
_WIDE = 2  # cells that are hidden at once, along each side
_BLOCK = 27  # pictures of one call: a third of all places

Predict = Callable[[Pixels], npt.NDArray[np.float32]]  # uint8 [N, S, S, 3] -> float32 [N, C]


class Occlusion(NamedTuple):
    """How the probability of a class falls where parts are hidden.

    Attributes:
        falls: Mean fall where a cell is hidden, float64 [CELLS, CELLS], -1 to 1.
        lowest: The lowest probability of the class with any part hidden.
    """

    falls: npt.NDArray[np.float64]
    lowest: float


def occlusion(pixels: Pixels, predict: Predict, target: int, probability: float) -> Occlusion:
    """Hide a square of the picture at every place, under its mean colour, and ask again.

    Args:
        pixels: uint8 [S, S, 3].
        predict: The model.
        target: The class that is asked for, 0 to C - 1.
        probability: Of it, with nothing hidden.
    """
    side = pixels.shape[0]
    edges = [round(k * side / CELLS) for k in range(CELLS + 1)]
    places = [(row, column) for row in _starts() for column in _starts()]
    hidden = np.stack([_hide(pixels, edges, *place) for place in places])
    blocks = range(0, len(hidden), _BLOCK)
    said = np.concatenate([predict(hidden[k : k + _BLOCK])[:, target] for k in blocks])
    falls = np.zeros((CELLS, CELLS))
    for place, left in zip(places, said.tolist(), strict=True):
        falls[_cells(place[0]), _cells(place[1])] += probability - left
    return Occlusion(falls / _WIDE**2, float(said.min()))


def _starts() -> range:
    """Return the first cells of the squares; the outermost reach over the edge."""
    return range(1 - _WIDE, CELLS)


def _cells(start: int) -> slice:
    return slice(max(0, start), min(CELLS, start + _WIDE))


def _hide(pixels: Pixels, edges: list[int], row: int, column: int) -> Pixels:
    made = pixels.copy()
    rows, columns = _cells(row), _cells(column)
    made[edges[rows.start] : edges[rows.stop], edges[columns.start] : edges[columns.stop]] = (
        pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    )
    return made
