"""What makes a run a run: checkpoints, metrics.csv, the guard, step seeds, progress, wandb."""

import csv
import hashlib
import io
import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import wandb
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim import SGD
from wandb.proto import wandb_internal_pb2

from src.classifier import Classifier
from src.data.datamodule import DataModule
from src.errors import RunFailureError, UserError
from src.loop import loop_callbacks, metrics_csv, progress
from src.loop.checkpoint_io import AtomicCheckpointIO
from src.loop.checkpoints import Checkpoints
from src.loop.metrics_csv import COLUMNS, MetricsCsv, read_rows
from src.loop.nonfinite import NonFiniteGuard
from src.loop.progress import EpochBar, EpochLines, duration, progress_callback
from src.loop.step_seed import StepSeed, step_seed
from src.loop.wandb_logger import WandbLogger, has_key
from src.run import RunFolder
from src.train import main
from tests.cli.conftest import SIZE, TINY, make_pictures


class StubTrainer:
    """What the callbacks of a run ask of a Trainer."""

    def __init__(self, epoch: int = 0, step: int = 0, **options: Any) -> None:
        self.current_epoch, self.global_step = epoch, step
        self.sanity_checking, self.is_global_zero, self.global_rank = False, True, 0
        self.state, self.world_size, self.max_epochs = SimpleNamespace(fn="fit"), 1, 5
        self.accumulate_grad_batches, self.lr_scheduler_configs = 1, []
        self.optimizers = [SGD([torch.zeros(1)], lr=0.25)]
        self.should_stop = self.is_last_batch = False
        whole = SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=True))
        self.fit_loop = SimpleNamespace(epoch_loop=whole)
        self.saved: list[tuple[str, int]] = []  # (name, step)
        for name, value in options.items():
            setattr(self, name, value)

    def save_checkpoint(self, path: Path) -> None:
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


class Rates(Callback):
    """Notes the rate that every batch is trained with."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.used.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training pictures and four for validation."""
    return make_pictures(tmp_path_factory.mktemp("data"), {"train": 6, "val": 2})


def make_trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        callbacks=list(callbacks), **{"enable_checkpointing": False, **options},
    )  # fmt: skip


def make_data(root: Path, **options: Any) -> DataModule:
    return DataModule(root=str(root), image_size=SIZE, **{"batch_size": 3, **options})


# ---------------------------------------------------------------------------------------------
# Checkpoints

NAN = math.nan


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

    def test_last_is_written_once_for_each_epoch_that_is_over(self, tmp_path: Path) -> None:
        checkpoints, trainer = Checkpoints(tmp_path), StubTrainer()
        about: Any = (trainer, module())
        checkpoints.on_train_start(*about)
        for step in (7, 14):
            trainer.global_step = step
            checkpoints.on_train_epoch_end(*about)
        checkpoints.on_train_end(*about)  # nothing has been learned since
        assert trainer.saved == [("last.ckpt", 7), ("last.ckpt", 14)]
        trainer.global_step = 17
        checkpoints.on_train_end(*about)  # max_steps ends inside an epoch
        assert trainer.saved[2:] == [("last.ckpt", 17)]

    def test_a_resumed_run_does_not_write_what_it_came_from(self, tmp_path: Path) -> None:
        checkpoints, trainer = Checkpoints(tmp_path), StubTrainer(1, 7)
        about: Any = (trainer, module())
        checkpoints.on_train_start(*about)
        checkpoints.on_train_end(*about)
        assert trainer.saved == []

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
            ("x", r"Allowed: val/accuracy, val/loss, val/f1, val/auroc, train/"),
        ],
    )
    def test_an_unknown_monitor(self, name: str, match: str) -> None:
        with pytest.raises(UserError, match=match):
            Checkpoints(Path("checkpoints"), monitor=name)


# ---------------------------------------------------------------------------------------------
# Checkpoint files


class KilledError(BaseException):
    """Stands for a process that ends here."""


class TestAtomicCheckpointIO:
    def save(self, path: Path, value: int) -> None:
        AtomicCheckpointIO().save_checkpoint({"value": torch.tensor(value)}, path)

    def test_round_trip(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "last.ckpt"
        for value in (1, 2):
            self.save(path, value)
            assert AtomicCheckpointIO().load_checkpoint(path)["value"] == value
        assert [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KilledError()])
    def test_a_failure_in_the_middle_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        path = tmp_path / "last.ckpt"
        self.save(path, 1)
        before = path.read_bytes()

        def half(content: Any, file: Any) -> None:
            file.write(b"half of it")
            file.flush()
            assert path.read_bytes() == before  # never seen half written
            raise error

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(type(error)):
            self.save(path, 2)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failure_before_the_first_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(content: Any, file: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="No space left"):
            self.save(tmp_path / "last.ckpt", 1)
        assert list(tmp_path.iterdir()) == []

    def test_a_crash_between_writing_and_renaming_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "last.ckpt"
        self.save(path, 1)

        def crash(source: Path, target: Path) -> None:
            assert source.parent == target.parent  # so that the rename is one step
            assert torch.load(source, weights_only=True)["value"] == 2  # whole by now
            raise KilledError

        monkeypatch.setattr(Path, "replace", crash)
        with pytest.raises(KilledError):
            self.save(path, 2)
        monkeypatch.undo()
        assert torch.load(path, weights_only=True)["value"] == 1
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.skipif(os.name != "posix", reason="not on this system: folders can't be synced")
    def test_it_is_on_the_disk_before_it_takes_the_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, synced, sync = tmp_path / "last.ckpt", [], os.fsync

        def note(handle: int) -> None:
            synced.append(path.exists())
            sync(handle)

        monkeypatch.setattr(os, "fsync", note)
        self.save(path, 1)
        assert synced == [False, True]  # the file, then the folder with its new name


# ---------------------------------------------------------------------------------------------
# metrics.csv


def line(epoch: int, step: int) -> str:
    return f"{epoch},{step},0.5,0.75,0.6,0.7,0.65,0.8,0.1,12.345,678.9\n"


HEADER = ",".join(COLUMNS) + "\n"


class TestMetricsCsv:
    def test_a_row_by_hand(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        monkeypatch.setattr(metrics_csv, "time", clock)
        file, trainer = MetricsCsv(tmp_path / "metrics.csv"), StubTrainer(world_size=2)
        scores = module(train_loss=0.5, train_accuracy=0.75, val_loss=0.25, val_accuracy=1.0,
                        val_f1=0.125, val_auroc=NAN)  # fmt: skip
        about: Any = (trainer, scores)
        file.on_train_start(*about)
        for batch in range(4):
            trainer.optimizers[0].param_groups[0]["lr"] = 0.1 * (batch + 1)
            file.on_train_batch_start(*about, None, batch)
            clock.now += 0.5
            trainer.optimizers[0].param_groups[0]["lr"] = 9.0  # a schedule has moved it on
            file.on_train_batch_end(*about, None, {"image": torch.zeros(8)}, batch)
            if batch % 2:
                file.on_validation_start(*about)
                clock.now += 4.0
                trainer.current_epoch, trainer.global_step = batch // 2, batch + 1
                file.on_validation_end(*about)
        # 2 batches of 8 on 2 processes in a second of training; a validation takes 4 s
        assert (tmp_path / "metrics.csv").read_text() == (
            HEADER
            + "0,2,0.5,0.75,0.25,1.0,0.125,nan,0.2,5.0,32.0\n"
            + "1,4,0.5,0.75,0.25,1.0,0.125,nan,0.4,10.0,32.0\n"
        )

    def test_the_clock_goes_on_after_a_resume(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        monkeypatch.setattr(metrics_csv, "time", clock)
        first = MetricsCsv(tmp_path / "metrics.csv")
        assert first.seconds == 0
        first.on_train_start(StubTrainer(), module())  # type: ignore[arg-type]
        clock.now += 30
        state = first.state_dict()
        clock.now += 1000
        resumed = MetricsCsv(tmp_path / "metrics.csv")
        resumed.load_state_dict(state)
        assert resumed.seconds == 30
        resumed.on_train_start(StubTrainer(), module())  # type: ignore[arg-type]
        clock.now += 12
        assert resumed.seconds == 42

    @pytest.mark.parametrize(("step", "kept"), [(0, 0), (9, 0), (10, 1), (20, 2), (99, 3)])
    def test_a_resume_drops_rows_that_the_checkpoint_lacks(
        self, tmp_path: Path, step: int, kept: int
    ) -> None:
        path, rows = tmp_path / "metrics.csv", [line(0, 10), line(1, 20), line(2, 30)]
        path.write_text(HEADER + "".join(rows))
        MetricsCsv(path).on_train_start(StubTrainer(step=step), module())  # type: ignore[arg-type]
        assert path.read_text() == HEADER + "".join(rows[:kept])

    def test_other_processes_write_nothing(self, tmp_path: Path) -> None:
        file, trainer = MetricsCsv(tmp_path / "metrics.csv"), StubTrainer(is_global_zero=False)
        about: Any = (trainer, module(val_loss=1.0))
        file.on_train_start(*about)
        file.on_validation_end(*about)
        assert not (tmp_path / "metrics.csv").exists()

    @pytest.mark.parametrize(
        "options", [{"sanity_checking": True}, {"state": SimpleNamespace(fn="validate")}]
    )
    def test_only_a_fits_validations_count(self, tmp_path: Path, options: dict[str, Any]) -> None:
        file = MetricsCsv(tmp_path / "metrics.csv")
        file.on_validation_end(StubTrainer(**options), module(val_loss=1.0))  # type: ignore[arg-type]
        assert not (tmp_path / "metrics.csv").exists()

    def test_a_torn_last_line_is_dropped_wherever_it_is_torn(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.csv"
        text = HEADER + line(0, 10) + line(1, 20)
        whole = list(csv.DictReader(io.StringIO(text)))
        for cut in range(len(HEADER), len(text) - 1):
            path.write_text(text[:cut])
            ends = [text.index("\n", len(HEADER)), len(text) - 1]
            expected = whole[: sum(cut > end for end in ends)]  # a row ends with its newline
            assert read_rows(path) == expected, f"cut after {text[:cut][-12:]!r}"

    def test_no_file_has_no_rows(self, tmp_path: Path) -> None:
        assert read_rows(tmp_path / "metrics.csv") == []


# ---------------------------------------------------------------------------------------------
# The guard


class FailsAt(nn.Module):
    """A cross entropy that is no number at one of its calls."""

    def __init__(self, call: int, value: float) -> None:
        super().__init__()
        self.calls, self.call, self.value = 0, call, value

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        loss = F.cross_entropy(logits, target)
        return loss * self.value if self.calls == self.call else loss


def small(num_classes: int, noise: float = 0.0) -> nn.Module:
    return Dropped(num_classes, noise)


class Dropped(nn.Module):
    """A linear network whose pixels are dropped, in validation too."""

    def __init__(self, num_classes: int, noise: float) -> None:
        super().__init__()
        self.head, self.noise = nn.Linear(SIZE * SIZE * 3, num_classes), noise

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.dropout(image.flatten(1) / 255, self.noise))


class LossOn:
    """A loss on another device."""

    def __init__(self, value: float, device: str) -> None:
        self.value, self.device = value, torch.device(device)

    def detach(self) -> "LossOn":
        return self

    def __float__(self) -> float:
        return self.value


def stub_for_guard(count: int = 3, **options: Any) -> StubTrainer:
    index = SimpleNamespace(paths=[f"train/{i}.png" for i in range(20)])
    loader = SimpleNamespace(dataset=SimpleNamespace(index=index))
    return StubTrainer(epoch=2, step=17, train_dataloader=loader, **options)


class TestNonFiniteGuard:
    @pytest.mark.parametrize("value", [NAN, math.inf])
    @pytest.mark.parametrize(("accumulate", "steps"), [(1, 3), (2, 1)])
    def test_names_step_files_and_rate(
        self, root: Path, tmp_path: Path, value: float, accumulate: int, steps: int
    ) -> None:
        torch.manual_seed(0)
        model = Classifier(2, net=small, optimizer=partial(SGD, lr=0.125), loss=FailsAt(3, value))
        data = make_data(root)
        trainer = make_trainer(
            tmp_path, NonFiniteGuard(), max_epochs=1, accumulate_grad_batches=accumulate
        )
        with pytest.raises(RunFailureError) as raised:
            trainer.fit(model, datamodule=data)
        loader = data.train_dataloader()
        loader.position = lambda: (0, 2)
        paths = data.index("fit").subset("train").paths
        files = [paths[i] for i in next(iter(loader))["index"].tolist()]
        assert str(raised.value).startswith(
            f"the loss is {value} at step {steps} (epoch 0, batch 2), learning rate 0.125. "
            f"The batch held: {', '.join(files)}. Lower the learning rate"
        )

    def look(self, guard: NonFiniteGuard, loss: Any, batch_idx: int, rows: int = 3) -> None:
        trainer: Any = stub_for_guard()
        guard.on_before_backward(trainer, module(), loss)
        batch = {"index": torch.arange(rows)}
        guard.on_train_batch_end(trainer, module(), None, batch, batch_idx)

    def test_lets_numbers_pass(self) -> None:
        for batch_idx in range(3):
            self.look(NonFiniteGuard(every_n_steps=1), torch.tensor(1e30), batch_idx)

    def test_names_eight_files_and_counts_the_rest(self) -> None:
        named = ", ".join(f"train/{i}\\.png" for i in range(8))
        with pytest.raises(RunFailureError, match=f"held: {named} and 4 more\\. Lower"):
            self.look(NonFiniteGuard(), torch.tensor(NAN), 0, rows=12)
        with pytest.raises(RunFailureError, match=f"held: {named}\\. Lower"):
            self.look(NonFiniteGuard(), torch.tensor(NAN), 0, rows=8)

    def test_looks_at_another_device_every_n_steps_over_the_epochs(self) -> None:
        guard, loss = NonFiniteGuard(every_n_steps=4), LossOn(NAN, "cuda")
        for batch_idx in (0, 1, 0):  # the second epoch begins
            self.look(guard, loss, batch_idx)
        with pytest.raises(RunFailureError, match="the loss is nan at step 17"):
            self.look(guard, loss, 1)
        self.look(guard, loss, 2)


# ---------------------------------------------------------------------------------------------
# Step seeds


def masks(before: Callable[[], object] = lambda: None) -> list[Tensor]:
    """Return the dropout masks of three steps; `before` each of them something else is drawn."""
    callback, found = StepSeed(3), []
    for batch_idx in range(3):
        before()
        trainer: Any = StubTrainer(epoch=1)
        callback.on_train_batch_start(trainer, module(), None, batch_idx)
        found.append(F.dropout(torch.ones(64)))
    return found


class TestStepSeed:
    def test_is_the_documented_hash(self) -> None:
        key = struct.pack("<4q", 1, 2, 3, 4)
        digest = hashlib.blake2b(key, digest_size=8).digest()
        assert step_seed(1, 2, 3, 4) == int.from_bytes(digest, "little")

    @given(st.tuples(*[st.integers(0, 2**32 - 1)] * 4))
    @settings(deadline=None)
    def test_same_key_same_seed_within_64_bits(self, key: tuple[int, int, int, int]) -> None:
        assert 0 <= step_seed(*key) == step_seed(*key) < 2**64

    def test_every_part_of_the_key_counts(self) -> None:
        keys = {
            step_seed(a, b, c, d) for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)
        }
        assert len(keys) == 16

    def test_draws_in_between_change_no_mask(self) -> None:
        alone, disturbed = masks(), masks(lambda: torch.rand(1000))
        assert all(torch.equal(a, b) for a, b in zip(alone, disturbed, strict=True))
        assert not torch.equal(alone[0], alone[1])

    def test_the_process_and_the_epoch_count(self) -> None:
        found = []
        for options in ({}, {"global_rank": 1}, {"epoch": 1}):
            trainer: Any = StubTrainer(**options)  # type: ignore[arg-type]
            StepSeed(3).on_train_batch_start(trainer, module(), None, 0)
            found.append(tuple(torch.rand(4).tolist()))
        assert len(set(found)) == 3

    def test_a_run_with_and_without_validation_learns_the_same(
        self, root: Path, tmp_path: Path
    ) -> None:
        weights = []
        for batches in (0, 2):
            torch.manual_seed(0)
            net = partial(small, noise=0.5)
            model = Classifier(2, net=net, optimizer=partial(SGD, lr=0.1))
            trainer = make_trainer(
                tmp_path, StepSeed(0), max_epochs=2, limit_val_batches=batches, val_check_interval=2
            )
            trainer.fit(model, datamodule=make_data(root))
            weights.append(model.net.head.weight)
        assert torch.equal(*weights)


# ---------------------------------------------------------------------------------------------
# Progress


class TestProgress:
    @pytest.mark.parametrize(
        ("seconds", "expected"),
        [
            (0, "0 s"),
            (59.4, "59 s"),
            (59.6, "1 min 0 s"),
            (187, "3 min 7 s"),
            (3599.4, "59 min 59 s"),
            (3599.6, "1 h 0 min"),
            (7384, "2 h 3 min"),  # 2 * 3600 + 3 * 60 + 4
            (100 * 3600, "100 h 0 min"),
        ],
    )
    def test_durations_by_hand(self, seconds: float, expected: str) -> None:
        assert duration(seconds) == expected

    def test_a_line_by_hand(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        clock = Clock()
        monkeypatch.setattr(progress, "time", clock)
        lines, trainer = EpochLines(), StubTrainer(epoch=2, step=20)  # resumed after two epochs
        about: Any = (trainer, module())
        lines.on_train_start(*about)
        scores = [0.75, 0.5]
        for epoch, accuracy in enumerate(scores, 2):
            clock.now += 45
            trainer.current_epoch, trainer.global_step = epoch, 10 * (epoch + 1)
            found = module(train_loss=1 / 3, val_loss=0.25, val_accuracy=accuracy, val_f1=0.9)
            lines.on_validation_end(trainer, found)  # type: ignore[arg-type]
        # 45 s an epoch; after the third of five epochs two are left
        assert capsys.readouterr().out == (
            "epoch 3/5 | step 30 | train/loss 0.3333 | val/loss 0.2500 | val/accuracy 0.7500"
            " | best 0.7500 | 45 s passed | 1 min 30 s left\n"
            "epoch 4/5 | step 40 | train/loss 0.3333 | val/loss 0.2500 | val/accuracy 0.5000"
            " | best 0.7500 | 1 min 30 s passed | 45 s left\n"
        )

    @pytest.mark.parametrize("epochs", [-1, None])
    def test_a_run_without_a_last_epoch(self, epochs: int | None) -> None:
        trainer: Any = StubTrainer(max_epochs=epochs)
        text = EpochLines().line(trainer, {"val/accuracy": 0.5})
        assert text.startswith("epoch 1/? | step 0 | val/accuracy 0.5000 | best 0.5000 | ")
        assert not text.endswith("left")

    def test_the_best_goes_on_after_a_resume_in_another_style(self) -> None:
        lines = EpochLines()
        lines.line(StubTrainer(), {"val/accuracy": 0.75})  # type: ignore[arg-type]
        bar = EpochBar()
        assert bar.state_key == lines.state_key
        bar.load_state_dict(lines.state_dict())
        assert bar.state_dict() == {"best": 0.75}

    @pytest.mark.parametrize(
        "options", [{"sanity_checking": True}, {"state": SimpleNamespace(fn="validate")}]
    )
    def test_silence_outside_training(
        self, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        EpochLines().on_validation_end(StubTrainer(**options), module(val_accuracy=1.0))  # type: ignore[arg-type]
        assert capsys.readouterr().out == ""

    def test_one_process_speaks(self, capsys: pytest.CaptureFixture[str]) -> None:
        lines, about = EpochLines(), (StubTrainer(), module(val_accuracy=1.0))
        lines.disable()
        lines.on_validation_end(*about)  # type: ignore[arg-type]
        assert capsys.readouterr().out == ""
        lines.enable()
        lines.on_validation_end(*about)  # type: ignore[arg-type]
        assert capsys.readouterr().out.startswith("epoch 1/5")

    @pytest.mark.parametrize(
        ("style", "terminal", "expected"),
        [
            ("bar", False, EpochBar),
            ("lines", True, EpochLines),
            ("auto", True, EpochBar),
            ("auto", False, EpochLines),
            ("off", True, type(None)),
        ],
    )
    def test_styles(
        self, style: Any, terminal: bool, expected: type, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress.sys, "stderr", SimpleNamespace(isatty=lambda: terminal))
        assert type(progress_callback(style)) is expected

    def test_the_bar_prints_the_line_once_an_epoch(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.manual_seed(0)
        model = Classifier(2, net=small, optimizer=partial(SGD, lr=0.01))
        trainer = Trainer(
            accelerator="cpu", devices=1, default_root_dir=tmp_path, logger=False, max_epochs=2,
            enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
            callbacks=[EpochBar()],
        )  # fmt: skip
        trainer.fit(model, datamodule=make_data(root))
        out, err = capsys.readouterr()
        lines = [text for text in (out + err).splitlines() if " | best " in text]
        assert [text.partition(" | ")[0].strip() for text in lines] == ["epoch 1/2", "epoch 2/2"]


def options_of_fit(**changed: Any) -> Any:
    trainer = {"enable_progress_bar": None, "enable_checkpointing": None}
    options = {
        "seed_everything": 5, "stop_on_nonfinite": True, "progress": "lines",
        "monitor": "val/loss", "monitor_mode": "min",
    }  # fmt: skip
    trainer |= {name: changed.pop(name) for name in list(changed) if name in trainer}
    return SimpleNamespace(**{**options, **changed}, trainer=SimpleNamespace(**trainer))


class TestLoopCallbacks:
    @pytest.mark.parametrize(
        ("changed", "lacks"),
        [
            ({}, None),
            ({"stop_on_nonfinite": False}, NonFiniteGuard),
            ({"progress": "off"}, EpochLines),
            ({"enable_progress_bar": False}, EpochLines),
            ({"enable_checkpointing": False}, Checkpoints),
        ],
    )
    def test_plain_options_switch_them(
        self, changed: dict[str, Any], lacks: type | None, tmp_path: Path
    ) -> None:
        found = [type(c) for c in loop_callbacks(options_of_fit(**changed), RunFolder(tmp_path))]
        every = [StepSeed, NonFiniteGuard, EpochLines, MetricsCsv, Checkpoints]
        assert found == [kind for kind in every if kind is not lacks]

    def test_they_get_the_options(self, tmp_path: Path) -> None:
        seed, *_, kept = loop_callbacks(options_of_fit(), RunFolder(tmp_path))
        assert seed.seed == 5  # type: ignore[attr-defined]
        assert (kept.monitor, kept.mode) == ("val/loss", "min")  # type: ignore[attr-defined]

    def test_a_dev_run_keeps_no_files(self) -> None:
        found = {type(c) for c in loop_callbacks(options_of_fit(), None)}
        assert found == {StepSeed, NonFiniteGuard, EpochLines}


# ---------------------------------------------------------------------------------------------
# Weights & Biases

KEY = "0123456789abcdef" * 2 + "01234567"  # has the form of one and belongs to nobody


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a home without a key, and leave the mode to the logger."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_account")
class TestHasKey:
    def test_none(self) -> None:
        assert not has_key()

    @pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
    def test_in_the_environment(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "")
        assert not has_key()
        monkeypatch.setenv(name, KEY)
        assert has_key()

    @pytest.mark.parametrize("place", [".netrc", "_netrc", "elsewhere"])
    def test_where_a_login_puts_it(
        self, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "home" / place
        file.write_text(f"machine example.org login me password {KEY}\n")
        if place == "elsewhere":
            monkeypatch.setenv("NETRC", str(file))
        assert not has_key()  # another machine's
        file.write_text(f"machine api.wandb.ai login user password {KEY}\n")
        assert has_key()

    def test_of_a_server_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "home" / ".netrc"
        file.write_text(f"machine wandb.example.org:8080 login user password {KEY}\n")
        assert not has_key()
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
        assert has_key()

    @pytest.mark.parametrize("noise", [b"machine\n", b"\xff\xfe\x00noise", b""])
    def test_a_file_that_is_none_holds_none(self, noise: bytes, tmp_path: Path) -> None:
        (tmp_path / "home" / ".netrc").write_bytes(noise)
        assert not has_key()


class FakeWandb:
    """Stands in for wandb.init and notes what it was given."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[dict[str, Any]] = []
        self.fails = fails

    def __call__(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        if self.fails and arguments["mode"] == "online":
            raise wandb.errors.CommError("the server did not answer")
        return wandb.sdk.wandb_run.Run.__new__(wandb.sdk.wandb_run.Run)


@pytest.mark.usefixtures("no_account")
class TestWandbLogger:
    def begin(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, fails: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        """Begin a run with a stand-in for wandb; return the arguments of each attempt."""
        fake = FakeWandb(fails)
        monkeypatch.setattr(wandb, "init", fake)
        monkeypatch.setattr(wandb, "run", None)
        monkeypatch.setattr(wandb.sdk.wandb_run.Run, "define_metric", lambda *args, **kwargs: None)
        logger = WandbLogger(save_dir=str(folder), id="abc", **options)
        assert logger.experiment is logger.experiment  # begun once
        return fake.calls

    @pytest.mark.parametrize(
        ("key", "mode", "expected"),
        [
            ("", None, "offline"),
            (KEY, None, "online"),
            (KEY, "offline", "offline"),
            ("", "disabled", "disabled"),
        ],
    )
    def test_mode(
        self, key: str, mode: str | None, expected: str, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setenv("WANDB_API_KEY", key)
        if mode:
            monkeypatch.setenv("WANDB_MODE", mode)
        (call,) = self.begin(monkeypatch, tmp_path)
        assert call["mode"] == expected

    def test_what_wandb_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (call,) = self.begin(
            monkeypatch, tmp_path, project="bees", entity="us", name="first", group="g",
            tags=["a"], init_timeout_seconds=7.0,
        )  # fmt: skip
        told = {name: call[name] for name in ("project", "entity", "name", "group", "tags", "id")}
        assert told == {
            "project": "bees", "entity": "us", "name": "first", "group": "g", "tags": ["a"],
            "id": "abc",
        }  # fmt: skip
        assert "anonymous" not in call
        assert call["settings"].init_timeout == 7.0
        assert (call["settings"].disable_git, call["settings"].disable_code) == (True, True)

    def test_a_server_that_does_not_answer_means_offline(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        calls = self.begin(monkeypatch, tmp_path, fails=True)
        assert [call["mode"] for call in calls] == ["online", "offline"]
        assert "going on offline: the server did not answer" in capsys.readouterr().err

    def test_an_error_offline_is_no_ones_to_hide(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modes = []

        def fail(mode: str, **arguments: Any) -> None:
            modes.append(mode)
            raise wandb.errors.UsageError("no good")

        monkeypatch.setattr(wandb, "init", fail)
        monkeypatch.setattr(wandb, "run", None)
        with pytest.raises(wandb.errors.UsageError, match="no good"):
            WandbLogger(save_dir=str(tmp_path)).experiment  # noqa: B018 - begins the run
        assert modes == ["offline"]

    def test_a_server_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The real client: it gives up in time, says so, and keeps the key to itself."""
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("WANDB_X_DISABLE_VIEWER", "true")  # asks twice whose key it is, 5 s each
        run = tmp_path / "run"
        run.mkdir()
        logger = WandbLogger(save_dir=str(run), id="abc", init_timeout_seconds=1.0)
        logger.log_metrics({"val/loss": 0.5}, step=1)
        assert logger.experiment.offline
        logger.finalize("success")
        out, err = capfd.readouterr()
        assert "going on offline" in err
        assert "anonymous" not in out + err
        assert KEY not in out + err
        files = [path for path in run.rglob("*") if path.is_file()]
        assert any(path.suffix == ".wandb" for path in files)
        assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def records(path: Path) -> Iterator[Any]:
    """Read a .wandb file: LevelDB's framing in blocks of 32 KiB, a record of protobuf in each."""
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        room = 32768 - place % 32768
        if room < 7:  # no frame begins in the last bytes of a block
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        place += 7
        if not kind or place + length > len(content):
            return
        parts += content[place : place + length]
        place += length
        if kind in (1, 4):  # whole, or the last of its parts
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_a_run_is_mirrored_to_wandb_without_an_account(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = [word for word in TINY if "logger" not in word]
    code = main(
        ["fit", f"--data.root={root}", f"--run_dir={run}", *words, "--trainer.max_epochs=1",
         "--trainer.logger=src.loop.wandb_logger.WandbLogger"]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "anonymous" not in out + err
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    found = list(records(file))
    config, history, exits = {}, [], []
    for record in found:
        for update in [*record.run.config.update, *record.config.update]:
            config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            history.append(
                {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in items
                }
            )
        if record.WhichOneof("record_type") == "exit":
            exits.append(record.exit.exit_code)
    stored = yaml.safe_load((run / "config.yaml").read_text())
    shown = {key.replace("/", "."): value for key, value in config.items()}
    assert stored["data"]["classes"] == ["ant", "bug"]
    for section, options in (("model", ("net", "optimizer")), ("data", ("batch_size", "classes"))):
        for option in options:
            assert find(shown, section, option) == stored[section][option]
    (row,) = read_rows(run / "metrics.csv")
    logged = [values["val/loss"] for values in history if "val/loss" in values]
    assert logged == [pytest.approx(float(row["val/loss"]), rel=1e-6)]  # Lightning logs float32
    assert exits == [0]


def find(config: dict[str, Any], section: str, option: str) -> Any:
    """Return an option of wandb's config, whether sections are nested or written with a dot."""
    if section in config:
        return config[section][option]
    return config[f"{section}.{option}"]
