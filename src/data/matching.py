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
# Highest mean square of what differs in 3 x 3 pixels, over what is usual in that pair: it tells an
# insect that has moved before a fixed camera from the noise of an encoding. Of 250 such photographs
# it lost 42 copies with white cut off, 6 of a gamma curve and 1 of 64 pixels; of 800 pictures
# before 8 backgrounds, with insects from a twentieth to a fifth of the width, 4 pairs remained.
_STANDS_OUT, _STANDS_OUT_OF_CROP = 25.0, 45.0
_LEFT_BY_CROP = 0.5  # of what tells wholes that correlate apart: else the place explains nothing
_SPOT = 3  # pixels
_SHIFTED = 0.001  # share of the squared gradient that a place that is not quite met leaves
_ROUNDED = 0.25  # mean square of what rounding to grey levels leaves of two pictures, in levels
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
        second = others[at].astype(np.float32)
        return _alike(first.astype(np.float32), second, _STANDS_OUT)

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
        part = cut(first, place)
        whole = _unlike(first, second)
        explains = (whole > 1 - _ALIKE) | (_unlike(part, second) < _LEFT_BY_CROP * whole)
        return explains & _alike(part, second, _STANDS_OUT_OF_CROP)

    return _in_blocks(of_block, len(ones))


def _in_blocks(work: Callable[[slice], Flags], count: int) -> Flags:
    starts = range(0, max(count, 1), _BLOCK)
    return np.concatenate([work(slice(start, start + _BLOCK)) for start in starts])


def _unlike(ones: Floats, others: Floats) -> Floats:
    return 1 - correlations(ones, others)


def _alike(ones: Floats, others: Floats, most: float) -> Flags:
    found = correlations(ones, others) >= _ALIKE
    found[found] = correlations(details(ones[found]), details(others[found])) >= _ALIKE_IN_DETAIL
    found[found] = standing_out(ones[found], others[found]) <= most
    return np.asarray(found)


def standing_out(ones: Floats, others: Floats) -> Floats:
    """Return how far the spot that differs most stands out of what else differs, [M].

    The brightness of one is matched to the other's before, by the curve that fits better.
    """
    there, back = _differences(ones, others), _differences(others, ones)
    return np.asarray(np.where(there[0] <= back[0], there[1], back[1]), np.float32)


def _differences(ones: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return the share of variance that differs, and by how much the worst spot does, [M] each."""
    matched = _toned(ones, others)
    square = (others - matched) ** 2
    usual = square.mean(axis=(1, 2))
    edges = np.maximum(_gradients(others), _gradients(matched))
    allowed = usual[:, None, None] + _SHIFTED * _means(edges, _SPOT) + _ROUNDED
    worst = (_means(square, _SPOT) / allowed).max(axis=(1, 2), initial=0)
    return usual / np.maximum(others.var(axis=(1, 2)), 1e-6), worst


def _toned(ones: Floats, others: Floats) -> Floats:
    """Return the first pictures in the brightness of the others, by a cubic curve each, [M, S, S].

    A line would do for brightness and contrast; gamma and what is cut off at white bend it.
    """
    pixels = ones.shape[1] * ones.shape[2]
    grey = (ones - ones.mean(axis=(1, 2), keepdims=True)).reshape(len(ones), pixels)
    grey /= np.maximum(ones.std(axis=(1, 2)), 1e-6)[:, None]
    powers = np.stack([grey**power for power in range(4)], axis=2).astype(np.float64)
    across = powers.transpose(0, 2, 1)
    square = across @ powers + 1e-3 * np.eye(4)  # two grey levels have no cubic curve
    curve = np.linalg.solve(square, across @ others.reshape(len(ones), pixels, 1))
    return np.asarray((powers @ curve).reshape(ones.shape), np.float32)


def _gradients(pictures: Floats) -> Floats:
    """Return the squared gradients, [M, S, S]; zero at the margins."""
    found = np.zeros_like(pictures)
    found[:, 1:-1] = (pictures[:, 2:] - pictures[:, :-2]) ** 2 / 4
    found[:, :, 1:-1] += (pictures[:, :, 2:] - pictures[:, :, :-2]) ** 2 / 4
    return found


def _means(pictures: Floats, side: int) -> Floats:
    """Return the mean of each square of so many pixels, [M, S - side + 1, S - side + 1]."""
    sums = np.cumsum(np.cumsum(np.pad(pictures, ((0, 0), (1, 0), (1, 0))), 1, np.float64), 2)
    found = sums[:, side:, side:] - sums[:, :-side, side:]
    found += sums[:, :-side, :-side] - sums[:, side:, :-side]
    return np.asarray(found / side**2, np.float32)


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
    padded = np.pad(thumbs, ((0, 0), (2, 2), (2, 2)), "edge")
    return np.asarray(thumbs - _means(padded, 5), np.float32)
