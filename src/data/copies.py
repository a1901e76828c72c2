"""Pictures that are nearly the same: made of one another by a new encoding, size, mirror or crop.

Two steps. Candidates: the lowest frequencies of a thumbnail are a direction in space; a copy's is
close to that of the whole picture, of its mirror image or of one of its crops. A k-d tree finds the
nearest, so no picture is compared with all others. Proof: the thumbnails, brought over one another,
must correlate, and so must what is left of them without their blurred parts: two photographs of one
scene share the latter, two copies the former too.

N pictures, S side of a thumbnail, K frequencies along each axis, M candidates.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from src.data.looks import SIDE

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_K = 5  # with 4, five times as many candidates; 6 finds no more
_NEAREST = 3  # candidates of each view: the picture itself may be one, an exact pair another
_RADIUS = 0.20  # between directions of length 1: the crops of 90 % came to 0.13 at most
_FLAT = 2.0  # standard deviation in grey levels below which there is nothing to compare
_ALIKE = 0.95  # correlation of the thumbnails
_ALIKE_IN_DETAIL = 0.85  # and of what is left without the mean of 5 x 5 pixels around each
_STEPS = (0.02, 0.01, 0.005)  # of the sides, in which a crop is looked for
_LEAST = 0.8  # share of the sides that a crop keeps


class View(NamedTuple):
    """A part of a picture: the square of this side at x, y, as shares of the sides; mirrored?"""

    side: float = 1.0
    x: float = 0.0
    y: float = 0.0
    mirrored: bool = False


WHOLE, MIRRORED = View(), View(mirrored=True)


def _crops() -> list[View]:
    """Return crops of which one is near to any that keeps nine tenths of the sides or more."""
    grids = ((0.9, 5), (0.95, 3))
    return [
        View(side, x, y)
        for side, number in grids
        for x in np.linspace(0, 1 - side, number).tolist()
        for y in np.linspace(0, 1 - side, number).tolist()
    ]


def near_pairs(thumbs: npt.NDArray[np.uint8], show_progress: bool = False) -> Ints:
    """Return pairs of pictures that are copies of one another, int64 [P, 2], the smaller first.

    Args:
        thumbs: Grey thumbnails, uint8 [N, S, S].
        show_progress: A bar on stderr, if that is a terminal.
    """
    usable = np.flatnonzero(thumbs.reshape(len(thumbs), -1).std(axis=1) >= _FLAT)
    if usable.size < 2:
        return np.empty((0, 2), np.int64)
    kept = thumbs[usable]
    from scipy.spatial import cKDTree  # not above: fit imports this file and looks for nothing

    tree = cKDTree(_directions(kept, WHOLE))
    found: set[tuple[int, int]] = set()
    views = [WHOLE, MIRRORED, *_crops()]
    bar = tqdm(views, "looking for copies", leave=False, disable=None if show_progress else True)
    for view in bar:
        for a, b in _candidates(tree, kept, view):
            pair = (min(a, b), max(a, b))
            if pair not in found and is_copy(kept[a], kept[b], view):
                found.add(pair)
    return usable[np.array(sorted(found), np.int64).reshape(-1, 2)]


def _candidates(tree: Any, thumbs: npt.NDArray[np.uint8], view: View) -> Iterator[tuple[int, int]]:
    """Yield a, b where the view of a is close to b; each pair once where the view is of no part."""
    _, places = tree.query(
        _directions(thumbs, view), _NEAREST, distance_upper_bound=_RADIUS, workers=-1
    )
    rows, columns = np.nonzero(places < len(thumbs))
    for a, b in zip(rows.tolist(), places[rows, columns].tolist(), strict=True):
        if a < b or (a > b and view.side < 1):
            yield a, b


def _directions(thumbs: npt.NDArray[np.uint8], view: View) -> Floats:
    """Return the low frequencies of a view of each thumbnail, float32 [N, K * K - 1], length 1."""
    waves = _waves(view).reshape(-1, SIDE * SIDE).T
    blocks = np.array_split(thumbs, max(1, len(thumbs) // 4096))  # bounds the memory of float32
    rows = [block.reshape(len(block), -1).astype(np.float32) @ waves for block in blocks]
    values = np.concatenate(rows)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9))


@cache
def _waves(view: View) -> Floats:
    """Return the cosines of a view on the whole thumbnail, zero outside, [K * K - 1, S, S]."""
    along = [_cosines(start, view.side) for start in (view.y, view.x)]
    if view.mirrored:
        along[1] = along[1] * (-1.0) ** np.arange(_K)[:, None]
    both = np.einsum("ay,bx->abyx", *along).reshape(_K * _K, SIDE, SIDE)
    return np.asarray(both[1:], np.float32)  # without the mean


def _cosines(start: float, side: float) -> npt.NDArray[np.float64]:
    """Return K cosines over the interval, [K, S], each pixel counted as far as it lies inside."""
    left = np.arange(SIDE) / SIDE
    right = left + 1 / SIDE
    inside = np.clip((np.minimum(right, start + side) - np.maximum(left, start)) * SIDE, 0, 1)
    place = ((left + right) / 2 - start) / side
    waves: npt.NDArray[np.float64] = inside * np.cos(np.pi * np.arange(_K)[:, None] * place)
    return waves


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
    return np.asarray(_mixing(view.y, view.side) @ thumb @ _mixing(view.x, view.side).T)


def _mixing(start: float, side: float) -> Floats:
    """Return what mixes S pixels of an interval out of the S of the whole, [S, S]."""
    places = np.clip((start + side * (np.arange(SIDE) + 0.5) / SIDE) * SIDE - 0.5, 0, SIDE - 1)
    left = np.minimum(places.astype(int), SIDE - 2)
    mixed = np.zeros((SIDE, SIDE), np.float32)
    mixed[np.arange(SIDE), left] = 1 - (places - left)
    mixed[np.arange(SIDE), left + 1] = places - left
    return mixed


def _correlation(one: Floats, other: Floats) -> float:
    """Return Pearson's correlation of two thumbnails, -1 to 1; 0 where one is flat."""
    first, second = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / scale if scale > 1e-6 else 0.0


def _details(thumb: Floats) -> Floats:
    """Return the thumbnail less the mean of the 5 x 5 pixels around each, [S, S]."""
    padded = np.pad(thumb, 2, "edge")
    sums = np.cumsum(np.cumsum(np.pad(padded, ((1, 0), (1, 0))), 0, np.float64), 1)
    means = (sums[5:, 5:] - sums[:-5, 5:] - sums[5:, :-5] + sums[:-5, :-5]) / 25
    return np.asarray(thumb - means, np.float32)


def groups_of(pairs: Sequence[tuple[int, int]] | Ints) -> list[list[int]]:
    """Return the sets of things that pairs tie together, each sorted, by their first member."""
    parent: dict[int, int] = {}

    def top(a: int) -> int:
        while parent.setdefault(a, a) != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        return a

    for a, b in pairs:
        low, high = sorted((top(int(a)), top(int(b))))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for a in sorted(parent):
        groups.setdefault(top(a), []).append(a)
    return sorted(groups.values())
