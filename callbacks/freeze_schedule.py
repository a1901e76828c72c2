"""The head of a network first, the layers below it later."""

import sys
from itertools import chain
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ParallelStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from callbacks.ema import check_whole
from src.errors import UserError
from src.param_groups import has_layers, layers_of


class FreezeSchedule(Callback):
    """Trains the head alone at first, then the layers below it too; says how much at each change.

    What is frozen gets no gradient, so no momentum and no weight decay moves it, and its BatchNorms
    work with the statistics they have and keep them. A loss with weights always trains. What is
    frozen follows from the epoch alone, so a resumed run freezes the same.

    Without ddp, frozen layers cost no backward pass. With it, all gradients are computed and the
    frozen ones dropped, since each process expects the same ones of the others all the time.

    Args:
        epochs: Epochs trained before more of the network joins, from 1. One number: all of it does
            then. Several, ascending: each adds the layer below, by the network's method `layers`,
            and the last all that is left.

    Raises:
        UserError: for numbers out of range; before the training, if the network has no method
            `layers` and no layer by the name `head`, or fewer layers than numbers.
    """

    def __init__(self, epochs: int | list[int] = 1) -> None:
        self.epochs = [epochs] if isinstance(epochs, int) else list(epochs)
        if not self.epochs or self.epochs[0] < 1 or sorted({*self.epochs}) != self.epochs:
            raise UserError(
                f"epochs of callbacks.FreezeSchedule is {epochs}; allowed are whole numbers from "
                "1, each above the one before."
            )
        self._trainable: list[nn.Parameter] = []  # what the network itself does not freeze
        self._frozen: set[int] | None = None  # ids
        self._still: list[nn.Module] = []  # BatchNorms that were put into evaluation mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the network.

        Raises:
            UserError: if it has no such layers, or each process has but a share of the weights.
        """
        if stage != "fit":
            return
        check_whole("callbacks.FreezeSchedule", trainer.strategy)
        net = _net(pl_module)
        _parts(net, len(self.epochs))
        self._trainable = [weight for weight in net.parameters() if weight.requires_grad]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what is frozen in this epoch; inside one, a run goes on without its start."""
        if trainer.is_global_zero and 0 < (trainer.max_epochs or -1) <= self.epochs[0]:
            print(
                f"WARNING: callbacks.FreezeSchedule trains the head alone for {self.epochs[0]} "
                f"epoch(s), and the run has {trainer.max_epochs}: nothing below will "
                "be trained. Give the run more epochs or minutes, or leave the callback out.",
                file=sys.stderr,
            )
        self._settle(trainer, _net(pl_module))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what is frozen in this epoch."""
        self._settle(trainer, _net(pl_module))

    def _settle(self, trainer: Trainer, net: nn.Module) -> None:
        epochs: Any = trainer.fit_loop.epoch_progress
        epoch = epochs.current.processed  # unlike trainer.current_epoch, right on every resume
        joined = sum(epoch >= number for number in self.epochs)
        frozen = {id(weight) for weight in chain(*_parts(net, len(self.epochs))[joined + 1 :])}
        if frozen == self._frozen:
            return
        self._frozen = frozen
        if not isinstance(trainer.strategy, ParallelStrategy):
            for weight in self._trainable:
                weight.requires_grad_(id(weight) not in frozen)
        self._still_norms(net)
        trained = sum(p.numel() for p in self._trainable if id(p) not in frozen)
        total = sum(p.numel() for p in net.parameters())
        if trainer.is_global_zero:
            print(f"epoch {epoch + 1}: {trained:,} of {total:,} parameters are trained", flush=True)

    def _still_norms(self, net: nn.Module) -> None:
        """Put the BatchNorms of what is frozen into evaluation mode, and wake the others."""
        for norm in self._still:
            norm.train()
        norms = [part for part in net.modules() if isinstance(part, _BatchNorm) and part.training]
        self._still = [norm for norm in norms if self._is_frozen(norm)]
        for norm in self._still:
            norm.eval()

    def _is_frozen(self, norm: nn.Module) -> bool:
        """Return whether nothing in a norm is trained; one without weights waits for all others."""
        assert self._frozen is not None
        weights = list(norm.parameters())
        return bool(self._frozen) and all(id(weight) in self._frozen for weight in weights)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Drop the gradients of what is frozen, before they are clipped."""
        for weight in self._trainable:
            if id(weight) in (self._frozen or ()):
                weight.grad = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the network as it came."""
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the network as it came."""
        self._release()

    def _release(self) -> None:
        for weight in self._trainable:
            weight.requires_grad_(True)
        for norm in self._still:
            norm.train()
        self._trainable, self._still, self._frozen = [], [], None


def _net(module: LightningModule) -> nn.Module:
    """Return the network inside, where there is one."""
    found = getattr(module, "net", module)
    return found if isinstance(found, nn.Module) else module


def _parts(net: nn.Module, below: int) -> list[list[nn.Parameter]]:
    """Return the parameters in the order in which they join: the head, then `below` parts.

    Raises:
        UserError: if the network does not say what they are.
    """
    last = getattr(net, "head", None)
    if below == 1 and isinstance(last, nn.Module) and not has_layers(net):
        head = list(last.parameters())
        ids = {id(weight) for weight in head}
        return [head, [weight for weight in net.parameters() if id(weight) not in ids]]
    layers = layers_of(net, "callbacks.FreezeSchedule")[::-1]
    if len(layers) <= below:
        raise UserError(
            f"epochs of callbacks.FreezeSchedule has {below} numbers and {type(net).__name__} has "
            f"{len(layers)} layers, the head among them. Give at most {len(layers) - 1}."
        )
    return [*layers[:below], list(chain(*layers[below:]))]
