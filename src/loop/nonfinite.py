"""Stops a run whose loss is no number, and names what was in the batch."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from src.errors import RunFailureError
from src.loop.metrics_csv import highest_rate

_SHOWN = 8
_ADVICE = "Lower the learning rate or clip with --trainer.gradient_clip_val 1"


class NonFiniteGuard(Callback):
    """Looks at the losses of the training and of the validation, and at what is to be saved.

    On the CPU every step is looked at; on another device only every n-th and the last of an epoch,
    since a look waits for the device. The message then says how many batches it was about. No
    checkpoint is written from weights that are no numbers.

    Args:
        every_n_steps: n, from 1.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps, self._unseen = every_n_steps, 0
        self._bad: torch.Tensor | None = None  # whether a loss since the latest look was
        self._batch: tuple[torch.Tensor, int] | None = None  # indices of the latest, its number

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor
    ) -> None:
        """Note, on the device, whether the loss is a number."""
        self._loss = loss.detach()
        bad = ~torch.isfinite(self._loss)
        self._bad = bad if self._bad is None else self._bad | bad

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raise RunFailureError for a loss that is infinite or no number."""
        self._unseen, self._batch = self._unseen + 1, (batch["index"], batch_idx)
        due = self._unseen >= self.every_n_steps or trainer.is_last_batch
        if due or not _waits(self._loss):
            self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        number, self._unseen = self._unseen, 0
        bad, self._bad = self._bad, None
        if bad is None or self._batch is None or not bool(bad):
            return
        index, batch_idx = self._batch
        value = float(self._loss) * trainer.accumulate_grad_batches
        what, held = f"the loss is {value}", "The batch"
        if number > 1:
            what = f"one of the {number} latest losses was infinite or no number, seen"
            held = "The latest batch"
        lr = highest_rate(trainer)
        raise RunFailureError(
            f"{what} at step {trainer.global_step} (epoch {trainer.current_epoch}, "
            f"batch {batch_idx}), learning rate {lr:g}. {held} held: {_files(trainer, index)}. "
            f"{_ADVICE}; the last checkpoint was written before this."
        )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Raise RunFailureError on all processes if weights of any are no numbers."""
        names = {name for name, _ in pl_module.named_parameters()}
        states = (checkpoint["state_dict"], checkpoint.get("current_model_state", {}))
        weights = (t for state in states for name, t in state.items() if name in names)
        bad = not all(bool(torch.isfinite(tensor).all()) for tensor in weights)
        if trainer.strategy.reduce_boolean_decision(bad, all=False):
            raise RunFailureError(
                f"after step {trainer.global_step} (epoch {trainer.current_epoch}) weights are no "
                f"numbers. {_ADVICE}; no checkpoint was written from them."
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
                f"{trainer.current_epoch}): the weights have diverged. {_ADVICE}; no checkpoint "
                "was written from them."
            )


def _waits(loss: torch.Tensor) -> bool:
    """Return whether the program would wait for its device to look at a loss."""
    return loss.device.type != "cpu"


def _files(trainer: Trainer, batch: torch.Tensor) -> str:
    index = trainer.train_dataloader.dataset.index  # type: ignore[union-attr]
    names = [index.paths[i] for i in batch.tolist()]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
