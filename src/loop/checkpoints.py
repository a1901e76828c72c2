"""When last.ckpt and best.ckpt are written, and what they hold so that nothing is lost."""

import math
import sys
import time
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer

from src.errors import RunFailureError, UserError, nearest
from src.loop import counters
from src.loop.signals import Signals
from src.rows import is_lowest_best

MONITORS = (
    *("val/accuracy", "val/loss", "val/loss_calibrated", "val/f1", "val/auroc"),
    "val/accuracy_argmax",
    *("train/accuracy", "train/loss"),
)


class Checkpoints(Checkpoint):
    """Writes the checkpoints of a run, each at a point from which nothing of the run is lost.

    Such a point is the end of a batch after which the optimizer has stepped and no validation is
    due; the start of a validation, which is then run again; the end of an epoch with all that
    belongs to it (validation, early stopping, the schedule's step). `last` is written there: at
    every end of an epoch, where `every_steps` and `every_minutes` ask for it, where the training
    ends inside an epoch, and where a signal ends the run.

    A file that can't be written (a full disk) is told loudly; the run goes on, the old file stays.

    Args:
        folder: Where they go.
        monitor: Score that makes a checkpoint the best; ties go to the lower val/loss, then to the
            earlier one.
        mode: Whether the monitored score should be high or low; None means low for a loss.
        goes_on: Whether the run in this folder goes on, so that the best one so far lies there.
        every_steps: Optimizer steps from one `last` to the next, from 1; None: see above.
        every_minutes: Minutes from one `last` to the next, above 0; None: see above.
        signals: What may ask the run to end.
        run_id: Of the run; written into each file.

    Raises:
        UserError: if there is no such score, or a distance is out of range.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str = "val/accuracy",
        mode: Literal["max", "min"] | None = None,
        goes_on: bool = True,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        signals: Signals | None = None,
        run_id: str | None = None,
    ) -> None:
        if monitor not in MONITORS:
            raise UserError(
                f"--monitor {monitor} is none of the scores; {nearest(monitor, MONITORS)} "
                f"Allowed: {', '.join(MONITORS)}."
            )
        _check_distances(every_steps, every_minutes)
        self.folder, self.monitor, self.goes_on = folder, monitor, goes_on
        self.mode = "min" if is_lowest_best(monitor, mode) else "max"
        self.every_steps, self.every_minutes = every_steps, every_minutes
        self.signals, self.run_id = signals or Signals(), run_id
        self.made_with: dict[str, Any] = {}  # plain; what the numbers of the run depend on
        self.best: dict[str, Any] = {}  # the scores of best.ckpt, with epoch and step
        self.failed: OSError | None = None  # why the latest last.ckpt was not written
        self._metrics: dict[str, Any] = {}  # what callbacks and schedules read
        self._stopped, self._plateaus_due = False, 0  # epochs after which plateaus must step
        self._max_steps: int | None = None  # put off until a validation that is due has been run
        self._wanted = self._leaving = self._in_validation = self._validation_due = False
        self._stepped, self._stop_put_off = True, False
        self._writing = "last"
        self._seen_step = self._saved_step = 0
        self._saved_at = 0.0

    # Resuming

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up what Lightning does not: see `src.loop.counters`."""
        if trainer.ckpt_path:
            counters.settle_resumed_epoch(trainer)
            trainer.callback_metrics.update(self._metrics)
            trainer.should_stop = self._stopped
            if self._plateaus_due:
                counters.step_plateaus(trainer, self._plateaus_due)
        self._plateaus_due = 0
        self._seen_step = self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            for rest in self.folder.glob("*.ckpt.*.tmp"):  # of a sitting killed while writing
                rest.unlink(missing_ok=True)

    # All steps of a run with max_steps may be made before its last validation has been run

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put max_steps off until a validation that is due has been begun."""
        if self._validation_due and self._max_steps is None and trainer.optimizers:
            self._max_steps = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps = -1

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Do so where a strategy (FSDP) loads the checkpoint after on_fit_start."""
        state = checkpoint.get("callbacks", {}).get(self.state_key, {})
        self._validation_due = state.get("in_validation", False)
        self.on_fit_start(trainer, pl_module)

    def _heed_max_steps(self, trainer: Trainer) -> None:
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps
            self._max_steps, self._validation_due = None, False

    # The points at which a run may be saved and left

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, unless a validation or the end of the epoch comes first."""
        self._heed_max_steps(trainer)
        self._stepped = trainer.global_step > self._seen_step  # no accumulation is under way
        self._seen_step = trainer.global_step
        self._finish_accumulation(trainer)
        ends = counters.training_ends(trainer)
        if self.signals.agrees(trainer):
            self._ask(trainer)
        self._wanted |= ends or self._steps_are_due(trainer)
        if not self._wanted or not self._stepped or trainer.is_last_batch:
            return
        if not counters.validation_follows(trainer, batch_idx):
            self._save_and_leave(trainer)

    def _finish_accumulation(self, trainer: Trainer) -> None:
        """Put off a stop inside an accumulation, whose gradients are saved nowhere."""
        if trainer.should_stop and not self._stepped:
            trainer.should_stop, self._stop_put_off = False, True
        elif self._stop_put_off and self._stepped:
            trainer.should_stop, self._stop_put_off = True, False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the run as it stood before this validation, if it is time."""
        self._heed_max_steps(trainer)
        if _within_fit(trainer) and self._wanted and self._stepped:
            self._save_in_validation(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save and leave, if a signal asks for it: the validation is run again."""
        if not _within_fit(trainer) or not self.signals.agrees(trainer):
            return
        if self.signals.asked(trainer) and self._stepped:
            self._leaving = True
            self._save_in_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write best.ckpt if these scores are the best so far; last.ckpt if the run ends here."""
        if not _within_fit(trainer):
            return
        module: Any = pl_module
        scores = dict(module.scores)
        rank = self._rank(scores)
        if not math.isinf(rank[0]) and (not self.best or rank > self._rank(self.best)):
            before = self.best
            self.best = scores | {"epoch": trainer.current_epoch, "step": trainer.global_step}
            if self._write(trainer, "best"):
                self.best = before
        follows = counters.validation_follows(trainer, trainer.fit_loop.epoch_loop.batch_idx)
        if follows and counters.training_ends(trainer) and not trainer.is_last_batch:
            self._save_and_leave(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write last.ckpt: the epoch is over, but for the step of schedules that watch a score."""
        if not trainer.is_last_batch:
            return  # ended inside the epoch; saved there
        self._ask(trainer)
        self._plateaus_due = trainer.current_epoch + 1
        self._save_and_leave(trainer)
        if trainer.fit_loop.restarting:
            counters.step_plateaus(trainer, self._plateaus_due)
        self._plateaus_due = 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise RunFailureError if the end of the run is in no checkpoint."""
        if self.failed is not None:
            raise RunFailureError(
                f"the training is over, and {self.folder / 'last.ckpt'} could not be written: "
                f"{self.failed}. Free some space and go on with --ckpt_path auto: what was trained "
                "after the last checkpoint is trained again."
            )

    # Saving

    def _steps_are_due(self, trainer: Trainer) -> bool:
        steps = trainer.global_step - self._saved_step
        return self.every_steps is not None and steps >= self.every_steps

    def _ask(self, trainer: Trainer) -> None:
        """Settle, alike on every process, whether the clock or a signal makes it save or leave."""
        minutes = self.every_minutes is not None and (
            time.monotonic() - self._saved_at >= 60 * self.every_minutes
        )
        here = minutes or self.signals.received is not None
        if trainer.strategy.reduce_boolean_decision(here, all=False):
            self._wanted = True
            self._leaving = self.signals.asked(trainer)

    def _save_and_leave(self, trainer: Trainer) -> None:
        self.failed = self._write(trainer, "last")
        self._wanted = False
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        if self._leaving:
            there = any((self.folder / name).is_file() for name in ("last.ckpt", "previous.ckpt"))
            self.signals.leave(trainer, self.folder / "last.ckpt" if there else None)

    def _save_in_validation(self, trainer: Trainer) -> None:
        self._in_validation = True
        self._save_and_leave(trainer)
        self._in_validation = False

    def _write(self, trainer: Trainer, name: str) -> OSError | None:
        """Write NAME.ckpt; return why it failed, on every process alike."""
        path, failed = self.folder / f"{name}.ckpt", None
        self._stopped = trainer.should_stop and not _out_of_time(trainer)
        self._writing = name
        try:
            trainer.save_checkpoint(path)
        except OSError as error:
            failed = error
            print(
                f"WARNING: {path} could not be written after step {trainer.global_step}: {error}. "
                "The training goes on, and the file before it is kept. Free some space.",
                file=sys.stderr,
                flush=True,
            )
            trainer.strategy.barrier("Trainer.save_checkpoint")  # where the others wait
        found: OSError | None = trainer.strategy.broadcast(failed)
        return found

    def _rank(self, scores: dict[str, Any]) -> tuple[float, float]:
        """Return a pair that is greater for better scores; a score that is no number ranks last."""
        value = scores[self.monitor] * (1 if self.mode == "max" else -1)
        loss = scores.get("val/loss", math.inf)
        return (-math.inf if math.isnan(value) else value, -math.inf if math.isnan(loss) else -loss)

    # What the files hold

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add which run wrote it, as what and with what; in a validation, that none of it is."""
        checkpoint["run_id"], checkpoint["written_as"] = self.run_id, self._writing
        checkpoint["made_with"] = self.made_with
        if self._in_validation:
            counters.rewind_validation(checkpoint)
        self._metrics = {name: value.cpu() for name, value in trainer.callback_metrics.items()}
        checkpoint["callbacks"][self.state_key] = self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return the best scores so far, the latest ones, and how the training stands."""
        return {
            "best": self.best,
            "metrics": self._metrics,
            "plateaus_due": self._plateaus_due,
            "stopped": self._stopped,
            "in_validation": self._in_validation,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back on a resume; in a new folder there is no best.ckpt yet."""
        self.best = state_dict["best"] if self.goes_on else {}
        self._metrics = state_dict["metrics"]
        self._plateaus_due, self._stopped = state_dict["plateaus_due"], state_dict["stopped"]
        self._validation_due = state_dict["in_validation"]


def _check_distances(steps: int | None, minutes: float | None) -> None:
    if steps is not None and steps < 1:
        raise UserError(f"--checkpoint_every_steps is {steps}; allowed is 1 or more, or null.")
    if minutes is not None and not 0 < minutes < math.inf:
        raise UserError(f"--checkpoint_every_minutes is {minutes}; allowed is above 0, or null.")


def _within_fit(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _out_of_time(trainer: Any) -> bool:
    """Return whether --trainer.max_time ends the run; given more, it may go on."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
    left = [timer.time_remaining() for timer in timers]
    return any(seconds is not None and seconds <= 0 for seconds in left)
