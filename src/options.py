"""The options beside model, data and trainer; their docstrings are the --help."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class RunOptions:
    """Options of every command.

    Args:
        run_dir: The run folder. fit: where the run goes; None means runs/<config>/<UTC time>.
            Others: the run to use, which is all they need.
        ckpt_path: A .ckpt file, `last`, `best` or `auto`. fit: `last` goes on with the run in
            run_dir, `auto` does so if there is one and else starts, a file is gone on from in a new
            folder. Others: what to score; None means best.
        progress: `bar`, `lines` (one line an epoch), `off`; `auto` is a bar on a terminal.
    """

    run_dir: str | None = None
    ckpt_path: str | None = None
    progress: Literal["auto", "bar", "lines", "off"] = "auto"


@dataclass
class FitOptions:
    """Options of fit alone.

    Args:
        init_from: Run folder or .ckpt file whose weights a new run starts from (best.ckpt of a
            folder). Classes that differ get a new head.
        init_optimizer: Take its optimizer state (momentum) too; rates stay those of the config.
        monitor: Score that makes best.ckpt; ties go to the lower val/loss, then the earlier.
        monitor_mode: Whether the highest (max) or the lowest (min) monitored score is the best;
            None means min for a loss and max for anything else.
        stop_on_nonfinite: Stop the run at a loss that is infinite or no number.
    """

    init_from: str | None = None
    init_optimizer: bool = False
    monitor: str = "val/accuracy"
    monitor_mode: Literal["max", "min"] | None = None
    stop_on_nonfinite: bool = True
