"""What makes a run a run: added to every fit by the CLI, switched by plain options."""

from typing import Any

from lightning.pytorch import Callback

from src.loop.checkpoints import Checkpoints
from src.loop.crash import CrashCheckpoint
from src.loop.metrics_csv import MetricsCsv
from src.loop.nonfinite import NonFiniteGuard
from src.loop.progress import progress_callback
from src.loop.signals import Signals
from src.loop.step_seed import StepSeed
from src.run import RunFolder

__all__ = [
    "Checkpoints",
    "MetricsCsv",
    "NonFiniteGuard",
    "Signals",
    "StepSeed",
    "loop_callbacks",
    "scoring_callbacks",
]


def loop_callbacks(
    options: Any, folder: RunFolder | None, goes_on: bool = False, run_id: str | None = None
) -> list[Callback]:
    """Return the callbacks of a fit.

    Args:
        options: The parsed options of fit.
        folder: The run folder; None under fast_dev_run, which keeps nothing.
        goes_on: Whether the run in the folder goes on.
        run_id: Of the run; written into its checkpoints.
    """
    saves = folder is not None and options.trainer.enable_checkpointing is not False
    signals = Signals(leaves=not saves)
    found: list[Callback] = [StepSeed(options.seed_everything), signals]
    if options.stop_on_nonfinite:
        found.append(NonFiniteGuard())
    progress = progress_callback(options.progress)
    if progress is not None and options.trainer.enable_progress_bar is not False:
        found.append(progress)
    if folder is None:
        return found
    found.append(MetricsCsv(folder.metrics, goes_on))
    if saves:
        found.append(CrashCheckpoint(folder.checkpoints, run_id))
        found.append(
            Checkpoints(
                folder.checkpoints,
                options.monitor,
                options.monitor_mode,
                goes_on,
                options.checkpoint_every_steps,
                options.checkpoint_every_minutes,
                signals,
                run_id,
            )
        )
    return found


def scoring_callbacks() -> list[Callback]:
    """Return the callbacks of validate, test and predict."""
    return [Signals()]
