"""What a module does while it is scored: rows of logits now, one table at the end."""

# B batch, H, W pixels, C classes, P processes, K blocks of one process

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from src.table import Table

Batch = dict[str, Tensor]


class ScoredModule(LightningModule):
    """Gathers the logits of an evaluation from all processes, sorted by the index of the sample.

    Attributes:
        table: Of the latest evaluation; None before the first.
        flips: Whether an evaluation sees each picture mirrored too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table: Table | None = None
        self.flips = False
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def _collect(self, batch: Batch) -> None:
        logits = self(batch["image"]).float()
        if self.flips:
            logits = (logits + self(batch["image"].flip(2)).float()) / 2
        self._rows.append((batch["index"], batch["target"], logits))

    def finish(self) -> Table:
        """Gather the rows of all processes: [P, K * B, ...] -> one table sorted by index."""
        rows = [torch.cat(column) for column in zip(*self._rows, strict=True)]
        self._rows.clear()
        everyone: list[Any] = [self.all_gather(column) for column in rows]
        joined = [
            many.flatten(0, many.dim() - one.dim()).cpu().numpy()
            for many, one in zip(everyone, rows, strict=True)
        ]
        self.table = Table.from_rows(*joined)
        return self.table

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the logits of one block."""
        self._collect(batch)

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the logits of one block."""
        self._collect(batch)

    def on_test_epoch_end(self) -> None:
        """Make the table that test.json is read off."""
        self.finish()

    def on_predict_epoch_end(self) -> None:
        """Make the table that predictions.csv is read off."""
        self.finish()
