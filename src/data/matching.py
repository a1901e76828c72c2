"""Whether one thumbnail shows what another does, or a part of it.

S side of a thumbnail.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from src.data.looks import SIDE

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Measured on 500 photographs of bee-wasp, each newly encoded, halved, mirrored, in grey and cropped
# to 0.9 of the sides at two places: the least of 99 % of the copies is behind each.
_ALIKE = 0.95  # correlation of the thumbnails: 0.97
_ALIKE_IN_DETAIL = 0.85  # and of what is left without the mean of 5 x 5 pixels around each: 0.92
_STEPS = (0.02, 0.01, 0.005)  # of the sides, in which a crop is looked for
_LEAST = 0.8  # share of the sides that a crop keeps


class View(NamedTuple):
    """A part of a picture: the square of this side at x, y, as shares of the sides; mirrored?"""

    side: float = 1.0
    x: float = 0.0
    y: float = 0.0
    mirrored: bool = False


WHOLE, MIRRORED = View(), View(mirrored=True)


def is_copy(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], view: View = WHOLE) -> bool:
    """Return whether a thumbnail shows what a view of another one does.

    Args:
        one: uint8 [S, S], of which the view is taken; of a crop, the best one near it.
        other: uint8 [S, S].
        view: Where to look.
    """
    first, second = one.astype(np.float32), other.astype(np.float32)
    if view.mirrored:
        first = first[:, ::-1]
    if view.side < 1:
        first = _part(first, _best_crop(first, second, view))
    if _correlation(first, second) < _ALIKE:
        return False
    return _correlation(_details(first), _details(second)) >= _ALIKE_IN_DETAIL


def _best_crop(one: Floats, other: Floats, view: View) -> View:
    """Climb from a crop to that of the highest correlation, in ever smaller steps."""
    best = _correlation(_part(one, view), other)
    for step in _STEPS:
        while True:
            moves = _moves(view, step)
            scores = [_correlation(_part(one, move), other) for move in moves]
            at = int(np.argmax(scores)) if scores else -1
            if at < 0 or scores[at] <= best + 1e-5:
                break
            best, view = scores[at], moves[at]
    return view


def _moves(view: View, step: float) -> list[View]:
    """Return the crops one step away: larger or smaller around the middle, or moved."""
    tried = [
        View(view.side + grow, view.x + right - grow / 2, view.y + down - grow / 2)
        for grow, right, down in (
            (step, 0, 0), (-step, 0, 0), (0, step, 0), (0, -step, 0), (0, 0, step), (0, 0, -step),
        )
    ]  # fmt: skip
    ends = 1 + 1e-9
    return [
        v
        for v in tried
        if _LEAST <= v.side <= 1 and min(v.x, v.y) >= -1e-9 and max(v.x, v.y) + v.side <= ends
    ]


def _part(thumb: Floats, view: View) -> Floats:
    """Return a crop at the size of the whole, [S, S], pixels mixed linearly."""
    return np.asarray(mixing(view.y, view.side) @ thumb @ mixing(view.x, view.side).T)


def mixing(start: float, side: float, pixels: int = SIDE) -> Floats:
    """Return what mixes an interval of so many pixels out of those of the whole, square."""
    at = np.arange(pixels)
    places = np.clip((start + side * (at + 0.5) / pixels) * pixels - 0.5, 0, pixels - 1)
    left = np.minimum(places.astype(int), pixels - 2)
    mixed = np.zeros((pixels, pixels), np.float32)
    mixed[at, left] = 1 - (places - left)
    mixed[at, left + 1] = places - left
    return mixed


def _correlation(one: Floats, other: Floats) -> float:
    """Return Pearson's correlation of two pictures, -1 to 1; 0 where one is flat."""
    return float(correlations(one[None], other[None])[0])


def correlations(ones: Floats, others: Floats) -> Floats:
    """Return Pearson's correlation of each two pictures of [M, H, W], [M]."""
    first = ones - ones.mean(axis=(1, 2), keepdims=True)
    second = others - others.mean(axis=(1, 2), keepdims=True)
    product, one, other = (
        np.einsum("mhw,mhw->m", a, b)
        for a, b in ((first, second), (first, first), (second, second))
    )
    return np.asarray(product / np.maximum(np.sqrt(one * other), 1e-6), np.float32)


def _details(thumb: Floats) -> Floats:
    """Return the thumbnail less the mean of the 5 x 5 pixels around each, [S, S]."""
    padded = np.pad(thumb, 2, "edge")
    sums = np.cumsum(np.cumsum(np.pad(padded, ((1, 0), (1, 0))), 0, np.float64), 1)
    means = (sums[5:, 5:] - sums[:-5, 5:] - sums[5:, :-5] + sums[:-5, :-5]) / 25
    return np.asarray(thumb - means, np.float32)
