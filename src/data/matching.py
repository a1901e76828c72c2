"""Whether thumbnails show what others do, or a part of it: many pairs at a time.

M pairs, S side of a picture in pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Parts = npt.NDArray[np.float64]  # side, x and y of a view each, [M, 3]

# Measured on 500 photographs of bee-wasp, each newly encoded, halved, mirrored, in grey and cropped
# to 0.9 of the sides at two places: the least of 99 % of the copies is behind each.
_ALIKE = 0.95  # correlation of the thumbnails: 0.97
_ALIKE_IN_DETAIL = 0.85  # and of what is left without the mean of 5 x 5 pixels around each: 0.92
_STEPS = (0.02, 0.01, 0.005)  # of the sides, in which a crop is looked for
_MOST_STEPS = 12  # of one length; a copy's place is found after 5 at most
_LEAST = 0.8  # share of the sides that a crop keeps
_BLOCK = 1024  # pairs at a time, which bounds the memory
_MOVES = np.array(
    [(1, -0.5, -0.5), (-1, 0.5, 0.5), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
)  # larger or smaller around the middle, or moved


class View(NamedTuple):
    """A part of a picture: the square of this side at x, y, as shares of the sides; mirrored?"""

    side: float = 1.0
    x: float = 0.0
    y: float = 0.0
    mirrored: bool = False


WHOLE, MIRRORED = View(), View(mirrored=True)


def alike(ones: Bytes, others: Bytes, mirrored: bool = False) -> Flags:
    """Return of each pair whether it shows the same, [M].

    Args:
        ones: Thumbnails, uint8 [M, S, S].
        others: Thumbnails, uint8 [M, S, S].
        mirrored: Whether the first ones are to be turned before.
    """

    def of_block(at: slice) -> Flags:
        first = ones[at, :, ::-1] if mirrored else ones[at]
        return _alike(first.astype(np.float32), others[at].astype(np.float32))

    return _in_blocks(of_block, len(ones))


def crops_alike(ones: Bytes, others: Bytes, parts: Parts, coarse: tuple[Bytes, Bytes]) -> Flags:
    """Return of each pair whether the second shows a part of the first, [M].

    Args:
        ones: Thumbnails, uint8 [M, S, S].
        others: Thumbnails, uint8 [M, S, S].
        parts: Where to begin to look.
        coarse: The same pairs with fewer pixels, by which the place is found.
    """

    def of_block(at: slice) -> Flags:
        small, small_others = (pictures[at].astype(np.float32) for pictures in coarse)
        place = _climb(small, small_others, parts[at], _STEPS)
        first, second = ones[at].astype(np.float32), others[at].astype(np.float32)
        place = _climb(first, second, place, _STEPS[-1:])
        return _alike(cut(first, place), second)

    return _in_blocks(of_block, len(ones))


def _in_blocks(work: Callable[[slice], Flags], count: int) -> Flags:
    starts = range(0, max(count, 1), _BLOCK)
    return np.concatenate([work(slice(start, start + _BLOCK)) for start in starts])


def _alike(ones: Floats, others: Floats) -> Flags:
    found = correlations(ones, others) >= _ALIKE
    found[found] = correlations(details(ones[found]), details(others[found])) >= _ALIKE_IN_DETAIL
    return np.asarray(found)


def _climb(ones: Floats, others: Floats, parts: Parts, steps: tuple[float, ...]) -> Parts:
    """Go from each part to that of the highest correlation, in ever smaller steps, [M, 3]."""
    parts = parts.copy()
    best = correlations(cut(ones, parts), others)
    for step in steps:
        going = np.arange(len(ones))
        for _ in range(_MOST_STEPS):
            tried = parts[going] + step * _MOVES[:, None]  # [6, G, 3]
            scores = np.stack([_score(ones[going], others[going], move) for move in tried])
            move = scores.argmax(axis=0)
            score = scores.max(axis=0)
            better = score > best[going] + 1e-5
            going = going[better]
            if not going.size:
                break
            best[going], parts[going] = score[better], tried[move[better], np.flatnonzero(better)]
    return parts


def _score(ones: Floats, others: Floats, parts: Parts) -> Floats:
    """Return how the parts correlate with the others, [M]; -1 for one that reaches outside."""
    side, x, y = parts.T
    ends = np.maximum(x, y) + side
    inside = (side >= _LEAST) & (np.minimum(x, y) >= -1e-9) & (ends <= 1 + 1e-9)
    scores = np.full(len(parts), -1, np.float32)
    scores[inside] = correlations(cut(ones[inside], parts[inside]), others[inside])
    return scores


def cut(pictures: Floats, parts: Any) -> Floats:
    """Return a part of each picture at the size of the whole, [M, S, S], pixels mixed linearly.

    Args:
        pictures: [M, S, S].
        parts: [M, 3], or [1, 3] for the same of all.
    """
    side, x, y = np.asarray(parts, np.float64).T
    down, across = (_mixing(start, side, pictures.shape[1]) for start in (y, x))
    return np.asarray(down @ pictures @ across.transpose(0, 2, 1))


def _mixing(start: Any, side: Any, pixels: int) -> Floats:
    """Return what mixes an interval of so many pixels out of those of the whole, [M, S, S]."""
    at = np.arange(pixels)
    wanted = (start[:, None] + side[:, None] * (at + 0.5) / pixels) * pixels - 0.5
    wanted = np.clip(wanted, 0, pixels - 1)
    left = np.minimum(wanted.astype(int), pixels - 2)
    rows = np.arange(len(start))[:, None]
    mixed = np.zeros((len(start), pixels, pixels), np.float32)
    mixed[rows, at, left] = 1 - (wanted - left)
    mixed[rows, at, left + 1] = wanted - left
    return mixed


def correlations(ones: Floats, others: Floats) -> Floats:
    """Return Pearson's correlation of each two pictures of [M, H, W], [M]; 0 where one is flat."""
    first = ones - ones.mean(axis=(1, 2), keepdims=True)
    second = others - others.mean(axis=(1, 2), keepdims=True)
    product, one, other = (
        np.einsum("mhw,mhw->m", a, b)
        for a, b in ((first, second), (first, first), (second, second))
    )
    return np.asarray(product / np.maximum(np.sqrt(one * other), 1e-6), np.float32)


def details(thumbs: Floats) -> Floats:
    """Return thumbnails less the mean of the 5 x 5 pixels around each, [M, S, S]."""
    padded = np.pad(thumbs, ((0, 0), (3, 2), (3, 2)), "edge")
    sums = np.cumsum(np.cumsum(padded, 1, np.float64), 2)
    means = sums[:, 5:, 5:] - sums[:, :-5, 5:] - sums[:, 5:, :-5] + sums[:, :-5, :-5]
    return np.asarray(thumbs - means / 25, np.float32)
