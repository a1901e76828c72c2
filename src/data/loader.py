"""From keys to batches: a loader that goes on where a run broke off, with or without workers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from src.data.sampler import Key, Position
from src.data.workers import deaf_from_birth, start_method, start_worker


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

    def _get_iterator(self) -> Any:
        with deaf_from_birth():  # the workers start here, once
            return super()._get_iterator()

    def state_dict(self) -> dict[str, Any]:
        """Mark the loader as resumable for Lightning; there is nothing to save."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Accept the empty state."""


def make_loader(
    dataset: Dataset[Any], batches: Sampler[list[Key]], workers: int, device: torch.device
) -> ResumableLoader:
    """Return the loader of a data set that makes whole batches.

    Args:
        dataset: With `__getitems__`.
        batches: Their keys, in order.
        workers: Processes that make them; 0 leaves it to this one.
        device: Where they go: for a GPU they are pinned.
    """
    return ResumableLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_whole,
        worker_init_fn=start_worker,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        multiprocessing_context=start_method() if workers else None,
        generator=torch.Generator(),  # the default one is the training's own stream
    )


def _whole(batch: Any) -> Any:
    return batch
