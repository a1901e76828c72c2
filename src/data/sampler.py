"""The order of the pictures: a pure function of (seed, epoch), in shards, resumable anywhere.

N: pictures, B: batch size of one process, W: processes, G = B * W: pictures of one step,
C: classes that have training pictures.

No generator lives here between two calls. The batches of an epoch are computed from the seed and
the epoch's number, so a resumed run, another number of workers or a look at an old batch all see
the same order.
"""

from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from src.errors import UserError

# (epoch, index of the sample, showing); index PADDING is a masked row. The showing is how often the
# epoch had this sample before, so that no two pictures of an epoch are augmented from one key.
Key = tuple[int, int, int]
PADDING = -1
Position = Callable[[], tuple[int, int]]  # () -> (epoch, first batch of it that is still to come)
Integers = npt.NDArray[np.int64]
_PACK_STREAM = 2  # in the last word of the counter; 0 orders an epoch, 1 augments


def epoch_order(seed: int, epoch: int, num_samples: int) -> Integers:
    """Return the permutation [N] of the samples in this epoch, the same on every process."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(num_samples)


def balanced_draws(seed: int, epoch: int, labels: Integers) -> tuple[Integers, Integers]:
    """Return N draws of an epoch, equally many of each class, and none by chance.

    Draw m of the whole run, of which epoch e holds e N to (e + 1) N - 1, goes to class m mod C.
    Each class deals its samples from one shuffled pack, round and round. So over one epoch, and
    over any number of epochs on end, the counts of two classes differ by at most 1, and so do the
    counts of two samples of a class. Then the epoch's draws are shuffled.

    Args:
        seed: Of the run.
        epoch: From 0.
        labels: The class of each sample, int64 [N]; classes without a sample get no draw.

    Returns:
        The samples [N] and, for each draw, its showing [N]: how often the sample was drawn before
        it in this epoch, counted before the draws are shuffled.
    """
    num_samples = len(labels)
    _, sizes = np.unique(labels, return_counts=True)  # [C]
    bits = np.random.Philox(key=[seed, 0], counter=[0, 0, 0, _PACK_STREAM])
    shuffled = np.random.Generator(bits).permutation(num_samples)
    packs = shuffled[np.argsort(labels[shuffled], kind="stable")]  # one pack behind another [N]
    bottoms = np.cumsum(sizes) - sizes  # where each pack begins [C]
    first = epoch * num_samples
    turns, owners = np.divmod(np.arange(first, first + num_samples), len(sizes))  # [N], [N]
    # The class's turns before this epoch: the m below `first` with m mod C = class.
    earlier = (first - np.arange(len(sizes)) + len(sizes) - 1) // len(sizes)  # [C]
    samples = packs[bottoms[owners] + turns % sizes[owners]]
    showings = (turns - earlier[owners]) // sizes[owners]
    order = epoch_order(seed, epoch, num_samples)
    return samples[order], showings[order]


class TrainBatches(Sampler[list[Key]]):
    """Batches of keys for one process.

    Step k of an epoch takes the next G of its N draws and deals them out evenly. A rest too small
    to give every process two samples (BatchNorm can't train on one) joins the step before it, so
    that no draw is left out and no batch is too small.

    Args:
        num_samples: N.
        batch_size: B, for each process.
        seed: Of the run.
        rank: Of this process.
        world_size: W.
        labels: The class of each sample, int64 [N], to draw the classes equally often; None draws
            every sample once. An epoch has N draws either way.

    Raises:
        UserError: if there are too few samples to give every process a batch.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        labels: Integers | None = None,
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
        self.rank, self.world_size, self.labels = rank, world_size, labels
        self.epoch, self.first = 0, 0

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch, whatever the position."""
        return self.num_batches

    def batch(self, epoch: int, number: int) -> list[int]:
        """Return the sample indices of one batch of this process."""
        return [index for _, index, _ in self.keys(epoch, number)]

    def keys(self, epoch: int, number: int) -> list[Key]:
        """Return one batch of this process."""
        return self._cut(epoch, self._draws(epoch), number)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the batches of `epoch` from batch `first` on."""
        epoch, draws = self.epoch, self._draws(self.epoch)
        for number in range(self.first, self.num_batches):
            yield self._cut(epoch, draws, number)

    def _draws(self, epoch: int) -> tuple[Integers, Integers]:
        """Return the samples [N] and the showings [N] of an epoch, of all processes."""
        if self.labels is not None:
            return balanced_draws(self.seed, epoch, self.labels)
        order = epoch_order(self.seed, epoch, self.num_samples)
        return order, np.zeros_like(order)

    def _cut(self, epoch: int, draws: tuple[Integers, Integers], number: int) -> list[Key]:
        """Return this process's part of one step."""
        start = number * self.step_size
        last = number == self.num_batches - 1
        size = self.num_samples - start if last else self.step_size
        share, more = divmod(size, self.world_size)  # the first `more` processes get one more
        start += self.rank * share + min(self.rank, more)
        mine = slice(start, start + share + (self.rank < more))
        return list(zip(repeat(epoch), draws[0][mine].tolist(), draws[1][mine].tolist()))


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
            yield [(0, i if i < self.num_samples else PADDING, 0) for i in rows]
