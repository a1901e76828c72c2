"""When a callback looks at a validation, and where what it shows goes: run folder and loggers."""

import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from src.errors import UserError
from src.run import RunFolder, write_bytes


class AfterValidation(Callback):
    """Looks at the table of a validation once it is over: every few epochs, and at the last one.

    The table lies on every process, so the first one works alone. Nothing is drawn from a random
    generator, nothing goes into a checkpoint, and a disk that is full costs the file alone.

    Args:
        every_n_epochs: How often, from 1; the first epoch is always looked at.

    Raises:
        UserError: if it is below 1.
    """

    def __init__(self, every_n_epochs: int) -> None:
        check_least(self, "every_n_epochs", every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self._passed_over: int | None = None  # the epoch of the latest validation, if it was

    def look(self, trainer: Trainer, module: Any, epoch: int) -> None:
        """Show what there is to see in `module.table` under `module.decision`.

        Args:
            trainer: Of the run.
            module: The LightningModule.
            epoch: Of the validation, counted from 1.
        """
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier fit has left."""
        self._passed_over = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, if it is the turn of this epoch."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not keeps(trainer):
            return
        epoch = trainer.current_epoch
        self._passed_over = epoch if epoch % self.every_n_epochs else None
        if self._passed_over is None:
            self._look(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last validation, whatever ended the training."""
        if self._passed_over is not None:
            self._look(trainer, pl_module, self._passed_over)
            self._passed_over = None

    def _look(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        try:
            self.look(trainer, pl_module, epoch + 1)
        except OSError as error:
            warn_of_disk(self, error)


def keeps(trainer: Trainer) -> bool:
    """Return whether this process writes into the run folder; fast_dev_run keeps nothing."""
    about: Any = trainer
    return trainer.is_global_zero and not about.fast_dev_run


def check_least(callback: Callback, name: str, value: int, least: int = 1) -> None:
    """Raise UserError if an argument of a callback is too small."""
    if value < least:
        owner = f"callbacks.{type(callback).__name__}"
        raise UserError(f"{name} of {owner} is {value}; allowed is {least} or more.")


def warn_of_disk(callback: Callback, error: OSError) -> None:
    """Say that a file could not be written; no training ends for it."""
    print(
        f"WARNING: callbacks.{type(callback).__name__} could not write its file: {error}. The "
        "training goes on without it.",
        file=sys.stderr,
    )


def show_picture(trainer: Trainer, kind: str, epoch: int, picture: Image.Image) -> str:
    """Write RUN/pictures/<kind>-epoch-<n>.png, and send it to the loggers that show pictures.

    Args:
        trainer: Of the run.
        kind: One word.
        epoch: Counted from 1.
        picture: In RGB.

    Returns:
        The name of the file.

    Raises:
        OSError: if it can't be written; an old file is then as it was.
    """
    folder, name = RunFolder(trainer.default_root_dir).pictures, f"{kind}-epoch-{epoch}.png"
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=2)  # a quarter of the time of 6 for a tenth more
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / name, content.getvalue())
    key, step = f"pictures/{kind}", latest_step(trainer)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [picture], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, np.asarray(picture), step, dataformats="HWC")
    return name


def show_table(
    trainer: Trainer, kind: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Send rows to Weights & Biases; TensorBoard has no tables."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            data = [list(row) for row in rows]
            logger.log_table(
                f"tables/{kind}", columns=list(columns), data=data, step=latest_step(trainer)
            )


def latest_step(trainer: Trainer) -> int:
    """Return the number that Lightning logs the latest step under: they count from 0.

    One more, and a run that goes on would take its first step for one that was logged.
    """
    return max(trainer.global_step - 1, 0)
