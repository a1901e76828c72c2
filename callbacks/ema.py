"""Weights averaged over time: what is validated, saved as the result, tested and used."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
)
from torch import Tensor

from src.errors import UserError

State = dict[str, Tensor]  # by name, as in a state_dict
_SHARDED = (ModelParallelStrategy, FSDPStrategy, DeepSpeedStrategy)
_HALF = (torch.float16, torch.bfloat16)


class EMA(EMAWeightAveraging):
    """Keeps an exponential moving average of the weights, which every score and result is of.

    After an update it is `d * average + (1 - d) * weights` with d from `warm_decay`; it starts as
    the weights that the training starts from. Running statistics are averaged as well, and whole
    numbers (how many batches BatchNorm has seen) taken over. Validation works with the average, and
    each checkpoint holds it as `state_dict`, so test, predict and `--init_from` take it; what is
    trained on lies beside it. Leave the callback out, or set decay 0, to do without.

    Args:
        decay: How much of the average an update keeps in the end, 0 up to but not 1. 0.998 averages
            over about 500 updates.
        every_n_steps: Optimizer steps from one update to the next, from 1.

    Raises:
        UserError: for a value out of range; before the training, if the weights are sharded.
    """

    def __init__(self, decay: float = 0.998, every_n_steps: int = 1) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"decay of callbacks.EMA is {decay}; allowed is 0 up to but not 1.")
        if every_n_steps < 1:
            raise UserError(f"every_n_steps of callbacks.EMA is {every_n_steps}; allowed is 1 up.")
        super().__init__(decay=decay, update_every_n_steps=every_n_steps)
        self.decay = decay
        self._forget()

    def _forget(self) -> None:
        self.updates = 0
        self._latest_update_step, self._latest_update_epoch = 0, -1
        self._average: State = {}  # empty outside of a fit
        self._raw: State = {}  # what is trained on, while the module holds the average
        self._taken: set[str] = set()  # names of what is taken over instead of averaged

    # Keeping the average

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew; a checkpoint is loaded after this.

        Raises:
            UserError: if each process has but a share of the weights.
        """
        if stage != "fit":
            return
        check_whole("callbacks.EMA", trainer.strategy)
        self._forget()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay the average out as the weights, on their device, and start it if it is a new one."""
        live = _state(pl_module)
        saved = self._average or live
        self._average = {name: _like(tensor, saved[name]) for name, tensor in live.items()}
        weights = {name for name, _ in pl_module.named_parameters()}
        self._taken = {
            name
            for name, tensor in self._average.items()
            if not tensor.is_floating_point()
            or (name not in weights and not tensor.isfinite().all())  # such as a mask
        }

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether an update follows the step of this number, counted from 0."""
        return step_idx is not None and (step_idx + 1) % self.update_every_n_steps == 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average if the optimizer has stepped; nothing waits for the device."""
        step = trainer.global_step
        if step > self._latest_update_step and self.should_update(step - 1):
            self._update(pl_module)
            self._latest_update_step = step

    @torch.no_grad()
    def _update(self, module: LightningModule) -> None:
        live = _state(module)
        means = [name for name in self._average if name not in self._taken]
        averages = [self._average[name] for name in means]
        weights = [live[name].to(self._average[name].dtype) for name in means]
        torch._foreach_lerp_(averages, weights, 1 - warm_decay(self.updates, self.decay))
        for name in self._taken:
            self._average[name].copy_(live[name])
        self.updates += 1

    # The module holds the average in a validation, and at the end

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the module hold the average."""
        if trainer.state.fn == "fit":
            self._swap_in(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let it hold again what is trained on."""
        if trainer.state.fn == "fit":
            _copy(self._raw, _state(pl_module))
            self._raw = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        self._swap_in(pl_module)

    def _swap_in(self, module: LightningModule) -> None:
        live = _state(module)
        self._raw = {name: tensor.clone() for name, tensor in live.items()}
        _copy(self._average, live)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the copies go; the module keeps the average."""
        if stage == "fit":
            self._average, self._raw = {}, {}

    # Checkpoints: laid out as Lightning's own, whether or not the module holds the average

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average as `state_dict`, and what is trained on as `current_model_state`."""
        if self._average:
            found = checkpoint["state_dict"]
            checkpoint["current_model_state"] = {**found, **self._raw}
            checkpoint["state_dict"] = {**found, **self._average}
            checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self.updates)}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take both back in a fit; a file without an average starts one from its weights."""
        if trainer.state.fn == "fit" and "current_model_state" in checkpoint:
            found = checkpoint["state_dict"]
            self._average = {name: found[name] for name in _state(pl_module)}
            pl_module.load_state_dict(checkpoint["current_model_state"])

    def state_dict(self) -> dict[str, Any]:
        """Return when the latest update was, and how many there were."""
        return {
            "latest_update_step": self._latest_update_step,
            "latest_update_epoch": self._latest_update_epoch,
            "updates": self.updates,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self._latest_update_step = state_dict["latest_update_step"]
        self._latest_update_epoch = state_dict["latest_update_epoch"]
        self.updates = state_dict["updates"]


def warm_decay(updates: int, decay: float) -> float:
    """Return how much of the average an update keeps: little at first, `decay` in the end.

    The warm-up of TensorFlow's `tf.train.ExponentialMovingAverage` (its `num_updates`), for the
    averaging of Polyak and Juditsky 1992: an average that started from random weights forgets them.

    Args:
        updates: How many there were before this one.
        decay: In the end, 0 up to but not 1.
    """
    return min(decay, (1 + updates) / (10 + updates))


def check_whole(name: str, strategy: Strategy) -> None:
    """Raise UserError for a callback that needs whole weights where a process has but a share."""
    if isinstance(strategy, _SHARDED):
        raise UserError(
            f"{name} needs the whole weights in every process, and trainer.strategy is "
            f"{type(strategy).__name__}, which shares them out. Leave {name} out, or take ddp."
        )


def _state(module: LightningModule) -> State:
    """Return the tensors that a checkpoint would hold; they share the module's memory."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    """Return a copy of values where and as a tensor lies; half precision would not hold a mean."""
    dtype = torch.float32 if tensor.dtype in _HALF else tensor.dtype
    return torch.empty_like(tensor, dtype=dtype).copy_(values)


def _copy(source: State, target: State) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
