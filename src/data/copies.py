"""Pictures that are nearly the same: made of one another by a new encoding, size, mirror or crop.

Three steps. Candidates: the lowest frequencies of a thumbnail are a direction in space; a copy's is
close to that of the whole picture, of its mirror image or of one of its crops. A k-d tree finds the
nearest, so no picture is compared with all others. Sieve: the two, at a quarter of the pixels, must
correlate. Proof: the thumbnails, brought over one another, must correlate, and so must what is left
of them without their blurred parts: two photographs of one scene share the latter, two copies the
former too.

N pictures, S side of a thumbnail, Q = S / 2, K frequencies along each axis, M candidates.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from src.data.looks import SIDE
from src.data.matching import (
    MIRRORED,
    WHOLE,
    Bytes,
    Flags,
    Floats,
    View,
    alike,
    correlations,
    crops_alike,
    cut,
    details,
)
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
# Share of even ground above which no crop is sought: a drawn digit or a cut-out fits a like one
# once it is moved and scaled. 2 % of the photographs have more, and nearly all drawn digits.
_EVEN = 0.4
_EVEN_LEVELS = 1.0  # less than that away from the mean of 5 x 5 pixels is even
_COARSE = SIDE // 2
_BLOCK = 4096  # thumbnails or pairs at a time, which bounds the memory


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
    search = Search(thumbs, usable, coarse[usable])
    views = [WHOLE, MIRRORED, *_crops()]
    hidden = None if show_progress else True  # None hides it where there is no terminal
    for view in tqdm(views, "looking for copies", leave=False, disable=hidden):
        if view.side == 1:
            search.tie_whole(view)
        else:
            search.gather_crops(view)
    search.tie_crops(hidden)
    return usable[np.array(sorted(search.found), np.int64).reshape(-1, 2)]


class Search:
    """What is known while copies are looked for; pictures are counted among the usable ones.

    Args:
        thumbs: All thumbnails, uint8 [N, S, S].
        usable: Those that are no flat ones, [U].
        coarse: Theirs, uint8 [U, Q, Q].
    """

    def __init__(self, thumbs: Bytes, usable: Ints, coarse: Bytes) -> None:
        from scipy.spatial import cKDTree  # not above: fit imports this file and looks for nothing

        self.thumbs, self.usable, self.coarse = thumbs, usable, coarse
        self.tree: Any = cKDTree(_directions(coarse, WHOLE))
        self.busy = np.flatnonzero(_blockwise(_evenness, coarse) <= _EVEN)
        self.ties = Ties()
        self.found: list[tuple[int, int]] = []
        self._crops: list[tuple[Ints, Floats, View]] = []  # pairs [M, 2], correlations, view

    def tie_whole(self, view: View) -> None:
        """Tie the pictures whose whole, or whose mirror image, another one shows.

        Where the nearest all turn out to be copies, they hide what lies behind: more are asked for.
        """
        rows, number = np.arange(len(self.coarse)), _NEAREST
        directions = _directions(self.coarse, view)
        while rows.size and number <= _MOST:
            places = self._near(directions[rows], number)
            pairs = self._untied(rows, places)
            one, other = self.usable[pairs].T
            copies = _pairwise(
                lambda a, b: alike(self.thumbs[a], self.thumbs[b], view.mirrored), one, other
            )
            self._tie(pairs[copies])
            rows = rows[self._tied(rows, places).all(axis=1)]
            number *= 4

    def gather_crops(self, view: View) -> None:
        """Note the pairs of which the second is roughly this part of the first."""
        places = self._near(_directions(self.coarse[self.busy], view), _NEAREST)
        pairs = self._untied(self.busy, places)
        scores = _pairwise(
            lambda a, b: correlations(
                _cut(self.coarse[a], view), self.coarse[b].astype(np.float32)
            ),
            *pairs.T,
        )
        rough = scores >= _ROUGHLY_ALIKE
        self._crops.append((pairs[rough], scores[rough], view))

    def tie_crops(self, hidden: bool | None = True) -> None:
        """Tie the pairs of which the second is a part of the first, seeking each one's place once.

        Where many pictures have much in common, as radiographs have, it takes the most time.
        """
        pairs = np.concatenate([pairs for pairs, _, _ in self._crops])
        scores = np.concatenate([scores for _, scores, _ in self._crops])
        parts = np.concatenate(
            [[view[:3]] * len(p) for p, _, view in self._crops if len(p)] or [[]]
        )
        order = np.lexsort((-scores, pairs[:, 1], pairs[:, 0]))
        first = np.ones(len(order), bool)
        first[1:] = (np.diff(pairs[order], axis=0) != 0).any(axis=1)
        pairs, parts = pairs[order[first]], parts.reshape(-1, 3)[order[first]]
        (one, other), (a, b) = self.usable[pairs].T, pairs.T
        starts = range(0, len(pairs), _BLOCK)
        for start in tqdm(starts, "comparing crops", leave=False, disable=hidden):
            at = np.arange(start, min(start + _BLOCK, len(pairs)))
            at = at[~self._tied(a[at], b[at, None])[:, 0]]
            if not at.size:
                continue
            small = self.coarse[a[at]], self.coarse[b[at]]
            copies = crops_alike(self.thumbs[one[at]], self.thumbs[other[at]], parts[at], small)
            self._tie(pairs[at][copies])

    def _near(self, directions: Floats, number: int) -> Ints:
        """Return the places of the nearest within the radius, [M, number]; U where none is."""
        _, places = self.tree.query(directions, number, distance_upper_bound=_RADIUS, workers=-1)
        return np.asarray(places, np.int64)

    def _untied(self, rows: Ints, places: Ints) -> Ints:
        """Return the pairs of a row and a place that are not tied, [P, 2]."""
        at, column = np.nonzero(~self._tied(rows, places) & (places < len(self.coarse)))
        return np.stack([rows[at], places[at, column]], axis=1)

    def _tied(self, rows: Ints, places: Ints) -> Flags:
        """Return whether what lies at each place is tied to its row, [M, number]."""
        numbers = np.append(self.ties.numbers(len(self.coarse)), -1)  # the last is for no place
        return np.asarray(numbers[places] == numbers[rows][:, None])

    def _tie(self, pairs: Ints) -> None:
        for a, b in pairs.tolist():
            if not self.ties.tied(a, b):
                self.ties.tie(a, b)
                self.found.append((min(a, b), max(a, b)))


def _evenness(coarse: Bytes) -> Floats:
    """Return the share of even ground of each picture, [M]."""
    away = np.abs(details(coarse.astype(np.float32)))
    return np.asarray((away < _EVEN_LEVELS).mean(axis=(1, 2)), np.float32)


def _cut(coarse: Bytes, view: View) -> Floats:
    return cut(coarse.astype(np.float32), [view[:3]])


def _pairwise(work: Callable[[Ints, Ints], Any], ones: Ints, others: Ints) -> Any:
    """Return what work returns for blocks of pairs, as one array."""
    starts = range(0, max(len(ones), 1), _BLOCK)
    blocks = (slice(start, start + _BLOCK) for start in starts)
    return np.concatenate([work(ones[at], others[at]) for at in blocks])


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
        values: Floats = block.reshape(-1, _COARSE * _COARSE).astype(np.float32) @ waves
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
