"""A signal that asks the program to end: the batch is finished and saved first."""

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer

from src.errors import STOP_SIGNALS, StoppedRun, stop_signals, typed

_EVERY = 16  # batches


class Signals(Callback):
    """Notes SIGTERM, SIGINT and SIGUSR1; the run then ends at its next safe point.

    A safe point is the end of a batch after which the optimizer has stepped, any batch of a
    validation, or the end of an epoch; there every process learns that one of them was asked (with
    several GPUs every 16th batch). A second signal ends the process at once. While it scores, a
    process ends after the batch, with nothing to save.

    Lightning's own handlers are not set: they would send collectives out of a signal handler, end
    with exit code 0, and write hpc_ckpt files.

    Args:
        leaves: Whether it ends a fit by itself; False where a callback that saves first does.
    """

    def __init__(self, leaves: bool = True) -> None:
        self.leaves = leaves
        self.received: str | None = None
        self._batches = 0  # since the start, alike on all processes
        self._before: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen; the processes are connected by now."""
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                before = signal.signal(number, lambda n, frame: self._note(trainer, n, frame))
                self._before.setdefault(number, before)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the handlers back: the work is done. After an error, the program does that."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, trainer: Trainer, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.received is not None:
            _end_launched(trainer)
            os._exit(128 + number)
        self.received = name
        if trainer.is_global_zero:
            text = f"\n{name}: finishing this batch and saving; a second signal ends at once\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())  # print may not be called again inside itself

    def agrees(self, trainer: Trainer) -> bool:
        """Return whether the processes ask one another after this batch.

        Their answer makes a program wait for its GPU, so several with GPUs ask every 16th time.
        """
        self._batches += 1
        waits = trainer.world_size > 1 and trainer.strategy.root_device.type != "cpu"
        return not waits or self._batches % _EVERY == 0

    def asked(self, trainer: Trainer) -> bool:
        """Return whether any process was asked to end; all of them must call this together."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def _agreed(self, trainer: Trainer) -> str:
        """Return the same signal on all processes; some of them may have received none."""
        one = trainer.strategy.reduce_boolean_decision
        return next((n for n in STOP_SIGNALS if one(self.received == n, all=False)), "SIGTERM")

    def leave(self, trainer: Trainer, saved: Path | None) -> NoReturn:
        """End the run; all processes must call this together.

        Args:
            trainer: The Trainer.
            saved: The checkpoint to go on from, None if there is none.

        Raises:
            StoppedRun: always.
        """
        if signal.SIGTERM in self._before:  # launchers send it when another process has ended
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        more = ""
        if trainer.state.fn == "fit":
            more = f" after step {trainer.global_step}. " + (
                f"Go on: python -m src.train fit --run_dir {typed(saved.parent.parent)} "
                "--ckpt_path last"
                if saved
                else "Nothing was saved."
            )
        raise StoppedRun(self._agreed(trainer), more, together=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the processes that would wait for this one, unless all of them leave together."""
        if not (isinstance(exception, StoppedRun) and exception.together):
            _end_launched(trainer)

    # Where nothing saves; where something does, it asks and leaves after that

    def _end_of_batch(self, trainer: Trainer) -> None:
        if self.agrees(trainer) and self.asked(trainer):
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


def _end_launched(trainer: Trainer) -> None:
    """End the other processes, if Lightning started them from this one."""
    kill: Any = getattr(trainer.strategy.launcher, "kill", None)
    if kill is not None:
        kill(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
