"""Weights & Biases without surprises: offline unless there is a key, never a question or a hang."""

import contextlib
import netrc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import loggers

from src.errors import UserError
from src.rows import read_rows
from src.run import RunFolder, write_text

_AXIS = "trainer/global_step"  # Lightning's name for the x axis
MODES = ("online", "offline", "disabled", "dryrun", "shared")


class WandbLogger(loggers.WandbLogger):
    """Mirrors the run to Weights & Biases; metrics.csv stays the truth.

    A run that goes on keeps its id, and its step axis never goes back: what an earlier sitting has
    logged is not logged again. Rows of metrics.csv that the server never got are sent when the run
    goes on.

    Online when WANDB_API_KEY is set or `wandb login` was done, else offline (send it later with
    `wandb sync`). WANDB_MODE (online, offline, disabled) overrides this. A server that can't be
    reached within `init_timeout_seconds` means offline.

    Args:
        project: Name of the project there.
        entity: User or team there; None means the key's own.
        name: Shown name of the run; None means the run folder's name.
        group: Runs of one group are shown together.
        tags: Words to find the run by.
        save_dir: Folder, below the run folder.
        id: Of the run; settled by the run folder, so that a resumed run goes on.
        init_timeout_seconds: How long to wait for the server at the start.
    """

    def __init__(
        self,
        project: str = "waggle",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        save_dir: str = ".",
        id: str | None = None,
        init_timeout_seconds: float = 20.0,
    ) -> None:
        super().__init__(
            name=name,
            save_dir=save_dir,
            id=id,
            project=project,
            entity=entity,
            group=group,
            tags=tags,
        )
        self._wandb_init.pop("anonymous", None)  # has no effect and warns
        self._timeout = init_timeout_seconds
        self._metrics = RunFolder(save_dir).metrics
        self._note = Path(save_dir) / "wandb" / "logged_step"  # an offline run can't ask the server
        self._seen = -1  # last step that an earlier sitting has logged

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, begun at the first use."""
        if self._experiment is not None:
            return self._experiment
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        if mode == "online" and not has_key():
            print("wandb: no key was found, so the run is logged offline", file=sys.stderr)
            mode = "offline"
        if mode not in MODES:
            raise UserError(f"WANDB_MODE is '{mode}'; allowed are {', '.join(MODES)}.")
        self._configure(mode)
        try:
            run = super().experiment
        except wandb.errors.Error as error:
            if mode != "online":
                raise
            print(f"wandb: going on offline: {error}", file=sys.stderr)
            wandb.teardown()  # its service still holds the run's id
            self._configure("offline")
            run = super().experiment
        self._catch_up(run)
        return run

    def _catch_up(self, run: Any) -> None:
        """Find out what earlier sittings logged; send the rows of metrics.csv that are missing."""
        if not getattr(run, "resumed", False):  # new, or offline, where wandb knows no earlier one
            with contextlib.suppress(OSError, ValueError):
                self._seen = int(self._note.read_text("utf-8"))
            return
        self._seen = int(run.summary.get(_AXIS, -1))
        for row in read_rows(self._metrics):
            step = int(row["step"]) - 1  # Lightning counts the step that was just made
            scores = {name: float(row[name]) for name in row if "/" in name and row[name]}
            if step > self._seen or (
                step == self._seen and run.summary.get("val/loss") != scores.get("val/loss")
            ):
                run.log({**scores, "epoch": int(row["epoch"]), _AXIS: step})
                self._seen = step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log, unless an earlier sitting of the run has logged this step."""
        _ = self.experiment
        if step is not None and step <= self._seen:
            return
        super().log_metrics(metrics, step)
        if step is not None and self._note.parent.is_dir():
            with contextlib.suppress(OSError):  # a full disk
                write_text(self._note, str(step))

    def _configure(self, mode: str) -> None:
        import wandb

        self._wandb_init["mode"] = mode
        self._wandb_init["settings"] = wandb.Settings(
            init_timeout=self._timeout,
            console="off",
            disable_code=True,
            x_disable_viewer=True,  # asks whose key it is, twice, 5 seconds each without an answer
            disable_git=True,  # a remote's address may hold a token; run.json names the commit
            silent=mode != "online",
        )

    def finalize(self, status: str) -> None:
        """Close the run, so that the next one in this process is a new one."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None


def has_key() -> bool:
    """Return whether wandb would find a key: in the environment or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    places = [os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc"]
    for place in places:
        try:
            if place and netrc.netrc(str(place)).authenticators(host):
                return True
        except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
            continue
    return False
