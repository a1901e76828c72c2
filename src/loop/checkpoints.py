"""last.ckpt after every epoch, best.ckpt after every validation that beats the others."""

import math
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from src.errors import UserError, nearest

MONITORS = ("val/accuracy", "val/loss", "val/f1", "val/auroc", "train/accuracy", "train/loss")


class Checkpoints(Checkpoint):
    """Writes the checkpoints of a run.

    `last` is written when an epoch is over with all that belongs to it (validation, early stopping,
    the schedule's step), so that a resumed run loses none of it. Lightning steps a schedule that
    watches a score only after the last hook of the epoch; a resumed run takes that step first.

    Args:
        folder: Where they go.
        monitor: Score that makes a checkpoint the best; ties go to the lower val/loss, then to the
            earlier one.
        mode: Whether the monitored score should be high or low; None means low for a loss.
        goes_on: Whether the run in this folder goes on, so that the best one so far lies there.

    Raises:
        UserError: if there is no such score.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str = "val/accuracy",
        mode: Literal["max", "min"] | None = None,
        goes_on: bool = True,
    ) -> None:
        if monitor not in MONITORS:
            raise UserError(
                f"--monitor {monitor} is none of the scores; {nearest(monitor, MONITORS)} "
                f"Allowed: {', '.join(MONITORS)}."
            )
        self.folder, self.monitor, self.goes_on = folder, monitor, goes_on
        self.mode = mode or ("min" if monitor.endswith("/loss") else "max")
        self._stopped = self._cut = False  # by a callback; inside an epoch
        self.best: dict[str, Any] = {}  # the scores of best.ckpt, with epoch and step
        self._due: dict[str, float] = {}  # scores that a plateau schedule has yet to see
        self._saved_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step of the plateau schedules that the checkpoint came before.

        Raises:
            UserError: if the checkpoint lies inside an epoch.
        """
        if self._cut:
            raise UserError(
                f"{self.folder / 'last.ckpt'} was written where --trainer.max_steps or "
                "max_time ended the run, inside an epoch; a run goes on from the end of an epoch. "
                "Start a new run from its weights with --init_from."
            )
        trainer.should_stop = self._stopped
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            for rest in self.folder.glob("*.tmp"):  # of a sitting that was killed while writing
                rest.unlink(missing_ok=True)
        for schedule in trainer.lr_scheduler_configs:
            if schedule.reduce_on_plateau and schedule.monitor in self._due:
                plateau: Any = schedule.scheduler
                plateau.step(self._due[schedule.monitor])
        self._due = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write best.ckpt if these scores are the best so far."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        module: Any = pl_module
        scores = dict(module.scores)
        rank = self._rank(scores)
        if math.isinf(rank[0]):  # no number, so never the best
            return
        if not self.best or rank > self._rank(self.best):
            self.best = scores | {"epoch": trainer.current_epoch, "step": trainer.global_step}
            trainer.save_checkpoint(self.folder / "best.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write last.ckpt: the epoch is over, but for the step of plateau schedules."""
        module: Any = pl_module
        self._due = dict(module.scores)
        self._stopped = trainer.should_stop
        self._cut = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        self._save_last(trainer)
        self._due = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write last.ckpt, if the training ended inside an epoch."""
        self._save_last(trainer)

    def _save_last(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved_step:
            trainer.save_checkpoint(self.folder / "last.ckpt")
            self._saved_step = trainer.global_step

    def _rank(self, scores: dict[str, Any]) -> tuple[float, float]:
        """Return a pair that is greater for better scores; a score that is no number ranks last."""
        value = scores[self.monitor] * (1 if self.mode == "max" else -1)
        loss = scores.get("val/loss", math.inf)
        return (-math.inf if math.isnan(value) else value, -math.inf if math.isnan(loss) else -loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the best scores so far, those still due, and how the training ended."""
        return {"best": self.best, "due": self._due, "stopped": self._stopped, "cut": self._cut}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back on a resume; in a new folder there is no best.ckpt yet."""
        self.best = state_dict["best"] if self.goes_on else {}
        self._due = state_dict["due"]
        self._stopped, self._cut = state_dict["stopped"], state_dict["cut"]
