"""An optimizer and the schedule that moves its rates, as Lightning takes them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import Optimizer

from src.errors import UserError
from src.param_groups import check_rates


def with_schedule(
    optimizer: Optimizer, make_scheduler: Callable[..., Any] | None, module: LightningModule
) -> Any:
    """Return what `configure_optimizers` returns.

    Args:
        optimizer: Its rates are the peaks.
        make_scheduler: Called with it, and with the number of optimizer steps of the run where it
            takes `total_steps`: such a schedule moves every step, others every epoch. None keeps
            the rates.
        module: Knows the Trainer, which is asked only where there is a schedule.

    Raises:
        UserError: if the schedule sets one rate for groups of several, or needs to know where a run
            without an end ends.
    """
    if make_scheduler is None:
        return optimizer
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = _schedule(optimizer, make_scheduler, module)
    check_rates(optimizer, rates, type(scheduler).__name__)
    plan: dict[str, Any] = {"scheduler": scheduler}
    plan["interval"] = "step" if hasattr(scheduler, "total_steps") else "epoch"
    if isinstance(scheduler, ReduceLROnPlateau):
        plan["monitor"] = scheduler.monitor
        plan["frequency"] = module.trainer.check_val_every_n_epoch or 1  # it needs a new score
    return {"optimizer": optimizer, "lr_scheduler": plan}


def _schedule(
    optimizer: Optimizer, make_scheduler: Callable[..., Any], module: LightningModule
) -> Any:
    try:
        return make_scheduler(optimizer)
    except (TypeError, ValueError) as error:  # a schedule that must know where it ends
        if "total_steps" not in str(error):
            raise
    steps = module.trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise UserError(
            "the schedule needs to know where it ends and the run has no end. "
            "Set --trainer.max_epochs or --trainer.max_steps."
        )
    return make_scheduler(optimizer, total_steps=int(steps))


@contextmanager
def named_refusals() -> Iterator[None]:
    """Turn what an optimizer or a schedule refuses into a UserError that names the options."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UserError(f"model.optimizer or model.scheduler: {error}.") from error
