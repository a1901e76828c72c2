"""Small pictures first, large ones at the end: most of a training at a part of its cost."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from src.errors import UserError

_STEP = 32  # pixels: a network that halves sides five times meets no odd one


class ProgressiveSize(Callback):
    """Shrinks the training pictures by a share that falls from epoch to epoch.

    In epoch e of E the side is `start + (full - start) * e / (full_from * E)`, at most full, in
    steps of 32 pixels; full is the side that `data.augment` crops. The time of a step goes with the
    square of the side (Touvron et al. 2019, arXiv 1906.06423, 3; Howard et al. 2018, DAWNBench).
    Nothing but training pictures is shrunk, and the size follows from the epoch alone, so a resumed
    run goes on the same.

    Args:
        start: Side in the first epoch, in pixels, from 32.
        full_from: Share of the epochs after which pictures have their full size, above 0 up to 1.

    Raises:
        UserError: for a value out of range; before the training, for a run without a number of
            epochs or whose pictures are not larger than `start`.
    """

    changes_pictures = True  # so their features can't be kept
    spans_the_run = True  # so a run that goes on may not change its length

    def __init__(self, start: int = 96, full_from: float = 0.7) -> None:
        if start < 32:
            raise UserError(f"start of callbacks.ProgressiveSize is {start}; allowed is 32 up.")
        if not 0 < full_from <= 1:
            raise UserError(
                f"full_from of callbacks.ProgressiveSize is {full_from}; allowed is above 0 up to "
                "1, a share of the epochs."
            )
        self.start, self.full_from = start, full_from

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the run knows where it ends.

        Raises:
            UserError: if it does not.
        """
        if stage == "fit" and (trainer.max_epochs or -1) < 1:
            raise UserError(
                "callbacks.ProgressiveSize needs to know how many epochs there will be. Set "
                "--trainer.max_epochs."
            )
        shape = getattr(trainer.datamodule, "training_shape", None)  # type: ignore[attr-defined]
        if stage == "fit" and shape and self.start >= min(shape[:2]):
            raise UserError(
                f"start of callbacks.ProgressiveSize is {self.start} and the training pictures "
                f"have {min(shape[:2])} pixels; allowed is less, or leave the callback out."
            )

    def side(self, full: int, epoch: int, epochs: int) -> int:
        """Return the side of the training pictures of an epoch, in pixels.

        Args:
            full: Side of the crops.
            epoch: From 0.
            epochs: Of the whole run.
        """
        share = min(1.0, epoch / (self.full_from * epochs))
        steps = (self.start + share * (full - self.start)) / _STEP
        return min(full, round(steps) * _STEP) if share < 1 else full

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Shrink the pictures of the batch."""
        assert trainer.max_epochs is not None
        height, width = batch["image"].shape[1:3]
        progress: Any = trainer.fit_loop.epoch_progress
        # Unlike trainer.current_epoch, right on every resume.
        side = self.side(min(height, width), progress.current.processed, trainer.max_epochs)
        if side < min(height, width):
            scale = side / min(height, width)
            batch["image"] = shrunk(batch["image"], round(scale * height), round(scale * width))


def shrunk(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return uint8 [B, height, width, 3] of uint8 [B, H, W, 3], by means of pixels."""
    planes = pixels.permute(0, 3, 1, 2)
    if pixels.device.type != "cpu":
        planes = planes.float()  # there is no antialiasing of bytes elsewhere
    small = F.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    if small.dtype != torch.uint8:
        small = small.round_().clamp_(0, 255).to(torch.uint8)
    return small.permute(0, 2, 3, 1)
