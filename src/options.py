"""The options beside model, data and trainer; their docstrings are the --help."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class RunOptions:
    """Options of every command.

    Args:
        run_dir: The run folder. fit: where the run goes; None means runs/<config>/<UTC time>.
            Others: the run to use, which is all they need.
        ckpt_path: fit: `last` goes on with the run in run_dir, `auto` does so if there is one and
            else starts, a .ckpt file is gone on from in a new folder. Others: what to score,
            `best`, `last`, `previous` or a file; None means best.
        progress: `bar`, `lines` (one line an epoch), `off`; `auto` is a bar on a terminal.
        trust_code: Prefix of class paths that a run folder may name beside those of this project
            and of its libraries, such as `my_nets`; may be given more than once. Importing a class
            runs the code of its module.
    """

    run_dir: str | None = None
    ckpt_path: str | None = None
    progress: Literal["auto", "bar", "lines", "off"] = "auto"
    trust_code: str | None = None


@dataclass
class TestOptions:
    """Options of test alone.

    Args:
        flips: Score the mean of the logits of each picture and its mirror image, into
            test_flips.json and test_flips.csv; it takes twice the time.
    """

    flips: bool = False


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
        checkpoint_every_steps: Write last.ckpt after so many optimizer steps too, from 1; None
            writes it at the end of an epoch alone.
        checkpoint_every_minutes: Write last.ckpt after so much time too, above 0; None does not.
        find_lr: Try learning rates on a copy of the network first, which takes 120 steps: `stop`
            (and no value) leaves find_lr.csv and find_lr.svg in the run folder, proposes a rate and
            ends; `go_on` trains with the rate proposed.
        minutes: Give the run as many epochs as fit into so many minutes from its start, above 0;
            measured once, before the first step, and written into config.yaml.
        report: Write report.html into the run folder at the end: what was learned, in pictures.
            None means true, unless WAGGLE_REPORT=false is set in the environment.
        allow_drift: Go on with a run although its config, its data or its number of processes have
            changed; the changes are listed.
    """

    init_from: str | None = None
    init_optimizer: bool = False
    monitor: str = "val/accuracy"
    monitor_mode: Literal["max", "min"] | None = None
    stop_on_nonfinite: bool = True
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = None
    find_lr: Literal["stop", "go_on"] | None = None
    minutes: float | None = None
    report: bool | None = None
    allow_drift: bool = False
