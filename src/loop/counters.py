"""The places where Lightning's own counters are read or mended, so that a run resumes anywhere.

Read with lightning 2.6.6 (loops/fit_loop.py, training_epoch_loop.py, evaluation_loop.py). Left to
itself it resumes a checkpoint that was written

- before a validation that is due: without that validation;
- at the end of an epoch, in a run with max_steps: one epoch too late, with an empty one between;
- inside an epoch: without the step of a schedule that watches a score at that epoch's end.
"""

from typing import Any

from lightning.pytorch import Trainer


def validation_follows(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a validation is due after this batch by the config alone.

    Not one that comes because the training ends here; nor one by the clock, which no other sitting
    of the run could repeat.
    """
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch
    empty = trainer.val_dataloaders is not None and sum(trainer.num_val_batches) == 0
    if not trainer.enable_validation or interval is None or empty:
        return False
    if every is None:
        return bool((trainer.fit_loop.epoch_loop.total_batch_idx + 1) % interval == 0)
    return (trainer.current_epoch + 1) % every == 0 and (batch_idx + 1) % interval == 0


def training_ends(trainer: Trainer) -> bool:
    """Return whether the training ends after this batch, by its steps or since a callback says."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    current: Any = trainer.fit_loop.epoch_progress.current
    enough = current.processed >= (trainer.min_epochs or 0)
    return trainer.should_stop and enough and trainer.global_step >= (trainer.min_steps or 0)


def rewind_validation(checkpoint: dict[str, Any]) -> None:
    """Make a checkpoint that is written in a validation say that none of it was done.

    Lightning takes a validation batch that was started and not processed for a validation that it
    has to run; it then runs it from its first batch.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    before = progress["total"]["completed"] - progress["current"]["completed"]
    progress["current"] = dict.fromkeys(progress["current"], 0)
    progress["total"] = dict.fromkeys(("processed", "completed"), before) | dict.fromkeys(
        ("ready", "started"), before + 1
    )
    progress["is_last_batch"] = False


def settle_resumed_epoch(trainer: Trainer) -> None:
    """Begin the next epoch if the checkpoint was written at the end of one.

    To be called in on_train_start: the fit loop has looked at its counters, the loop of the epoch
    has not.
    """
    loop = trainer.fit_loop
    validations: Any = loop.epoch_loop.val_loop.batch_progress.total
    validations.ready = validations.started = validations.completed  # see rewind_validation
    epochs: Any = loop.epoch_progress
    if epochs.current.ready > epochs.current.processed or not loop.epoch_loop.restarting:
        return
    loop.epoch_loop.restarting = False
    loop.reset_restart_stage()
    for counts in (epochs.current, epochs.total):
        counts.completed = counts.processed


def step_plateaus(trainer: Trainer, epochs: int) -> None:
    """Take the step of every schedule that watches a score, with the latest scores.

    Args:
        trainer: The Trainer.
        epochs: How many epochs are over.
    """
    for schedule in trainer.lr_scheduler_configs:
        value = trainer.callback_metrics.get(str(schedule.monitor))
        if schedule.reduce_on_plateau and epochs % schedule.frequency == 0 and value is not None:
            plateau: Any = schedule.scheduler
            trainer.fit_loop.epoch_loop.scheduler_progress.increment_ready()
            plateau.step(float(value))
            trainer.fit_loop.epoch_loop.scheduler_progress.increment_completed()
