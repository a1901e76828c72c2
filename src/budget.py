"""How many epochs fit into a time, and what their parts take."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from src.pace import autocast, seconds_of

_SECONDS = 1.0  # for the measurement
_MARGIN = 0.05  # of the time left: machines are not always as fast as in the moment
_BETWEEN = 0.5  # seconds of an epoch's end: scores and checkpoints
_END = 2.0  # seconds after the last one
# Half of what a report takes: seconds, and how often it validates or does as much. The tenth by
# which a run may be late has room for the other half.
_REPORT, _LOOKS = 8.0, 4.0


@dataclass(frozen=True)
class Budget:
    """Seconds of the parts of a training.

    Attributes:
        step: A training step and its batch.
        steps: Of an epoch.
        validation: All of its blocks.
        after: What follows the last epoch.
    """

    step: float
    steps: int
    validation: float
    after: float = _END

    @property
    def of_epoch(self) -> float:
        """Seconds of an epoch with its validation."""
        return self.steps * self.step + self.validation + _BETWEEN

    def epochs(self, seconds: float) -> int:
        """Return how many epochs end within so many seconds, at least 1."""
        return max(1, int(((1 - _MARGIN) * seconds - self.after) // self.of_epoch))


def seconds_after(validation: float, report: bool) -> float:
    """Return the seconds from the last epoch to the end of the program.

    Args:
        validation: Seconds of all blocks.
        report: Whether a report is written.
    """
    return _END + (_REPORT + _LOOKS * validation if report else 0.0)


def seconds_to_validate(
    net: nn.Module, blocks: Iterator[Any], device: torch.device, precision: str
) -> float:
    """Return the seconds of one block of a validation, without gradients, on a copy.

    Args:
        net: It takes uint8 [B, H, W, 3].
        blocks: Of the validation; without one it takes no time.
        device: Where it is computed.
        precision: As for `trainer.precision`.
    """
    first = next(blocks, None)
    if first is None:
        return 0.0
    copied = copy.deepcopy(net).to(device).eval()

    def once() -> None:
        batch = next(blocks, first)
        with torch.inference_mode(), autocast(device, precision):
            copied(batch["image"].to(device))

    return seconds_of(once, _SECONDS, device)
