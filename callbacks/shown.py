"""When a callback looks at a validation, and where what it shows goes: run folder and loggers."""

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from src.errors import UserError
from src.preprocess import BadImageError
from src.run import RunFolder, write_bytes

# Arguments of `BestEffort.attempt`: what can't be done, and the errors that say so.
OF_PICTURES = ("read a picture", UserError, BadImageError)
TO_FOLDER = ("write into the run folder", OSError)


class BestEffort(Callback):
    """Shows something of a training, and never ends it: what fails is told, and the run goes on.

    A picture that can't be read, a disk that is full, a logger whose server is gone: each costs
    what it touches. A fit tells each of them once, since every epoch may meet them again.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()  # what could not be done in this fit

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier fit has told."""
        self._told.clear()

    @contextmanager
    def attempt(self, deed: str, *errors: type[Exception]) -> Iterator[None]:
        """Warn of errors of these types inside, instead of raising them.

        Args:
            deed: Of which the warning says that it could not be done.
            errors: What ends no training.
        """
        try:
            yield
        except errors as error:
            self._tell(deed, error)

    def _tell(self, deed: str, error: Exception) -> None:
        if deed in self._told:
            return
        self._told.add(deed)
        # The text of a UserError is for a run that has ended by it.
        cause = error.__cause__ if isinstance(error, UserError) else None
        reason = str(cause or error).rstrip(".") or type(error).__name__
        print(
            f"WARNING: callbacks.{type(self).__name__} could not {deed}: {reason}. The training "
            "goes on without it.",
            file=sys.stderr,
        )

    def show_picture(
        self, trainer: Trainer, kind: str, epoch: int, picture: Image.Image
    ) -> str | None:
        """Write RUN/pictures/<kind>-epoch-<n>.png, and send it to the loggers that show pictures.

        Args:
            trainer: Of the run.
            kind: One word.
            epoch: Counted from 1.
            picture: In RGB.

        Returns:
            The name of the file; None if it could not be written, and an old one is as it was.
        """
        folder, name = RunFolder(trainer.default_root_dir).pictures, f"{kind}-epoch-{epoch}.png"
        content = io.BytesIO()
        picture.save(content, "PNG", compress_level=2)  # a quarter of the time of 6, a tenth more
        written = None
        with self.attempt(*TO_FOLDER):
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, content.getvalue())
            written = name
        self._send_picture(trainer, f"pictures/{kind}", picture)
        return written

    def _send_picture(self, trainer: Trainer, key: str, picture: Image.Image) -> None:
        step = latest_step(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                with self.attempt("send a picture to Weights & Biases", Exception):
                    logger.log_image(key, [picture], step=step)
            elif isinstance(logger, TensorBoardLogger):
                with self.attempt("send a picture to TensorBoard", Exception):
                    pixels = np.asarray(picture)
                    logger.experiment.add_image(key, pixels, step, dataformats="HWC")

    def show_table(
        self, trainer: Trainer, kind: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Send rows to Weights & Biases; TensorBoard has no tables."""
        data, step = [list(row) for row in rows], latest_step(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                with self.attempt("send a table to Weights & Biases", Exception):
                    logger.log_table(f"tables/{kind}", columns=list(columns), data=data, step=step)


class AfterValidation(BestEffort, ABC):
    """Looks at the table of a validation once it is over: every few epochs, and at the last one.

    The table lies on every process, so the first one works alone. Nothing is drawn from a random
    generator, and nothing goes into a checkpoint.

    Args:
        every_n_epochs: How often, from 1; the first epoch is always looked at.

    Raises:
        UserError: if it is below 1.
    """

    def __init__(self, every_n_epochs: int) -> None:
        super().__init__()
        check_least(self, "every_n_epochs", every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self._passed_over: int | None = None  # the epoch of the latest validation, if it was

    @abstractmethod
    def look(self, trainer: Trainer, module: Any, epoch: int) -> None:
        """Show what there is to see in `module.table` under `module.decision`.

        Args:
            trainer: Of the run.
            module: The LightningModule.
            epoch: Of the validation, counted from 1.
        """

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
        with self.attempt(*OF_PICTURES), self.attempt(*TO_FOLDER):
            self.look(trainer, pl_module, epoch + 1)


def keeps(trainer: Trainer) -> bool:
    """Return whether this process writes into the run folder; fast_dev_run keeps nothing."""
    about: Any = trainer
    return trainer.is_global_zero and not about.fast_dev_run


def check_least(callback: Callback, name: str, value: int, least: int = 1) -> None:
    """Raise UserError if an argument of a callback is too small."""
    if value < least:
        owner = f"callbacks.{type(callback).__name__}"
        raise UserError(f"{name} of {owner} is {value}; allowed is {least} or more.")


def latest_step(trainer: Trainer) -> int:
    """Return the number that Lightning logs the latest step under: they count from 0.

    One more, and a run that goes on would take its first step for one that was logged.
    """
    return max(trainer.global_step - 1, 0)
