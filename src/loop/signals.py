"""A signal that asks the program to end: the batch is finished and saved first."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer

from src.errors import StoppedRun

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")  # the last does not exist on Windows
_REQUEUE = "SIGUSR1"  # what `sbatch --signal=USR1@120` sends before the time is up


class Signals(Callback):
    """Notes SIGTERM, SIGINT and SIGUSR1; the run then ends at its next safe point.

    A safe point is the end of a batch after which the optimizer has stepped, any batch of a
    validation, or the end of an epoch; there every process learns that one of them was asked. A
    second signal ends the process at once. Under SLURM, SIGUSR1 queues the job again too. While
    it scores, a process ends after the batch, with nothing to save.

    Lightning's own handlers are replaced: they would send collectives out of a signal handler, end
    with exit code 0, and write hpc_ckpt files.

    Args:
        leaves: Whether it ends a fit by itself; False where a callback that saves first does.
    """

    def __init__(self, leaves: bool = True) -> None:
        self.leaves = leaves
        self.received: str | None = None

    def _install(self, trainer: Trainer) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _numbers():
            signal.signal(number, lambda number, frame: self._note(trainer, number, frame))

    # The first hooks after Lightning has set its own handlers; it restores all handlers at the end

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the handlers."""
        self._install(trainer)

    on_train_start = on_sanity_check_start
    on_validation_start = on_test_start = on_predict_start = on_sanity_check_start

    def _note(self, trainer: Trainer, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.received is not None:
            _leave_at_once(trainer, number)
        self.received = name
        if trainer.is_global_zero:
            text = f"\n{name}: finishing this batch and saving; a second signal ends at once\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())  # print may not be called again inside itself

    def asked(self, trainer: Trainer) -> bool:
        """Return whether any process was asked to end; all of them must call this together."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def _agreed(self, trainer: Trainer) -> str:
        """Return the same signal on all processes; some of them may have received none."""
        one = trainer.strategy.reduce_boolean_decision
        return next((n for n in _NAMES if one(self.received == n, all=False)), "SIGTERM")

    def leave(self, trainer: Trainer, saved: Path | None) -> NoReturn:
        """End the run.

        Args:
            trainer: The Trainer.
            saved: The checkpoint to go on from, None if there is none.

        Raises:
            StoppedRun: always.
        """
        name = self._agreed(trainer)
        if name == _REQUEUE and trainer.is_global_zero:
            _requeue()
        done = f"stopped by {'Ctrl-C' if name == 'SIGINT' else name}"
        if trainer.state.fn == "fit":
            done += f" after step {trainer.global_step}. " + (
                f"Go on: python -m src.train fit --run_dir {saved.parent.parent} --ckpt_path last"
                if saved
                else "Nothing was saved."
            )
        raise StoppedRun(130 if name == "SIGINT" else 143, done if trainer.is_global_zero else "")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the processes that would wait for this one, unless all of them leave together."""
        if not isinstance(exception, StoppedRun):
            _end_launched(trainer)

    # Where nothing saves; where something does, it asks and leaves after that

    def _end_of_batch(self, trainer: Trainer) -> None:
        if self.asked(trainer):
            self.leave(trainer, None)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Leave, unless a callback saves first."""
        if self.leaves:
            self._end_of_batch(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Leave, unless a callback saves first."""
        fits = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not fits or self.leaves:
            self._end_of_batch(trainer)

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Leave."""
        self._end_of_batch(trainer)

    def on_predict_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Leave."""
        self._end_of_batch(trainer)


def _numbers() -> list[int]:
    return [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]


def _leave_at_once(trainer: Trainer, number: int) -> NoReturn:
    _end_launched(trainer)
    os._exit(128 + number)


def _end_launched(trainer: Trainer) -> None:
    """End the other processes, if Lightning started them from this one."""
    kill: Any = getattr(trainer.strategy.launcher, "kill", None)
    if kill is not None:
        kill(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


def _requeue() -> None:
    """Put the SLURM job into the queue again; `scontrol requeue` is in its manual page."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
    if not job:
        return
    try:
        code = subprocess.run(["scontrol", "requeue", job], check=False).returncode
    except OSError as error:
        print(f"WARNING: job {job} was not queued again: {error}", file=sys.stderr)
        return
    if code:
        print(f"WARNING: scontrol requeue {job} ended with code {code}", file=sys.stderr)
