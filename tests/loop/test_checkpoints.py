"""Which checkpoint is the best, and what a resumed run knows of it."""

import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import SGD

from src.classifier import Classifier
from src.errors import UserError
from src.loop.checkpoints import Checkpoints
from tests.loop.helpers import StubTrainer, make_data, make_trainer, module, small

NAN = math.nan


class Rates(Callback):
    """Notes the rate that every batch is trained with."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.used.append(trainer.optimizers[0].param_groups[0]["lr"])


def best_of(history: list[dict[str, float]], **options: Any) -> int:
    """Return the epoch of best.ckpt after these validations."""
    checkpoints = Checkpoints(Path("checkpoints"), **options)
    for epoch, scores in enumerate(history):
        trainer = StubTrainer(epoch, epoch + 1)
        checkpoints.on_validation_end(trainer, module(**scores))  # type: ignore[arg-type]
        written = [("best.ckpt", epoch + 1)] if checkpoints.best.get("epoch") == epoch else []
        assert trainer.saved == written
    found: int = checkpoints.best["epoch"]
    return found


def accuracies(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in pairs]


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("pairs", "best"),
        [
            ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 1),  # the accuracy rules
            ([(0.7, 1.0), (0.7, 0.9), (0.7, 0.95)], 1),  # a tie goes to the lower loss
            ([(0.7, 1.0), (0.7, 1.0)], 0),  # then to the earlier
            ([(NAN, 1.0), (0.0, 9.0)], 1),  # any number beats none
            ([(0.0, 9.0), (NAN, 1.0)], 0),
            ([(0.7, NAN), (0.7, 99.0)], 1),
            ([(0.7, 99.0), (0.7, NAN)], 0),
        ],
    )
    def test_best_by_hand(self, pairs: list[tuple[float, float]], best: int) -> None:
        assert best_of(accuracies(*pairs)) == best

    def test_the_lowest_where_low_is_good(self) -> None:
        history = accuracies((0.5, 2.0), (0.5, NAN), (0.9, 1.0), (0.1, 1.0))
        assert best_of(history, monitor="val/loss", mode="min") == 2

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0.0, 0.5, 1.0, NAN]), st.sampled_from([0.1, 0.2, math.inf, NAN])
            ),
            min_size=1,
        )
    )
    @settings(deadline=None)
    def test_best_is_the_maximum_of_the_history(self, pairs: list[tuple[float, float]]) -> None:
        def rank(epoch: int) -> tuple[float, ...]:
            accuracy, loss = (-math.inf if math.isnan(x) else x for x in pairs[epoch])
            return accuracy, -math.inf if math.isnan(pairs[epoch][1]) else -loss, -epoch

        if all(math.isnan(accuracy) for accuracy, _ in pairs):
            with pytest.raises(KeyError):  # nothing is the best
                best_of(accuracies(*pairs))
        else:
            assert best_of(accuracies(*pairs)) == max(range(len(pairs)), key=rank)

    def test_the_best_goes_on_after_a_resume(self) -> None:
        first = Checkpoints(Path("checkpoints"))
        first.on_validation_end(StubTrainer(3, 30), module(val_accuracy=0.8, val_loss=1.0))  # type: ignore[arg-type]
        resumed = Checkpoints(Path("checkpoints"))
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
        trainer = StubTrainer(4, 40)
        resumed.on_validation_end(trainer, module(val_accuracy=0.7, val_loss=0.1))  # type: ignore[arg-type]
        assert trainer.saved == []
        assert resumed.best == {"val/accuracy": 0.8, "val/loss": 1.0, "epoch": 3, "step": 30}

    @pytest.mark.parametrize(
        "options",
        [{"sanity_checking": True}, {"state": SimpleNamespace(fn="validate")}],
        ids=["sanity check", "validate"],
    )
    def test_only_a_fits_validations_count(self, options: dict[str, Any]) -> None:
        trainer = StubTrainer(**options)
        checkpoints = Checkpoints(Path("checkpoints"))
        checkpoints.on_validation_end(trainer, module(val_accuracy=1.0, val_loss=0.0))  # type: ignore[arg-type]
        assert (trainer.saved, checkpoints.best) == ([], {})

    @pytest.mark.parametrize(("leader", "left"), [(True, ["last.ckpt"]), (False, None)])
    def test_a_start_sweeps_what_a_kill_left(
        self, tmp_path: Path, leader: bool, left: list[str] | None
    ) -> None:
        names = ["last.ckpt", "last.ckpt.123.tmp"]
        for name in names:
            (tmp_path / name).touch()
        trainer: Any = StubTrainer(is_global_zero=leader)
        Checkpoints(tmp_path).on_train_start(trainer, module())
        assert sorted(path.name for path in tmp_path.iterdir()) == (left or names)

    def test_a_resumed_run_goes_on_with_a_plateau_schedule(
        self, root: Path, tmp_path: Path
    ) -> None:
        """Lightning steps it after the last moment at which an epoch can be saved."""
        whole = self.plateau_rates(root, tmp_path / "whole", 6)
        assert len(set(whole)) > 2  # the rate falls more than once
        for epochs in (1, 2, 3, 5):
            folder = tmp_path / f"parts{epochs}"
            first = self.plateau_rates(root, folder, epochs)
            rest = self.plateau_rates(root, folder, 6, folder / "last.ckpt")
            assert first + rest == whole

    def plateau_rates(
        self, root: Path, folder: Path, epochs: int, resumed: Path | None = None
    ) -> list[float]:
        """Return the rate of each epoch of a run in which no epoch is better than the first."""
        torch.manual_seed(0)
        plateau = partial(
            ReduceLROnPlateau, monitor="val/loss", patience=1, factor=0.5, threshold=9,
            threshold_mode="abs",
        )  # fmt: skip
        model = Classifier(2, net=small, optimizer=partial(SGD, lr=0.125), scheduler=plateau)
        rates = Rates()
        callbacks = (rates, Checkpoints(folder))
        trainer = make_trainer(folder, *callbacks, max_epochs=epochs, enable_checkpointing=True)
        trainer.fit(model, datamodule=make_data(root, batch_size=12), ckpt_path=resumed)
        return rates.used

    @pytest.mark.parametrize(
        ("name", "match"),
        [
            ("val/acuracy", r"--monitor val/acuracy is none of .*did you mean 'val/accuracy'\?"),
            ("x", r"Allowed: val/accuracy, val/loss, val/loss_calibrated, val/f1, val/auroc, "),
        ],
    )
    def test_an_unknown_monitor(self, name: str, match: str) -> None:
        with pytest.raises(UserError, match=match):
            Checkpoints(Path("checkpoints"), monitor=name)

    def test_a_new_folder_has_a_best_of_its_own(self) -> None:
        first = Checkpoints(Path("checkpoints"))
        first.on_validation_end(StubTrainer(3, 30), module(val_accuracy=0.8, val_loss=1.0))  # type: ignore[arg-type]
        elsewhere = Checkpoints(Path("new"), goes_on=False)
        elsewhere.load_state_dict(first.state_dict())
        trainer = StubTrainer(4, 40)
        elsewhere.on_validation_end(trainer, module(val_accuracy=0.1, val_loss=9.0))  # type: ignore[arg-type]
        assert trainer.saved == [("best.ckpt", 40)]

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"every_steps": 0}, r"--checkpoint_every_steps is 0; allowed is 1 or more, or null"),
            ({"every_steps": -5}, r"--checkpoint_every_steps is -5;"),
            ({"every_minutes": 0.0}, r"--checkpoint_every_minutes is 0.0; allowed is above 0"),
            ({"every_minutes": math.nan}, r"--checkpoint_every_minutes is nan;"),
            ({"every_minutes": math.inf}, r"--checkpoint_every_minutes is inf;"),
        ],
    )
    def test_distances_out_of_range(self, options: dict[str, Any], match: str) -> None:
        with pytest.raises(UserError, match=match):
            Checkpoints(Path("checkpoints"), **options)
        Checkpoints(Path("checkpoints"), every_steps=1, every_minutes=0.01)
