"""What makes a run a run: added to every fit by the CLI, switched by plain options."""

from typing import Any

from lightning.pytorch import Callback

from src.loop.checkpoints import Checkpoints
from src.loop.metrics_csv import MetricsCsv
from src.loop.nonfinite import NonFiniteGuard
from src.loop.progress import progress_callback
from src.loop.step_seed import StepSeed
from src.run import RunFolder

__all__ = ["Checkpoints", "MetricsCsv", "NonFiniteGuard", "StepSeed", "loop_callbacks"]


def loop_callbacks(options: Any, folder: RunFolder | None, goes_on: bool = False) -> list[Callback]:
    """Return the callbacks of a fit.

    Args:
        options: The parsed options of fit.
        folder: The run folder; None under fast_dev_run, which keeps nothing.
        goes_on: Whether the run in the folder goes on.
    """
    found: list[Callback] = [StepSeed(options.seed_everything)]
    if options.stop_on_nonfinite:
        found.append(NonFiniteGuard())
    progress = progress_callback(options.progress)
    if progress is not None and options.trainer.enable_progress_bar is not False:
        found.append(progress)
    if folder is not None:
        found.append(MetricsCsv(folder.metrics))
        if options.trainer.enable_checkpointing is not False:
            mode = options.monitor_mode
            found.append(Checkpoints(folder.checkpoints, options.monitor, mode, goes_on))
    return found
