"""The training pictures as the network saw them, augmentation and all."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image, ImageDraw


class SampleImages(Callback):
    """Writes RUN/pictures/train-epoch-<n>.png: the first batch of an epoch, with its labels.

    Also sends it to Weights & Biases and TensorBoard where they log the run.

    Args:
        every_n_epochs: How often, from 1; the first epoch is always shown.
        max_images: Pictures in one sheet, from 1.
    """

    def __init__(self, every_n_epochs: int = 10, max_images: int = 16) -> None:
        if every_n_epochs < 1 or max_images < 1:
            raise ValueError("every_n_epochs and max_images of SampleImages must be 1 or more.")
        self.every_n_epochs, self.max_images = every_n_epochs, max_images

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the sheet after the first step of an epoch."""
        about: Any = trainer
        due = batch_idx == 0 and trainer.current_epoch % self.every_n_epochs == 0
        if not due or about.fast_dev_run or not trainer.is_global_zero:
            return
        classes = about.datamodule.classes
        names = [classes[target] for target in batch["target"][: self.max_images].tolist()]
        sheet = contact_sheet(batch["image"][: self.max_images].cpu().numpy(), names)
        folder = Path(trainer.default_root_dir) / "pictures"
        folder.mkdir(exist_ok=True)
        sheet.save(folder / f"train-epoch-{trainer.current_epoch + 1}.png")
        self._log(trainer, sheet)

    def _log(self, trainer: Trainer, sheet: Image.Image) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("pictures/train", [sheet], step=trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                pixels = np.asarray(sheet)
                step = trainer.global_step
                logger.experiment.add_image("pictures/train", pixels, step, dataformats="HWC")


def contact_sheet(images: np.ndarray[Any, Any], names: list[str]) -> Image.Image:
    """Return the pictures side by side, each with its name below.

    Args:
        images: uint8 [N, H, W, 3].
        names: A name for each.
    """
    count, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    gap, line = 6, 16
    size = (columns * (width + gap) + gap, rows * (height + line + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, (pixels, name) in enumerate(zip(images, names, strict=True)):
        row, column = divmod(number, columns)
        x, y = gap + column * (width + gap), gap + row * (height + line + gap)
        sheet.paste(Image.fromarray(pixels), (x, y))
        draw.text((x, y + height + 1), name, fill="black")
    return sheet
