"""crash.ckpt: the weights at the moment of an error, to be looked at."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging


class CrashCheckpoint(Callback):
    """Writes crash.ckpt when the training ends with an error; last.ckpt is never touched.

    It holds weights, optimizer state and the error, for a look or for `--init_from`. An error may
    come in the middle of a step, so no run can go on from it exactly. No other process is waited
    for: one of them may be gone. Sharded weights (FSDP) can't be gathered then and are not written.

    Args:
        folder: Where it goes.
        run_id: Of the run.
    """

    def __init__(self, folder: Path, run_id: str | None = None) -> None:
        self.path, self.run_id = folder / "crash.ckpt", run_id
        self._trained = False  # in this sitting

    def on_train_batch_end(self, *_: Any) -> None:
        """Note that there is something to keep."""
        self._trained = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the file, if anything was trained."""
        sharded = "fsdp" in type(trainer.strategy).__name__.lower()
        error = isinstance(exception, Exception)  # and no signal
        if not error or not self._trained or not trainer.is_global_zero or sharded:
            return
        with contextlib.suppress(Exception):  # a full disk, a lost GPU: the error itself matters
            content = self._content(trainer, pl_module, exception)
            trainer.strategy.checkpoint_io.save_checkpoint(content, self.path)
            print(f"the weights at the error are in {self.path}", file=sys.stderr)

    def _content(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> dict[str, Any]:
        preprocessing = getattr(pl_module, "preprocessing", None)
        decision = getattr(pl_module, "decision", None)
        content: dict[str, Any] = {
            **({"decision": decision.to_dict()} if decision else {}),
            "state_dict": pl_module.state_dict(),
            "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "global_step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "preprocessing": preprocessing.to_dict() if preprocessing else {},
            "error": f"{type(exception).__name__}: {exception}",
            "run_id": self.run_id,
            "written_as": "crash",
        }
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):  # state_dict is the average, as everywhere
                callback.on_save_checkpoint(trainer, pl_module, content)
        return content
