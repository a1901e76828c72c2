"""A Trainer that only stands there, a tiny network, and a real Trainer for a few steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.optim import SGD

from src.data.datamodule import DataModule
from tests.cli.conftest import SIZE


class StubStrategy:
    """One process among others that answer as it does."""

    def __init__(self) -> None:
        self.barriers: list[str] = []
        self.launcher = None

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        return decision

    def broadcast(self, value: Any) -> Any:
        return value

    def barrier(self, name: str) -> None:
        self.barriers.append(name)


class StubTrainer:
    """What the callbacks of a run ask of a Trainer."""

    def __init__(self, epoch: int = 0, step: int = 0, **options: Any) -> None:
        self.current_epoch, self.global_step = epoch, step
        self.sanity_checking, self.is_global_zero, self.global_rank = False, True, 0
        self.state, self.world_size, self.max_epochs = SimpleNamespace(fn="fit"), 1, 5
        self.accumulate_grad_batches, self.lr_scheduler_configs = 1, []
        self.optimizers = [SGD([torch.zeros(1)], lr=0.25)]
        self.should_stop = self.is_last_batch = False
        self._signal_connector = SimpleNamespace()
        self.strategy, self.callbacks, self.callback_metrics = StubStrategy(), [], {}
        self.ckpt_path: Path | None = None
        self.max_steps, self.min_steps, self.min_epochs = -1, None, None
        # A validation every fourth batch of every epoch
        self.enable_validation, self.val_check_batch, self.check_val_every_n_epoch = True, 4, 1
        self.val_dataloaders, self.num_val_batches = None, [1]
        self.fit_loop = SimpleNamespace(
            restarting=False,
            epoch_loop=SimpleNamespace(batch_idx=0, total_batch_idx=0, max_steps=-1),
            epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=0)),
        )
        self.saved: list[tuple[str, int]] = []  # (name, step)
        self.full: OSError | None = None  # what a save raises
        for name, value in options.items():
            setattr(self, name, value)

    def save_checkpoint(self, path: Path) -> None:
        if self.full is not None:
            raise self.full
        self.saved.append((path.name, self.global_step))


def module(**scores: float) -> Any:
    """Return a model with these scores, `val_accuracy=1` for val/accuracy."""
    named = {name.replace("_", "/", 1): value for name, value in scores.items()}
    return SimpleNamespace(scores=named, device=torch.device("cpu"))


class Clock:
    """A clock that tests wind."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


class KilledError(BaseException):
    """Stands for a process that ends here."""


def make_trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        callbacks=list(callbacks), **{"enable_checkpointing": False, **options},
    )  # fmt: skip


def make_data(root: Path, **options: Any) -> DataModule:
    return DataModule(root=str(root), image_size=SIZE, **{"batch_size": 3, **options})


def small(num_classes: int, noise: float = 0.0) -> nn.Module:
    return Dropped(num_classes, noise)


class Dropped(nn.Module):
    """A linear network whose pixels are dropped, in validation too."""

    def __init__(self, num_classes: int, noise: float) -> None:
        super().__init__()
        self.head, self.noise = nn.Linear(SIZE * SIZE * 3, num_classes), noise

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.dropout(image.flatten(1) / 255, self.noise))
