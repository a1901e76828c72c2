"""Pictures that are nearly the same: made of one another by a new encoding, size, mirror or crop.

Three steps. Candidates: the lowest frequencies of a thumbnail are a direction in space; a copy's is
close to that of the whole picture, of its mirror image or of one of its crops. A k-d tree finds the
nearest, so no picture is compared with all others. Sieve: the two, at a quarter of the pixels, must
correlate. Proof: the thumbnails, brought over one another, must correlate, and so must what is left
of them without their blurred parts: two photographs of one scene share the latter, two copies the
former too.

N pictures, S side of a thumbnail, Q = S / 2, K frequencies along each axis, M candidates.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from src.data.looks import SIDE
from src.data.matching import MIRRORED, WHOLE, Bytes, Floats, View, correlations, is_copy, mixing
from src.data.ties import Ties

Ints = npt.NDArray[np.int64]

# Measured on 500 photographs of bee-wasp, each newly encoded, halved, mirrored, in grey and cropped
# to 0.9 of the sides at two places.
_K = 4  # with 5, a search among 100,000 takes half as long again; with 3, thrice the candidates
_RADIUS = 0.14  # between directions of length 1; 99 % of the crops are closer, all else is to 0.024
_ROUGHLY_ALIKE = 0.8  # correlation of Q x Q pixels before a crop's place is sought: 0.88 of 99 %
_NEAREST = 3  # candidates of each view: the picture itself may be one
_MOST = 192  # candidates at most, where all nearer ones are copies: hundreds of one picture
_FLAT = 2.0  # standard deviation in grey levels below which there is nothing to compare
_COARSE = SIDE // 2
_BLOCK = 4096  # thumbnails at a time, which bounds the memory


def _crops() -> list[View]:
    """Return crops of which one is near to any that keeps nine tenths of the sides or more."""
    grids = ((0.9, 5), (0.95, 3))
    return [
        View(side, x, y)
        for side, number in grids
        for x in np.linspace(0, 1 - side, number).tolist()
        for y in np.linspace(0, 1 - side, number).tolist()
    ]


def near_pairs(thumbs: Bytes, show_progress: bool = False) -> Ints:
    """Return pairs that tie all copies of a picture together, int64 [P, 2], the smaller first.

    Args:
        thumbs: Grey thumbnails, uint8 [N, S, S].
        show_progress: A bar on stderr, if that is a terminal.
    """
    coarse = _coarse(thumbs)
    usable = np.flatnonzero(_blockwise(lambda block: block.std(axis=(1, 2)), coarse) >= _FLAT)
    if usable.size < 2:
        return np.empty((0, 2), np.int64)
    coarse = coarse[usable]
    from scipy.spatial import cKDTree  # not above: fit imports this file and looks for nothing

    tree = cKDTree(_directions(coarse, WHOLE))
    ties, found = Ties(), list[tuple[int, int]]()
    views = [WHOLE, MIRRORED, *_crops()]
    bar = tqdm(views, "looking for copies", leave=False, disable=None if show_progress else True)
    for view in bar:
        for a, b in _candidates(tree, coarse, view, ties):
            if not ties.tied(a, b) and is_copy(thumbs[usable[a]], thumbs[usable[b]], view):
                ties.tie(a, b)
                found.append((min(a, b), max(a, b)))
    return usable[np.array(sorted(found), np.int64).reshape(-1, 2)]


def _candidates(tree: Any, coarse: Bytes, view: View, ties: Ties) -> Iterator[tuple[int, int]]:
    """Yield a, b where the view of a is close to b, the nearest alone.

    Where they all turn out to be copies of a, they hide what lies behind: more are then asked for.
    """
    directions = _directions(coarse, view)
    rows, number = np.arange(len(coarse)), _NEAREST
    while rows.size and number <= _MOST:
        _, places = tree.query(
            directions[rows], number, distance_upper_bound=_RADIUS, workers=-1
        )  # [M, number]
        untied = ~_tied(ties, rows, places, len(coarse))
        at, column = np.nonzero(untied & (places < len(coarse)))
        firsts, seconds = rows[at], places[at, column]
        for i in np.flatnonzero(_roughly_alike(coarse, firsts, seconds, view)).tolist():
            yield int(firsts[i]), int(seconds[i])
        rows = rows[_tied(ties, rows, places, len(coarse)).all(axis=1)]
        number *= 4


def _tied(ties: Ties, rows: Ints, places: Ints, count: int) -> npt.NDArray[np.bool_]:
    """Return whether what lies at each place, one of `count`, is tied to its row, [M, number]."""
    numbers = np.append(ties.numbers(count), -1)  # the place `count` is where none is near
    return np.asarray(numbers[places] == numbers[rows][:, None])


def _roughly_alike(coarse: Bytes, firsts: Ints, seconds: Ints, view: View) -> npt.NDArray[np.bool_]:
    """Return whether the view of each first one correlates with the second, [M].

    Where many pictures have much in common, such as products on white, this spares most proofs.
    """
    down, across = mixing(view.y, view.side, _COARSE), mixing(view.x, view.side, _COARSE)
    if view.mirrored:
        across = across[:, ::-1]

    def alike(at: Ints) -> npt.NDArray[np.bool_]:
        one = down @ coarse[firsts[at]].astype(np.float32) @ across.T  # [B, Q, Q]
        return correlations(one, coarse[seconds[at]].astype(np.float32)) >= _ROUGHLY_ALIKE

    found: npt.NDArray[np.bool_] = _blockwise(alike, np.arange(len(firsts)))
    return found


def _blockwise(work: Callable[[Any], npt.NDArray[Any]], rows: npt.NDArray[Any]) -> Any:
    """Return what work returns for blocks of rows, as one array."""
    starts = range(0, max(len(rows), 1), _BLOCK)
    return np.concatenate([work(rows[start : start + _BLOCK]) for start in starts])


def _coarse(thumbs: Bytes) -> Bytes:
    """Return thumbnails of a quarter of the pixels, uint8 [N, Q, Q]."""

    def halved(block: Bytes) -> Bytes:
        wide = block.astype(np.uint16)
        rows = wide[:, ::2] + wide[:, 1::2]
        return ((rows[:, :, ::2] + rows[:, :, 1::2] + 2) // 4).astype(np.uint8)

    coarse: Bytes = _blockwise(halved, thumbs)
    return coarse


def _directions(coarse: Bytes, view: View) -> Floats:
    """Return the low frequencies of a view of each picture, float32 [N, K * K - 1], length 1."""
    waves = _waves(view).reshape(-1, _COARSE * _COARSE).T

    def along(block: Bytes) -> Floats:
        values: Floats = block.reshape(len(block), -1).astype(np.float32) @ waves
        length = np.linalg.norm(values, axis=1, keepdims=True)
        return np.asarray(values / np.maximum(length, 1e-9))

    directions: Floats = _blockwise(along, coarse)
    return directions


@cache
def _waves(view: View) -> Floats:
    """Return the cosines of a view on the whole picture, zero outside, [K * K - 1, Q, Q]."""
    along = [_cosines(start, view.side) for start in (view.y, view.x)]
    if view.mirrored:
        along[1] = along[1] * (-1.0) ** np.arange(_K)[:, None]
    both = np.einsum("ay,bx->abyx", *along).reshape(_K * _K, _COARSE, _COARSE)
    return np.asarray(both[1:], np.float32)  # without the mean


def _cosines(start: float, side: float) -> npt.NDArray[np.float64]:
    """Return K cosines over the interval, [K, Q], each pixel counted as far as it lies inside."""
    left = np.arange(_COARSE) / _COARSE
    right = left + 1 / _COARSE
    covered = np.minimum(right, start + side) - np.maximum(left, start)
    place = ((left + right) / 2 - start) / side
    waves: npt.NDArray[np.float64] = np.cos(np.pi * np.arange(_K)[:, None] * place)
    return np.asarray(waves * np.clip(covered * _COARSE, 0, 1))
