"""The order of the pictures: complete, in shards, the same for everyone, resumable anywhere.

N pictures, B batch size of one process, W processes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from src.data.loader import ResumableLoader
from src.data.sampler import (
    PADDING,
    EvaluationBlocks,
    Integers,
    Key,
    TrainBatches,
    balanced_draws,
    epoch_order,
)
from src.errors import UserError

Shape = tuple[int, int, int]  # N, B, W


@st.composite
def training_shapes(draw: st.DrawFn) -> Shape:
    batch_size, world_size = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    return draw(st.integers(min(2, batch_size) * world_size, 60)), batch_size, world_size


@st.composite
def evaluation_shapes(draw: st.DrawFn) -> Shape:
    world_size = draw(st.integers(1, 5))
    return draw(st.integers(world_size, 60)), draw(st.integers(1, 8)), world_size


def shards(shape: Shape, seed: int = 0, epoch: int = 0) -> list[list[list[int]]]:
    """Return the sample indices [W][batches][B] of a whole epoch."""
    num_samples, batch_size, world_size = shape
    found = []
    for rank in range(world_size):
        batches = TrainBatches(num_samples, batch_size, seed, rank, world_size)
        batches.epoch = epoch
        keys = list(batches)
        assert {(key[0], key[2]) for batch in keys for key in batch} == {(epoch, 0)}
        assert len(batches) == len(keys)
        found.append([[index for _, index, _ in batch] for batch in keys])
    return found


def flat(batches: Sequence[Sequence[Any]]) -> list[Any]:
    return [key for batch in batches for key in batch]


class TestTrainBatches:
    @given(training_shapes(), st.integers(0, 2**32 - 1), st.integers(0, 1000))
    @settings(deadline=None)
    def test_an_epoch_takes_every_sample_once_in_fit_batches(
        self, shape: Shape, seed: int, epoch: int
    ) -> None:
        num_samples, batch_size, world_size = shape
        found = shards(shape, seed, epoch)
        assert sorted(flat([flat(shard) for shard in found])) == list(range(num_samples))
        assert len({len(shard) for shard in found}) == 1
        for step in zip(*found, strict=True):
            sizes = [len(batch) for batch in step]
            assert min(sizes) >= min(2, batch_size)
            assert max(sizes) - min(sizes) <= 1  # dealt out evenly
            # what joins a step is less than 2 samples for each process
            assert sum(sizes) < (batch_size + 2) * world_size

    @given(training_shapes(), st.integers(0, 9))
    @settings(deadline=None)
    def test_a_step_holds_the_next_samples_of_the_order_whatever_the_world(
        self, shape: Shape, epoch: int
    ) -> None:
        steps = [flat(step) for step in zip(*shards(shape, 5, epoch), strict=True)]
        assert flat(steps) == epoch_order(5, epoch, shape[0]).tolist()

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((2, 32, 1), [[2]]),
            ((1, 1, 1), [[1]]),
            ((3, 1, 1), [[1, 1, 1]]),
            ((6, 3, 1), [[3, 3]]),
            ((7, 3, 1), [[3, 4]]),  # the remainder of 1 joins the step before
            ((8, 3, 1), [[3, 3, 2]]),
            ((3, 2, 1), [[3]]),
            ((15, 3, 2), [[3, 5], [3, 4]]),  # a rest of 3 gives no two samples to both
            ((16, 3, 2), [[3, 3, 2], [3, 3, 2]]),
            ((5, 1, 2), [[1, 2], [1, 1]]),  # B = 1 needs one sample for each process
            ((4, 32, 2), [[2], [2]]),
        ],
    )
    def test_sizes_by_hand(self, shape: Shape, expected: list[list[int]]) -> None:
        assert [[len(batch) for batch in shard] for shard in shards(shape)] == expected

    def test_order_is_the_documented_permutation(self) -> None:
        generator = np.random.Generator(np.random.Philox(key=[7, 3]))
        expected = generator.permutation(10).tolist()
        assert flat(shards((10, 4, 1), seed=7, epoch=3)[0]) == expected
        # numpy promises its streams: another release that broke this would break every resume
        assert expected == [8, 4, 5, 3, 6, 0, 9, 7, 1, 2]

    def test_order_differs_between_epochs_and_seeds(self) -> None:
        orders = {
            tuple(flat(shards((30, 4, 1), seed, epoch)[0]))
            for seed in (0, 1, 2)
            for epoch in range(4)
        }
        assert len(orders) == 12

    @given(training_shapes(), st.data())
    @settings(deadline=None)
    def test_first_leaves_the_earlier_batches_out(self, shape: Shape, data: st.DataObject) -> None:
        num_samples, batch_size, world_size = shape
        batches = TrainBatches(num_samples, batch_size, 1, world_size - 1, world_size)
        batches.epoch = 2
        whole = list(batches)
        batches.first = data.draw(st.integers(0, len(whole)))
        assert list(batches) == whole[batches.first :]
        assert len(batches) == len(whole)

    @given(training_shapes())
    @settings(deadline=None)
    def test_one_batch_can_be_asked_for(self, shape: Shape) -> None:
        num_samples, batch_size, world_size = shape
        for rank, shard in enumerate(shards(shape, seed=4, epoch=6)):
            batches = TrainBatches(num_samples, batch_size, 4, rank, world_size)
            assert [batches.batch(6, number) for number in range(len(batches))] == shard

    @pytest.mark.parametrize(
        ("shape", "match"),
        [
            ((1, 2, 1), "there are 1 training pictures, and a step needs at least 2: 2 for each"),
            ((0, 1, 1), "there are 0 training pictures, and a step needs at least 1"),
            ((3, 8, 2), r"at least 4: 2 for each of 2 process.* lower --trainer\.devices"),
            ((1, 1, 2), "at least 2: 1 for each of 2 process"),
        ],
    )
    def test_too_few_samples(self, shape: Shape, match: str) -> None:
        with pytest.raises(UserError, match=match):
            TrainBatches(shape[0], shape[1], 0, 0, shape[2])


@st.composite
def label_lists(draw: st.DrawFn) -> Integers:
    """Return labels [N], N from 6 to 60, of up to 5 classes; some classes may have no sample."""
    return np.array(draw(st.lists(st.integers(0, 4), min_size=6, max_size=60)), np.int64)


def balanced(
    labels: Integers, batch_size: int = 4, seed: int = 0, rank: int = 0, world_size: int = 1
) -> TrainBatches:
    return TrainBatches(len(labels), batch_size, seed, rank, world_size, labels)


def epoch_keys(batches: TrainBatches, epoch: int, first: int = 0) -> list[list[Key]]:
    batches.epoch, batches.first = epoch, first
    return list(batches)


def spread(counts: Sequence[int]) -> int:
    return max(counts) - min(counts)


class TestBalanced:
    @given(label_lists(), st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(1, 7))
    @settings(deadline=None)
    def test_classes_and_their_samples_come_equally_often_over_any_epochs_on_end(
        self, labels: Integers, seed: int, epoch: int, num_epochs: int
    ) -> None:
        shown: Counter[int] = Counter()
        for number in range(epoch, epoch + num_epochs):
            samples, _ = balanced_draws(seed, number, labels)
            assert len(samples) == len(labels)
            once = Counter(samples.tolist())
            for counts in (once, shown := shown + once):
                classes = {c: np.flatnonzero(labels == c).tolist() for c in set(labels.tolist())}
                per_class = [sum(counts[i] for i in rows) for rows in classes.values()]
                assert spread(per_class) <= 1
                for rows in classes.values():
                    assert spread([counts[i] for i in rows]) <= 1

    @given(label_lists(), st.integers(0, 50))
    @settings(deadline=None)
    def test_showings_count_from_0_for_every_sample(self, labels: Integers, epoch: int) -> None:
        samples, showings = balanced_draws(1, epoch, labels)
        for sample, count in Counter(samples.tolist()).items():
            assert sorted(showings[samples == sample].tolist()) == list(range(count))

    @given(label_lists(), st.integers(1, 3), st.integers(1, 6), st.integers(0, 9))
    @settings(deadline=None)
    def test_the_processes_share_the_draws_step_by_step(
        self, labels: Integers, world_size: int, batch_size: int, epoch: int
    ) -> None:
        found = [
            epoch_keys(balanced(labels, batch_size, 5, rank, world_size), epoch)
            for rank in range(world_size)
        ]
        samples, showings = balanced_draws(5, epoch, labels)
        whole = [(epoch, *draw) for draw in zip(samples.tolist(), showings.tolist(), strict=True)]
        assert flat([flat(step) for step in zip(*found, strict=True)]) == whole
        # of any number of processes: as many steps and sizes as without balancing
        uniform = shards((len(labels), batch_size, world_size), 5, epoch)
        sizes = [[len(batch) for batch in shard] for shard in found]
        assert sizes == [[len(batch) for batch in shard] for shard in uniform]

    @given(label_lists(), st.data())
    @settings(deadline=None)
    def test_any_batch_can_be_computed_alone(self, labels: Integers, data: st.DataObject) -> None:
        whole = epoch_keys(balanced(labels, 3, 9, 1, 2), 4)
        number = data.draw(st.integers(0, len(whole) - 1))
        fresh = balanced(labels, 3, 9, 1, 2)
        assert fresh.keys(4, number) == whole[number]
        assert fresh.batch(4, number) == [index for _, index, _ in whole[number]]
        assert epoch_keys(fresh, 4, first=number) == whole[number:]
        epoch_keys(fresh, 5)  # a look at another epoch leaves no trace
        assert epoch_keys(fresh, 4) == whole

    def test_three_classes_by_hand(self) -> None:
        labels = np.array([0, 1, 0, 2, 0, 1, 0, 0])  # five, two and one: 8 draws among 3 classes
        # Draw m goes to class m mod 3: 0..7, then 8..15, then 16..23.
        expected = [{0: 3, 1: 3, 2: 2}, {0: 3, 1: 2, 2: 3}, {0: 2, 1: 3, 2: 3}]
        dealt = []
        for epoch, counts in enumerate(expected):
            samples, showings = balanced_draws(0, epoch, labels)
            assert Counter(labels[samples].tolist()) == counts
            only_one = showings[samples == 3]  # class 2 has sample 3 alone
            assert sorted(only_one.tolist()) == list(range(counts[2]))
            dealt.append({i for i in samples.tolist() if labels[i] == 0})
        # Class 0 deals 3 of its 5, then the other 2 and the first again, then 2 of the first 3.
        assert (len(dealt[0]), len(dealt[1]), len(dealt[2])) == (3, 3, 2)
        assert dealt[0] | dealt[1] == {0, 2, 4, 6, 7}
        assert dealt[2] == dealt[0] - dealt[1]

    def test_draws_as_documented(self) -> None:
        labels = np.array([0, 1, 1, 1, 1])
        pack = np.random.Generator(np.random.Philox(key=[7, 0], counter=[0, 0, 0, 2]))
        shuffled = pack.permutation(5).tolist()
        _, b, c, _ = [i for i in shuffled if i > 0]  # the pack of class 1
        # Epoch 2 is draws 10 to 14, of the classes 0 1 0 1 0. Class 1 had turns 0 to 4 before.
        draws = [(0, 0), (b, 0), (0, 1), (c, 0), (0, 2)]
        order = np.random.Generator(np.random.Philox(key=[7, 2])).permutation(5).tolist()
        expected = [(2, *draws[i]) for i in order]
        assert flat(epoch_keys(balanced(labels, 2, seed=7), 2)) == expected
        # numpy promises its streams: another release that broke this would break every resume
        assert (b, c, order) == (1, 3, [1, 3, 4, 2, 0])

    def test_classes_alike_show_every_sample_once(self) -> None:
        labels = np.array([2, 0, 1, 0, 2, 1])
        for epoch in range(5):
            samples, showings = balanced_draws(3, epoch, labels)
            assert sorted(samples.tolist()) == list(range(6))
            assert showings.tolist() == [0] * 6

    def test_a_class_without_samples_gets_no_draws(self) -> None:
        with_gap, without = np.array([0, 3, 3, 3, 3]), np.array([0, 1, 1, 1, 1])
        for epoch in range(3):
            for one, other in zip(
                balanced_draws(2, epoch, with_gap), balanced_draws(2, epoch, without), strict=True
            ):
                assert one.tolist() == other.tolist()

    def test_epochs_and_seeds_differ(self) -> None:
        labels = np.array([0] * 20 + [1] * 10)
        orders = {
            tuple(balanced_draws(seed, epoch, labels)[0].tolist())
            for seed in (0, 1, 2)
            for epoch in range(4)
        }
        assert len(orders) == 12
        # the packs, too: which ones of the large class the first epoch shows
        chosen = {
            frozenset(i for i in balanced_draws(seed, 0, labels)[0].tolist() if i < 20)
            for seed in range(4)
        }
        assert len(chosen) == 4


def blocks(shape: Shape) -> list[list[list[Key]]]:
    num_samples, block_size, world_size = shape
    return [
        list(EvaluationBlocks(num_samples, block_size, rank, world_size))
        for rank in range(world_size)
    ]


class TestEvaluationBlocks:
    @given(evaluation_shapes())
    @settings(deadline=None)
    def test_every_sample_sits_in_its_block_once_on_any_number_of_processes(
        self, shape: Shape
    ) -> None:
        num_samples, block_size, world_size = shape
        found = blocks(shape)
        rows = [index for shard in found for block in shard for _, index, _ in block]
        assert sorted(index for index in rows if index != PADDING) == list(range(num_samples))
        for rank, shard in enumerate(found):
            for turn, block in enumerate(shard):
                assert len(block) == block_size
                number = turn * world_size + rank
                for row, key in enumerate(block):
                    place = number * block_size + row
                    assert key == (0, place if place < num_samples else PADDING, 0)

    @given(evaluation_shapes())
    @settings(deadline=None)
    def test_equally_many_blocks_for_each_process_and_none_too_many(self, shape: Shape) -> None:
        num_samples, block_size, world_size = shape
        lengths = {len(shard) for shard in blocks(shape)}
        assert lengths == {len(EvaluationBlocks(num_samples, block_size, 0, world_size))}
        (turns,) = lengths
        assert turns >= 1
        assert (turns - 1) * world_size * block_size < num_samples

    def test_by_hand(self) -> None:
        assert blocks((7, 3, 2)) == [
            [[(0, 0, 0), (0, 1, 0), (0, 2, 0)], [(0, 6, 0), (0, -1, 0), (0, -1, 0)]],
            [[(0, 3, 0), (0, 4, 0), (0, 5, 0)], [(0, -1, 0)] * 3],  # masked rows alone
        ]

    def test_fewer_samples_than_processes(self) -> None:
        assert len(EvaluationBlocks(3, 8, 2, 3)) == 1
        with pytest.raises(UserError, match="2 pictures to score on 3 processes; each needs one"):
            EvaluationBlocks(2, 8, 0, 3)


class Keys(Dataset[Any]):
    """A data set that hands back the keys it was asked for."""

    def __getitems__(self, keys: list[Key]) -> list[Key]:
        return keys


def as_it_is(batch: Any) -> Any:
    return batch


def loader(workers: int = 0) -> ResumableLoader:
    return ResumableLoader(
        Keys(),
        batch_sampler=TrainBatches(11, 3, seed=8),
        num_workers=workers,
        collate_fn=as_it_is,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )


def expected(epoch: int, first: int = 0) -> list[list[Key]]:
    batches = TrainBatches(11, 3, seed=8)
    batches.epoch, batches.first = epoch, first
    return list(batches)


both_workers = pytest.mark.parametrize("workers", [0, 2])


class TestResumableLoader:
    def test_asks_for_its_position_at_the_first_batch_and_once(self) -> None:
        asked = []

        def position() -> tuple[int, int]:
            asked.append(len(asked))
            return 1, 2

        found = loader()
        found.position = position
        iterator = iter(found)
        assert asked == []
        assert next(iterator) == expected(1, 2)[0]
        assert list(iterator) == expected(1, 2)[1:]
        assert asked == [0]

    @both_workers
    def test_takes_the_counters_that_were_set_after_the_iterator_was_made(
        self, workers: int
    ) -> None:
        counters = (0, 0)
        found = loader(workers)
        found.position = lambda: counters
        iterator: Iterator[Any] = iter(found)
        counters = (4, 1)
        assert list(iterator) == expected(4, 1)

    @both_workers
    def test_goes_on_into_whole_epochs(self, workers: int) -> None:
        positions = iter([(2, 3), (3, 0), (4, 0)])
        found = loader(workers)  # its workers stay for all three
        found.position = lambda: next(positions)
        assert [list(found) for _ in range(3)] == [expected(2, 3), expected(3), expected(4)]

    def test_without_a_position_it_starts_at_the_sampler(self) -> None:
        assert list(loader()) == expected(0)
        assert len(loader()) == 4  # 11 pictures in threes; the rest of 2 is a batch

    def test_has_no_state_of_its_own(self) -> None:
        found = loader()
        found.position = lambda: (1, 1)
        state = found.state_dict()
        assert state == {}
        found.load_state_dict(state)
        assert list(found) == expected(1, 1)
