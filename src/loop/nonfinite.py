"""Stops a run whose loss is no number, and names what was in the batch."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from src.errors import RunFailureError

_SHOWN = 8


class NonFiniteGuard(Callback):
    """Looks at the losses of the training and of the validation.

    On the CPU every step is looked at; on another device only every n-th and the last of an epoch,
    since a look waits for the device. The message then names the step at which it was seen. No
    checkpoint is written between a bad loss and the look.

    Args:
        every_n_steps: n, from 1.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps, self._unseen = every_n_steps, 0

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Keep the loss for the look at the end of the step."""
        self._loss = loss.detach()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raise RunFailureError for a loss that is infinite or no number."""
        on_cpu = self._loss.device.type == "cpu"
        self._unseen += 1
        due = self._unseen >= self.every_n_steps or trainer.is_last_batch
        if not on_cpu and not due:
            return
        self._unseen = 0
        value = float(self._loss) * trainer.accumulate_grad_batches
        if math.isfinite(value):
            return
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        raise RunFailureError(
            f"the loss is {value} at step {trainer.global_step} (epoch {trainer.current_epoch}, "
            f"batch {batch_idx}), learning rate {lr:g}. The batch held: {_files(trainer, batch)}. "
            "Lower the learning rate or clip with --trainer.gradient_clip_val 1; the last "
            "checkpoint was written before this."
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise RunFailureError if the validation has no finite loss."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        module: Any = pl_module
        value = module.scores.get("val/loss", 0.0)
        if not math.isfinite(value):
            raise RunFailureError(
                f"the validation loss is {value} after step {trainer.global_step} (epoch "
                f"{trainer.current_epoch}): the weights have diverged. Lower the learning rate or "
                "clip with --trainer.gradient_clip_val 1; no checkpoint was written from them."
            )


def _files(trainer: Trainer, batch: Any) -> str:
    index = trainer.train_dataloader.dataset.index  # type: ignore[union-attr]
    names = [index.paths[i] for i in batch["index"].tolist()]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
