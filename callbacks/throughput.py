"""Images a second, and how much of the time the step waited for its data."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs and prints, after every training epoch, images a second and the share of waiting.

    A step runs on a GPU after its call has returned; the numbers are of the host's clock, and over
    an epoch they agree with the device's.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.images, self.waiting = 0, 0.0
        self._start = self._step_over = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._reset()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the time since the last step was over as waiting."""
        self.waiting += time.perf_counter() - self._step_over

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the pictures."""
        self.images += len(batch["image"]) * trainer.world_size
        self._step_over = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a validation out of the account."""
        away = time.perf_counter() - self._step_over
        self._start += away
        self._step_over += away

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and print."""
        seconds = max(self._step_over - self._start, 1e-9)
        rates = {
            "throughput/images_per_second": self.images / seconds,
            "throughput/waiting_for_data": self.waiting / seconds,
        }
        pl_module.log_dict(rates, rank_zero_only=True)
        if trainer.is_global_zero:
            speed, waiting = rates.values()
            print(f"throughput: {speed:.1f} images/s, {waiting:.0%} of the time waiting for data")
