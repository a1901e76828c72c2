"""How far the run is: a bar on a terminal, one line an epoch in a log file."""

import sys
import time
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

Style = Literal["auto", "bar", "lines", "off"]


class EpochLines(ProgressBar):
    """Prints one line after every validation: scores, time, time left."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._start, self._first_epoch, self._best = 0.0, 0, 0.0
        self._printed = -1

    @property
    def state_key(self) -> str:
        """The same for the bar, so that a run may go on under another style."""
        return "Progress"

    def state_dict(self) -> dict[str, Any]:
        """Return the best accuracy so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back on a resume."""
        self._best = state_dict["best"]

    def disable(self) -> None:
        """Keep quiet (Lightning calls this on all processes but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Speak."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of this sitting."""
        self._start, self._first_epoch = time.perf_counter(), trainer.current_epoch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._enabled:
            return
        self._printed = trainer.current_epoch
        print(self.line(trainer, pl_module.scores), flush=True)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of an epoch without a validation."""
        if self._enabled and self._printed != trainer.current_epoch:
            module: Any = pl_module
            print(self.line(trainer, module.train_scores()), flush=True)

    def line(self, trainer: Trainer, scores: dict[str, float]) -> str:
        """Return the line for these scores."""
        self._best = max(self._best, scores.get("val/accuracy", 0.0))
        total = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        done = trainer.current_epoch + 1
        passed = time.perf_counter() - self._start
        parts = [f"epoch {done}/{total}", f"step {trainer.global_step}"]
        parts += [f"{name} {scores[name]:.4f}" for name in scores if name in _SHOWN]
        if self._best or "val/accuracy" in scores:
            parts.append(f"best val/accuracy {self._best:.4f}")
        parts.append(f"{duration(passed)} passed")
        if isinstance(total, int):
            left = passed / (done - self._first_epoch) * (total - done)
            parts.append(f"{duration(left)} left")
        return " | ".join(parts)


_SHOWN = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class EpochBar(TQDMProgressBar):
    """Lightning's bar with the epoch's line printed above it."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = EpochLines()
        self.state_dict = self._lines.state_dict  # type: ignore[method-assign]
        self.load_state_dict = self._lines.load_state_dict  # type: ignore[method-assign]

    @property
    def state_key(self) -> str:
        """See EpochLines."""
        return self._lines.state_key

    def on_train_start(self, *args: Any) -> None:
        """Start the bar and the clock."""
        super().on_train_start(*args)
        self._lines.on_train_start(*args)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line above the bar."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and trainer.state.fn == "fit" and self.is_enabled:
            self.print(self._lines.line(trainer, pl_module.scores))  # type: ignore[arg-type]


def progress_callback(style: Style) -> ProgressBar | None:
    """Return the callback for `--progress`; auto is a bar on a terminal, lines elsewhere."""
    if style == "off":
        return None
    return EpochBar() if shows_bar(style) else EpochLines()


def shows_bar(style: Style) -> bool:
    """Return whether a bar is shown; `auto` shows one on a terminal alone."""
    return style == "bar" or (style == "auto" and sys.stderr.isatty())


def duration(seconds: float) -> str:
    """Return 7 s, 3 min 7 s or 2 h 3 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
