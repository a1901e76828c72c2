"""When a validation is due and when the training ends, by hand and beside a real Trainer."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.optim import SGD

from src.classifier import Classifier
from src.loop.counters import step_plateaus, training_ends, validation_follows
from tests.loop.helpers import StubTrainer, make_data, make_trainer, small


def due(epochs: int = 4, batches: int = 6, **options: Any) -> list[tuple[int, int]]:
    """Return (epoch, batch) of all validations that are due."""
    trainer: Any = StubTrainer(**options)
    found = []
    for epoch in range(epochs):
        for batch in range(batches):
            trainer.current_epoch = epoch
            trainer.fit_loop.epoch_loop.total_batch_idx = epoch * batches + batch
            if validation_follows(trainer, batch):
                found.append((epoch, batch))
    return found


class TestValidationFollows:
    def test_at_the_end_of_every_epoch(self) -> None:
        assert due(val_check_batch=6) == [(0, 5), (1, 5), (2, 5), (3, 5)]

    def test_every_second_batch_of_an_epoch(self) -> None:
        assert due(1, val_check_batch=2) == [(0, 1), (0, 3), (0, 5)]

    def test_an_interval_begins_anew_with_the_epoch(self) -> None:
        assert due(2, val_check_batch=4) == [(0, 3), (1, 3)]

    def test_every_second_epoch(self) -> None:
        found = due(val_check_batch=3, check_val_every_n_epoch=2)
        assert found == [(1, 2), (1, 5), (3, 2), (3, 5)]

    def test_over_the_epochs(self) -> None:
        """Every fourth batch of the run: the batches 4, 8, ... 24 of four epochs of six."""
        found = due(val_check_batch=4, check_val_every_n_epoch=None)
        assert found == [(0, 3), (1, 1), (1, 5), (2, 3), (3, 1), (3, 5)]

    @pytest.mark.parametrize(
        "options",
        [
            {"enable_validation": False},
            {"val_check_batch": None},
            {"val_dataloaders": [object()], "num_val_batches": [0]},
            {"val_dataloaders": [], "num_val_batches": []},
        ],
        ids=["off", "no interval", "no batches", "no pictures"],
    )
    def test_never(self, options: dict[str, Any]) -> None:
        assert due(**{"val_check_batch": 2, **options}) == []

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"val_check_interval": 3},
            {"val_check_interval": 0.5},
            {"check_val_every_n_epoch": 2},
            {"val_check_interval": 3, "check_val_every_n_epoch": None},
            {"val_check_interval": 2, "check_val_every_n_epoch": 3},
            {"limit_val_batches": 0},
        ],
        ids=str,
    )
    def test_is_what_lightning_does(
        self, options: dict[str, Any], root: Path, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        watch = Watch()
        model = Classifier(2, net=small, optimizer=partial(SGD, lr=0.01))
        trainer = make_trainer(
            tmp_path, watch, max_epochs=3, num_sanity_val_steps=0, **options
        )  # four batches an epoch
        trainer.fit(model, datamodule=make_data(root))
        assert len(watch.said) == 12
        assert watch.said == watch.happened


class Watch(Callback):
    """Notes after which batches a validation is said to follow, and after which one does."""

    def __init__(self) -> None:
        self.said: list[bool] = []
        self.happened: list[bool] = []

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, out: Any, batch: Any, n: int
    ) -> None:
        self.said.append(validation_follows(trainer, n))
        self.happened.append(False)

    def on_validation_start(self, *_: Any) -> None:
        self.happened[-1] = True


class TestTrainingEnds:
    def ends(self, step: int = 10, processed: int = 0, **options: Any) -> bool:
        trainer: Any = StubTrainer(step=step, **options)
        trainer.fit_loop.epoch_progress.current.processed = processed
        return training_ends(trainer)

    @pytest.mark.parametrize(
        ("max_steps", "ends"), [(-1, False), (11, False), (10, True), (9, True), (0, True)]
    )
    def test_by_its_steps(self, max_steps: int, ends: bool) -> None:
        assert self.ends(max_steps=max_steps) is ends

    @pytest.mark.parametrize(
        ("options", "ends"),
        [
            ({}, True),
            ({"min_epochs": 2}, False),
            ({"min_epochs": 2, "processed": 1}, False),
            ({"min_epochs": 2, "processed": 2}, True),
            ({"min_steps": 11}, False),
            ({"min_steps": 10}, True),
            ({"min_steps": 10, "min_epochs": 1}, False),
            ({"min_steps": 11, "max_steps": 10}, True),  # max_steps rules
        ],
    )
    def test_when_a_callback_says_so(self, options: dict[str, Any], ends: bool) -> None:
        assert self.ends(should_stop=True, **options) is ends

    def test_not_by_the_least_alone(self) -> None:
        assert not self.ends(min_epochs=0, min_steps=5, processed=3)


class TestPlateaus:
    def stepped(self, epochs: int, value: float | None = 0.5, **config: Any) -> list[float]:
        found: list[float] = []
        counts = {"ready": 0, "completed": 0}

        def count(name: str) -> None:
            counts[name] += 1

        schedule = {
            "monitor": "val/loss", "reduce_on_plateau": True, "frequency": 1,
            "scheduler": SimpleNamespace(step=found.append),
        }  # fmt: skip
        trainer: Any = StubTrainer(lr_scheduler_configs=[SimpleNamespace(**schedule | config)])
        trainer.fit_loop.epoch_loop.scheduler_progress = SimpleNamespace(
            increment_ready=partial(count, "ready"), increment_completed=partial(count, "completed")
        )
        if value is not None:
            trainer.callback_metrics["val/loss"] = torch.tensor(value)
        step_plateaus(trainer, epochs)
        assert counts == {"ready": len(found), "completed": len(found)}
        return found

    def test_step_with_the_latest_score(self) -> None:
        assert self.stepped(3) == [0.5]

    def test_step_as_often_as_there_is_a_score(self) -> None:
        assert self.stepped(2, frequency=2) == [0.5]
        assert self.stepped(3, frequency=2) == []
        assert self.stepped(3, value=None) == []

    def test_other_schedules_are_left_alone(self) -> None:
        assert self.stepped(3, reduce_on_plateau=False) == []
