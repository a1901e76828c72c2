"""The order of the pictures: a pure function of (seed, epoch), in shards, resumable anywhere.

N: pictures, B: batch size of one process, W: processes, G = B * W: pictures of one step.

No generator lives here between two calls. The batches of an epoch are computed from the seed and
the epoch's number, so a resumed run, another number of workers or a look at an old batch all see
the same order.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Sampler

from src.errors import UserError

Key = tuple[int, int]  # (epoch, index of the sample; PADDING for a masked row)
PADDING = -1
Position = Callable[[], tuple[int, int]]  # () -> (epoch, first batch of it that is still to come)


def epoch_order(seed: int, epoch: int, num_samples: int) -> npt.NDArray[np.int64]:
    """Return the permutation [N] of the samples in this epoch, the same on every process."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(num_samples)


class TrainBatches(Sampler[list[Key]]):
    """Batches of (epoch, index) keys for one process.

    Step k of an epoch takes the next G of its N samples and deals them out evenly. A rest too small
    to give every process two samples (BatchNorm can't train on one) joins the step before it, so
    that no sample is left out and no batch is too small.

    Args:
        num_samples: N.
        batch_size: B, for each process.
        seed: Of the run.
        rank: Of this process.
        world_size: W.

    Raises:
        UserError: if there are too few samples to give every process a batch.
    """

    def __init__(
        self, num_samples: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        least = min(2, batch_size) * world_size
        if num_samples < least:
            raise UserError(
                f"there are {num_samples} training pictures, and a step needs at least {least}: "
                f"{least // world_size} for each of {world_size} process(es). "
                "Add pictures, or lower --trainer.devices."
            )
        step_size = batch_size * world_size
        full, rest = divmod(num_samples, step_size)
        self.num_batches = full + (rest >= least) if full else 1
        self.num_samples, self.step_size, self.seed = num_samples, step_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first = 0, 0

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch, whatever the position."""
        return self.num_batches

    def batch(
        self, epoch: int, number: int, order: npt.NDArray[np.int64] | None = None
    ) -> list[int]:
        """Return the sample indices of one batch of this process."""
        order = epoch_order(self.seed, epoch, self.num_samples) if order is None else order
        start = number * self.step_size
        last = number == self.num_batches - 1
        step = order[start:] if last else order[start : start + self.step_size]
        return [int(i) for i in np.array_split(step, self.world_size)[self.rank]]

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the batches of `epoch` from batch `first` on."""
        epoch, order = self.epoch, epoch_order(self.seed, self.epoch, self.num_samples)
        for number in range(self.first, self.num_batches):
            yield [(epoch, i) for i in self.batch(epoch, number, order)]


class EvaluationBlocks(Sampler[list[Key]]):
    """Equal blocks of samples in index order; sample i always sits in block i // B.

    The last block is filled up with masked rows, and whole blocks are dealt to the processes, so
    that a network sees the same batch around a sample on any number of processes. Every process
    gets equally many blocks, at least one; the surplus ones hold masked rows alone.

    Args:
        num_samples: N.
        block_size: B.
        rank: Of this process.
        world_size: W.

    Raises:
        UserError: if there are fewer samples than processes.
    """

    def __init__(
        self, num_samples: int, block_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if num_samples < world_size:
            raise UserError(
                f"there are {num_samples} pictures to score on {world_size} processes; "
                "each needs one. Lower --trainer.devices."
            )
        self.num_samples, self.block_size = num_samples, block_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        """Return the number of blocks of each process."""
        blocks = -(-self.num_samples // self.block_size)
        return -(-blocks // self.world_size)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield this process's blocks: rank, rank + W, rank + 2 W, ..."""
        for turn in range(len(self)):
            start = (turn * self.world_size + self.rank) * self.block_size
            rows = range(start, start + self.block_size)
            yield [(0, i if i < self.num_samples else PADDING) for i in rows]


class ResumableLoader(DataLoader[Any]):
    """A DataLoader that asks for its position when the first batch is fetched, not before.

    Lightning makes the iterator before it has set the epoch and, on a resume, before it has
    restored its counters (upstream issue 21938). The position comes from those counters, which
    every checkpoint holds, so this loader has no state of its own.
    """

    position: Position | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Return an iterator whose body runs at the first `next()`."""

        def lazily() -> Iterator[Any]:
            if self.position is not None:
                batches: Any = self.batch_sampler
                batches.epoch, batches.first = self.position()
            yield from super(ResumableLoader, self).__iter__()

        return lazily()

    def state_dict(self) -> dict[str, Any]:
        """Mark the loader as resumable for Lightning; there is nothing to save."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Accept the empty state."""
