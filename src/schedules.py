"""Learning rates as pure functions of (step, number of steps).

A recipe names a schedule by class path; the optimizer's `lr` is its peak. The rate of a step is
the curve at the middle of that step, `x = (step + 1/2) / total`. So one formula holds for every
number of steps from one up: a run of one step trains, a run of two steps still comes near the
peak, and no step is wasted on a rate of zero. From `x = 1` on the rate stays where it ended.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.errors import UserError


def warmup_cosine(
    step: int, total: int, warmup_fraction: float = 0.1, final_fraction: float = 0.0
) -> float:
    """Return the rate of a step, as a share of the peak: a straight rise, then half a cosine.

    Args:
        step: optimizer steps made so far, 0 for the first.
        total: optimizer steps of the whole run, 1 or more.
        warmup_fraction: share of the run spent rising from 0 to the peak, 0 up to but not 1.
        final_fraction: rate at the end as a share of the peak, 0 to 1.

    Returns:
        A number of 0 to 1; above 0 for every step of the run.
    """
    x = _middle(step, total)
    if x < warmup_fraction:
        return x / warmup_fraction
    return _half_cosine(1.0, final_fraction, (x - warmup_fraction) / (1 - warmup_fraction))


def one_cycle(
    step: int,
    total: int,
    peak_fraction: float = 0.3,
    start_fraction: float = 1 / 25,
    final_fraction: float = 1e-4,
) -> float:
    """Return the rate of a step, as a share of the peak: half a cosine up, half a cosine down.

    The one-cycle policy of Smith and Topin 2018 (arXiv 1708.07120), momentum left alone.

    Args:
        step: optimizer steps made so far, 0 for the first.
        total: optimizer steps of the whole run, 1 or more.
        peak_fraction: where in the run the peak lies, 0 up to but not 1.
        start_fraction: rate at the start as a share of the peak, 0 to 1.
        final_fraction: rate at the end as a share of the peak, 0 to 1.

    Returns:
        A number of 0 to 1; above 0 for every step of the run.
    """
    x = _middle(step, total)
    if x < peak_fraction:
        return _half_cosine(start_fraction, 1.0, x / peak_fraction)
    return _half_cosine(1.0, final_fraction, (x - peak_fraction) / (1 - peak_fraction))


class StepSchedule(LambdaLR):
    """A schedule stepped once per optimizer step, whose state is plain numbers.

    The number of steps and the shape of the curve come from the arguments each time and are never
    read from a checkpoint: only the position is. `total_steps` on the instance tells the
    LightningModule to step it after every optimizer step.

    Args:
        optimizer: its `lr` is the peak.
        total_steps: optimizer steps of the whole run, 1 or more.
        curve: (step, total) to the share of the peak.

    Raises:
        TypeError: total_steps is None.
        ValueError: total_steps is below 1.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int | None, curve: Callable[[int, int], float]
    ) -> None:
        if total_steps is None:
            # Not simply required: a recipe names the schedule without it, so it needs a default.
            raise TypeError(f"{type(self).__name__} is missing its argument total_steps.")
        if total_steps < 1:
            raise ValueError(
                f"{type(self).__name__} was given total_steps={total_steps}; a schedule needs 1 "
                "or more. The framework passes the number of optimizer steps of the run; from "
                "Python, pass total_steps yourself."
            )
        self.total_steps = total_steps
        super().__init__(optimizer, partial(_of_total, curve, total_steps))

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the schedule as plain numbers, safe to load from a stranger."""
        return {
            "last_epoch": self.last_epoch,
            "step_count": self._step_count,
            "base_lrs": list(self.base_lrs),
            "last_lr": list(self._last_lr),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a position that `state_dict` gave; the curve stays this instance's own."""
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["step_count"]
        self.base_lrs = list(state_dict["base_lrs"])
        self._last_lr = list(state_dict["last_lr"])


class WarmupCosine(StepSchedule):
    """A straight rise to the peak, then half a cosine down; see `warmup_cosine`.

    Args:
        optimizer: its `lr` is the peak.
        total_steps: optimizer steps of the whole run; leave it out, the framework fills it in.
        warmup_fraction: share of the run spent rising to the peak, 0 up to but not 1; default 0.1.
        final_fraction: rate at the end as a share of the peak, 0 to 1; default 0.

    Raises:
        UserError: a fraction lies outside its range.
        TypeError: total_steps is left out, as for any argument that is missing.
        ValueError: total_steps is below 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_fraction: float = 0.1,
        final_fraction: float = 0.0,
    ) -> None:
        _check_position("warmup_fraction", warmup_fraction)
        _check_share("final_fraction", final_fraction)
        curve = partial(
            warmup_cosine, warmup_fraction=warmup_fraction, final_fraction=final_fraction
        )
        super().__init__(optimizer, total_steps, curve)


class OneCycle(StepSchedule):
    """Half a cosine up to the peak, then half a cosine down to almost nothing; see `one_cycle`.

    Args:
        optimizer: its `lr` is the peak.
        total_steps: optimizer steps of the whole run; leave it out, the framework fills it in.
        peak_fraction: where in the run the peak lies, 0 up to but not 1; default 0.3.
        start_fraction: rate at the start as a share of the peak, 0 to 1; default 0.04.
        final_fraction: rate at the end as a share of the peak, 0 to 1; default 0.0001.

    Raises:
        UserError: a fraction lies outside its range.
        TypeError: total_steps is left out, as for any argument that is missing.
        ValueError: total_steps is below 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        peak_fraction: float = 0.3,
        start_fraction: float = 1 / 25,
        final_fraction: float = 1e-4,
    ) -> None:
        _check_position("peak_fraction", peak_fraction)
        _check_share("start_fraction", start_fraction)
        _check_share("final_fraction", final_fraction)
        curve = partial(
            one_cycle,
            peak_fraction=peak_fraction,
            start_fraction=start_fraction,
            final_fraction=final_fraction,
        )
        super().__init__(optimizer, total_steps, curve)


def _of_total(curve: Callable[[int, int], float], total: int, step: int) -> float:
    """Turn a curve of (step, total) into the factor of one step that LambdaLR asks for."""
    return curve(step, total)


def _middle(step: int, total: int) -> float:
    """Return the middle of a step on the scale of the run, 0 to 1; 1 beyond the last step."""
    return (step + 0.5) / total if step < total else 1.0


def _half_cosine(start: float, end: float, x: float) -> float:
    """Return the point x, 0 to 1, of half a cosine from start to end."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * x))


def _check_position(name: str, value: float) -> None:
    """Refuse a place in the run outside 0 <= value < 1, NaN among them."""
    if not 0 <= value < 1:
        raise UserError(
            f"{name} is {value}; it is a share of the run, from 0 up to but not 1. "
            "Set it in the scheduler's init_args."
        )


def _check_share(name: str, value: float) -> None:
    """Refuse a share of the peak rate outside 0 to 1, NaN among them."""
    if not 0 <= value <= 1:
        raise UserError(
            f"{name} is {value}; it is a share of the peak rate, from 0 to 1. "
            "Set it in the scheduler's init_args."
        )
