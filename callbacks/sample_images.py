"""The training pictures as the network saw them, augmentation and all."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.sheets import contact_sheet
from callbacks.shown import BestEffort, check_least, keeps


class SampleImages(BestEffort):
    """Writes RUN/pictures/train-epoch-<n>.png: the first batch of an epoch, with its labels.

    Also sends it to Weights & Biases and TensorBoard where they log the run. A step is held up by
    nothing but a copy of these pictures; they are drawn at the end of the epoch. A run that goes on
    inside an epoch has not seen its first batch, and shows the next one.

    Args:
        every_n_epochs: How often, from 1; the first epoch is always shown.
        max_images: Pictures in one sheet, from 1.

    Raises:
        UserError: for a value out of range.
    """

    def __init__(self, every_n_epochs: int = 10, max_images: int = 16) -> None:
        super().__init__()
        check_least(self, "every_n_epochs", every_n_epochs)
        check_least(self, "max_images", max_images)
        self.every_n_epochs, self.max_images = every_n_epochs, max_images
        self._seen: tuple[Tensor, Tensor] | None = None  # pictures and targets, on the device

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the pictures of an epoch go that an error has ended."""
        self._seen = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the first pictures of an epoch; nothing waits for the device."""
        due = batch_idx == 0 and trainer.current_epoch % self.every_n_epochs == 0
        if due and keeps(trainer):
            image, target = batch["image"][: self.max_images], batch["target"][: self.max_images]
            self._seen = image.clone(), target.clone()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the sheet."""
        if self._seen is None:
            return
        images, targets = (part.cpu().numpy() for part in self._seen)
        self._seen = None
        classes = trainer.datamodule.classes  # type: ignore[attr-defined]
        sheet = contact_sheet(list(images), [(classes[target],) for target in targets.tolist()])
        self.show_picture(trainer, "train", trainer.current_epoch + 1, sheet)
