"""The draws of an augmentation are independent of one another, as if each had been tossed.

Every test counts decisions that are read off 10,000 augmented pictures. The keys are fixed, so the
counts are, too: nothing here flickers. The bounds are 99.9 % quantiles of chi-square.
"""

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from torch.utils.data import Dataset

from src.data.loader import ResumableLoader
from src.data.sampler import Key, TrainBatches
from src.data.transforms import Augmentation

Decisions = npt.NDArray[np.int64]  # [n, 5]: a decision of each kind for each picture


def spec(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"albumentations.{name}", "init_args": arguments}


# The first three draw from Python's generator, the last one from numpy's.
TRANSFORMS = [
    spec("RandomCrop", height=5, width=5),
    spec("HorizontalFlip", p=0.5),
    spec("VerticalFlip", p=0.5),
    spec("PixelDropout", dropout_prob=0.5, p=1),
]
KINDS = ("crop, down", "crop, across", "left-right flip", "top-bottom flip", "first pixel dropped")
SIZES = (3, 3, 2, 2, 2)  # outcomes of each kind, all equally likely
CODED = np.arange(1, 50, dtype=np.uint8).reshape(7, 7)  # no two pixels alike, none 0
PICTURE = np.ascontiguousarray(CODED[..., None].repeat(3, 2))
OUTCOMES = list(product(range(3), range(3), range(2), range(2)))  # all but the last kind
BOUND = {3: 16.27, 5: 20.51, 8: 26.12, 71: 113.58}  # degrees of freedom -> quantile


def result_of(down: int, across: int, left_right: int, top_bottom: int) -> npt.NDArray[np.uint8]:
    """Return what crop and flips make of the coded picture [5, 5]."""
    crop = CODED[down : down + 5, across : across + 5]
    crop = crop[:, ::-1] if left_right else crop
    return crop[::-1] if top_bottom else crop


RESULTS = np.array([result_of(*outcome) for outcome in OUTCOMES])  # [36, 5, 5]


def read(images: npt.NDArray[np.uint8]) -> Decisions:
    """Return the decisions [n, 5] that made these pictures [n, 5, 5, 3] of the coded one."""
    seen = images[:, None, :, :, 0]  # [n, 1, 5, 5]; 0 where a pixel was dropped
    fits = ((seen == RESULTS) | (seen == 0)).all((2, 3))  # [n, 36]
    assert (fits.sum(1) == 1).all()  # each can be told apart, though half of its pixels are gone
    dropped = images[:, 0, 0, 0] == 0
    return np.column_stack([np.array(OUTCOMES)[fits.argmax(1)], dropped])


def decide(augmentation: Augmentation, keys: Iterable[Key]) -> Decisions:
    return read(np.array([augmentation(PICTURE, *key) for key in keys]))


def chi_square(sizes: tuple[int, ...], *decisions: npt.NDArray[np.int64]) -> float:
    """Return chi-square of the joint counts against all outcomes being equally likely.

    The degrees of freedom are the number of outcomes less 1. Dependence shows, and a bias too.
    """
    counts = np.bincount(np.ravel_multi_index(decisions, sizes), minlength=int(np.prod(sizes)))
    even = len(decisions[0]) / len(counts)
    return float(((counts - even) ** 2 / even).sum())


def worst(one: Decisions, other: Decisions) -> tuple[float, str]:
    """Return the largest chi-square, as a share of its bound, of a decision here and one there."""
    found = []
    for a, b in product(range(5), range(5)):
        sizes = SIZES[a], SIZES[b]
        share = chi_square(sizes, one[:, a], other[:, b]) / BOUND[sizes[0] * sizes[1] - 1]
        found.append((share, f"{KINDS[a]} and the neighbour's {KINDS[b]}"))
    return max(found)


KEYS: list[Key] = [(epoch, index, 0) for epoch in range(0, 100, 2) for index in range(0, 400, 2)]
SEED = 20


def moved(epoch: int = 0, index: int = 0, showing: int = 0) -> list[Key]:
    """Return the keys' neighbours in one direction, none of which is a key itself."""
    return [(e + epoch, i + index, s + showing) for e, i, s in KEYS]


@pytest.fixture(scope="module")
def decisions() -> Decisions:
    """The decisions for KEYS [10,000, 5]."""
    return decide(Augmentation(TRANSFORMS, SEED), KEYS)


class TestOneSample:
    def test_every_combination_of_decisions_comes_equally_often(self, decisions: Decisions) -> None:
        # 72 combinations, 139 expected of each
        assert len(decisions) == 10_000
        assert chi_square(SIZES, *decisions.T) < BOUND[71]

    @pytest.mark.parametrize("pair", list(combinations(range(5), 2)), ids=str)
    def test_two_transforms_decide_independently(
        self, decisions: Decisions, pair: tuple[int, int]
    ) -> None:
        one, other = pair
        sizes = SIZES[one], SIZES[other]
        found = chi_square(sizes, decisions[:, one], decisions[:, other])
        assert found < BOUND[sizes[0] * sizes[1] - 1], f"{KINDS[one]} and {KINDS[other]}"


class TestNeighbours:
    @pytest.mark.parametrize(
        "step", [{"index": 1}, {"epoch": 1}, {"showing": 1}], ids=["sample", "epoch", "showing"]
    )
    def test_neighbours_decide_independently(
        self, decisions: Decisions, step: dict[str, int]
    ) -> None:
        others = decide(Augmentation(TRANSFORMS, SEED), moved(**step))
        share, where = worst(decisions, others)
        assert share < 1, where

    def test_runs_with_neighbouring_seeds_decide_independently(self, decisions: Decisions) -> None:
        share, where = worst(decisions, decide(Augmentation(TRANSFORMS, SEED + 1), KEYS))
        assert share < 1, where

    def test_the_same_run_decides_the_same(self, decisions: Decisions) -> None:
        backwards = decide(Augmentation(TRANSFORMS, SEED), reversed(KEYS))
        assert np.array_equal(backwards[::-1], decisions)


class Coded(Dataset[Any]):
    """The coded picture under every key."""

    def __init__(self) -> None:
        self.augmentation = Augmentation(TRANSFORMS, SEED)

    def __getitems__(self, keys: list[Key]) -> npt.NDArray[np.uint8]:
        return np.array([self.augmentation(PICTURE, *key) for key in keys])


def as_it_is(batch: Any) -> Any:
    return batch


def loaded(workers: int) -> list[Decisions]:
    """Return the decisions of an epoch's 100 batches of 100."""
    loader = ResumableLoader(
        Coded(),
        batch_sampler=TrainBatches(10_000, 100, SEED),
        num_workers=workers,
        collate_fn=as_it_is,
        multiprocessing_context="fork" if workers else None,
    )
    return [read(batch) for batch in loader]


class TestWorkers:
    def test_workers_decide_independently_and_as_one_process_does(self) -> None:
        batches = loaded(workers=2)  # they take turns: batch 0, 2, ... and batch 1, 3, ...
        share, where = worst(np.concatenate(batches[::2]), np.concatenate(batches[1::2]))
        assert share < 1, where
        assert np.array_equal(batches, loaded(workers=0))


class OneSeedForEach(Augmentation):
    """Seeds every transform with the same number, as `set_random_seed` of Albumentations does."""

    def _rekey(self, epoch: int, index: int, showing: int) -> None:
        number = hash((self.seed, epoch, index, showing)) % 2**32
        self._compose.set_random_seed(number)


class NoEpoch(Augmentation):
    """Forgets the epoch."""

    def _rekey(self, epoch: int, index: int, showing: int) -> None:
        super()._rekey(0, index, showing)


class TestTheMeasure:
    """The tests above go red for the faults that they are meant for."""

    def test_sees_transforms_that_agree(self) -> None:
        found = decide(OneSeedForEach(TRANSFORMS, SEED), KEYS)
        assert chi_square(SIZES, *found.T) > 100 * BOUND[71]
        assert chi_square((2, 2), found[:, 2], found[:, 3]) > 100 * BOUND[3]

    def test_sees_epochs_that_agree(self) -> None:
        augmentation = NoEpoch(TRANSFORMS, SEED)
        share, _ = worst(decide(augmentation, KEYS), decide(augmentation, moved(epoch=1)))
        assert share > 100

    def test_by_hand(self) -> None:
        heads, tails = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
        # 2, 1, 0, 1 where 1 is expected of each
        assert chi_square((2, 2), heads, tails) == 2
        assert read(PICTURE[None, 2:7, 1:6][:, ::-1]).tolist() == [[2, 1, 0, 1, 0]]
