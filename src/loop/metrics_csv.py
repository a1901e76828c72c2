"""metrics.csv: a row per validation, the truth that every logger mirrors."""

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from src.rows import COLUMNS, read_rows
from src.run import write_text


class MetricsCsv(Callback):
    """Adds a row after every validation; on a resume, drops those that came after the checkpoint.

    `lr` is the rate of the latest step, the highest of all parameter groups (the head's, where
    layers have rates of their own); `seconds` is the wall time of training so far, over all
    sittings of the run; `images_per_second` counts training pictures since the row before,
    validation left out.

    The file is written anew each time and renamed, so that it is whole at any moment. If that fails
    (a full disk), the run goes on and the next row brings the missing ones.

    Args:
        path: The file.
        goes_on: Whether the run in its folder goes on, so that the earlier rows lie there.
    """

    def __init__(self, path: Path, goes_on: bool = True) -> None:
        self.path, self.goes_on = path, goes_on
        self._rows: list[list[Any]] = []
        self._resumed_rows = 0
        self._earlier_seconds = 0.0
        self._start = self._paused_at = 0.0
        self._images, self._train_seconds, self._lr = 0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        """Wall seconds of training so far."""
        if not self._start:  # nothing was left to train
            return self._earlier_seconds
        return self._earlier_seconds + time.perf_counter() - self._start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the file, or cut it back to the point that we go on from."""
        self._start = self._paused_at = time.perf_counter()
        if trainer.is_global_zero:
            self._rows = self._earlier_rows() if self.goes_on else []
            self._write()

    def _earlier_rows(self) -> list[list[Any]]:
        found = [[row.get(name, "") for name in COLUMNS] for row in read_rows(self.path)]
        if len(found) < self._resumed_rows:
            print(
                f"WARNING: {self.path} has {len(found)} rows and the checkpoint was written after "
                f"{self._resumed_rows}: the others are lost.",
                file=sys.stderr,
            )
        return found[: self._resumed_rows]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the learning rate before a schedule moves it on."""
        self._lr = highest_rate(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the pictures."""
        self._images += len(batch["image"]) * trainer.world_size

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the training clock."""
        self._train_seconds = time.perf_counter() - self._paused_at

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        own = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "lr": self._lr,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self._images / max(self._train_seconds, 1e-9), 1),
        }
        module: Any = pl_module
        row = {**module.scores, **own}
        self._rows.append([row.get(name, "") for name in COLUMNS])
        if trainer.is_global_zero:
            self._write()
        self._images, self._paused_at = 0, time.perf_counter()

    def _write(self) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *self._rows])
        try:
            write_text(self.path, text.getvalue())
        except OSError as error:
            print(
                f"WARNING: {self.path} could not be written: {error}. The training goes on; the "
                "next row brings what is missing.",
                file=sys.stderr,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the clock, the number of rows and the latest rate."""
        return {"seconds": self.seconds, "rows": len(self._rows), "lr": self._lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the clock of the earlier sittings back, and how many rows belong to them."""
        self._earlier_seconds = state_dict["seconds"]
        self._resumed_rows, self._lr = state_dict["rows"], state_dict["lr"]


def highest_rate(trainer: Trainer) -> float:
    """Return the highest learning rate of any parameter group."""
    return max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
