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
_BLOCK = 9  # pictures of one call
_SAME = 1e-6  # probabilities that differ by noise alone

Predict = Callable[[Pixels], npt.NDArray[np.float32]]  # uint8 [N, S, S, 3] -> float32 [N, C]


class StoppedError(Exception):
    """Nobody waits for the answer any longer."""


class Square(NamedTuple):
    """A part of the map, in cells from 0 to CELLS."""

    row: int
    column: int
    height: int
    width: int


class Occlusion(NamedTuple):
    """How the probability of a class falls where parts are hidden.

    Attributes:
        falls: Mean fall where a cell is hidden, float64 [CELLS, CELLS], -1 to 1.
        lowest: The lowest probability of the class with any part hidden.
        part: What is hidden then.
    """

    falls: npt.NDArray[np.float64]
    lowest: float
    part: Square


def occlusion(
    pixels: Pixels,
    predict: Predict,
    target: int,
    probability: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Occlusion:
    """Hide a square of the picture at every place, under its mean colour, and ask again.

    Args:
        pixels: uint8 [S, S, 3].
        predict: The model.
        target: The class that is asked for, 0 to C - 1.
        probability: Of it, with nothing hidden.
        stopped: Whether the answer is not wanted any longer.

    Returns:
        The falls, and the part that matters most.

    Raises:
        StoppedError: it was stopped.
    """
    edges = [round(k * pixels.shape[0] / CELLS) for k in range(CELLS + 1)]
    mean = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    places = [(row, column) for row in _starts() for column in _starts()]
    said: list[float] = []
    for start in range(0, len(places), _BLOCK):
        if stopped():
            raise StoppedError
        block = [_hide(pixels, edges, *at, mean) for at in places[start : start + _BLOCK]]
        said += predict(np.stack(block))[:, target].tolist()
    falls = np.zeros((CELLS, CELLS))
    for (row, column), left in zip(places, said, strict=True):
        falls[_cells(row), _cells(column)] += probability - left
    return Occlusion(falls / _WIDE**2, min(said), _most(places, said, falls))


def _most(
    places: list[tuple[int, int]], said: list[float], falls: npt.NDArray[np.float64]
) -> Square:
    """Return the part that lowers the probability most; of equal ones, the hottest."""
    parts = [(_cells(row), _cells(column)) for row, column in places]
    lowest = [at for at, left in zip(parts, said, strict=True) if left <= min(said) + _SAME]
    rows, columns = max(lowest, key=lambda at: falls[at].sum())
    return Square(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)


def _starts() -> range:
    """Return the first cells of the squares; the outermost reach over the edge."""
    return range(1 - _WIDE, CELLS)


def _cells(start: int) -> slice:
    return slice(max(0, start), min(CELLS, start + _WIDE))


def _hide(
    pixels: Pixels, edges: list[int], row: int, column: int, colour: npt.NDArray[np.uint8]
) -> Pixels:
    made = pixels.copy()
    rows, columns = _cells(row), _cells(column)
    made[edges[rows.start] : edges[rows.stop], edges[columns.start] : edges[columns.stop]] = colour
    return made
