"""What of an optimizer's saved state is taken over, and what the config says instead."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from src.errors import UserError


class OptimizerStart(Callback):
    """Gives the fresh optimizer the state of a checkpoint's; rates stay those of the config.

    Args:
        checkpoint: Contents of the checkpoint.
    """

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self.saved = checkpoint["optimizer_states"][0]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the state.

        Raises:
            UserError: if it belongs to other groups, or to tensors of other shapes.
        """
        optimizer = trainer.optimizers[0]
        fresh = optimizer.state_dict()
        theirs, ours = (_members(state["param_groups"]) for state in (self.saved, fresh))
        if [len(group) for group in theirs] != [len(group) for group in ours]:
            raise UserError(
                "--init_optimizer true: the optimizer state is of other parameter groups "
                f"({[len(group) for group in theirs]} for {[len(group) for group in ours]} "
                "parameters). Leave it out."
            )
        saved = self._renumbered(chain(*theirs), chain(*ours))
        tensors = chain(*_members(optimizer.param_groups))
        for number, tensor in zip(chain(*ours), tensors, strict=True):
            state = saved.get(number, {})
            shapes = [v.shape for v in state.values() if hasattr(v, "shape") and v.dim()]
            if any(shape != tensor.shape for shape in shapes):
                raise UserError(
                    "--init_optimizer true: the optimizer state is of other tensors "
                    f"({list(shapes[0])} for {list(tensor.shape)}). Leave it out."
                )
        optimizer.load_state_dict({"state": saved, "param_groups": fresh["param_groups"]})
        self.saved = {}

    def _renumbered(self, theirs: Iterable[int], ours: Iterable[int]) -> dict[int, Any]:
        """Return the state of each parameter under the number that it has here."""
        state = self.saved["state"]
        pairs = zip(theirs, ours, strict=True)
        return {own: state[number] for number, own in pairs if number in state}


def _members(groups: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return what each group holds: parameters, or their numbers."""
    return [list(group["params"]) for group in groups]


class ConfiguredRates(Callback):
    """Gives a resumed optimizer the settings of the config instead of the checkpoint's.

    A schedule goes on from where it was, as a share of the new rate.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set learning rate, momentum, weight decay and the like; momenta stay."""
        module: Any = pl_module
        fresh = module.build_optimizer()
        for group, wanted in zip(
            trainer.optimizers[0].param_groups, fresh.param_groups, strict=True
        ):
            share = group["lr"] / group.get("initial_lr", group["lr"]) if group["lr"] else 1.0
            group.update({k: v for k, v in wanted.items() if k != "params"})
            if "initial_lr" in group:
                group["initial_lr"] = wanted["lr"]
            group["lr"] = wanted["lr"] * share
        for schedule in trainer.lr_scheduler_configs:
            if hasattr(schedule.scheduler, "base_lrs"):
                schedule.scheduler.base_lrs = [group["lr"] for group in fresh.param_groups]
