"""When last.ckpt is written, what it says of itself, and what a full disk does to a run."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Timer
from torch.optim import SGD

from src.classifier import Classifier
from src.errors import RunFailureError, StoppedRun
from src.loop import checkpoints as checkpoints_module
from src.loop.checkpoint_io import AtomicCheckpointIO
from src.loop.checkpoints import Checkpoints
from tests.loop.helpers import Clock, StubTrainer, make_data, make_trainer, module, small

FULL = OSError(28, "No space left on device")
SCORES = {"val_accuracy": 0.5, "val_loss": 1.0}


class Drive:
    """Calls the hooks as a Trainer would: 8 batches an epoch, a validation every `validates`.

    A step for each batch, but for those of an accumulation.
    """

    def __init__(self, folder: Path, validates: int = 8, **options: Any) -> None:
        self.kept = Checkpoints(folder, **options)
        self.trainer: Any = StubTrainer(val_check_batch=validates)

    def begin(self, step: int = 0) -> "Drive":
        self.trainer.global_step = step
        self.kept.on_train_start(self.trainer, module())
        return self

    def batch(self, number: int, steps: int = 1) -> None:
        trainer = self.trainer
        trainer.global_step += steps
        trainer.is_last_batch = number == 7
        trainer.fit_loop.epoch_loop.batch_idx = number
        trainer.fit_loop.epoch_loop.total_batch_idx = 8 * trainer.current_epoch + number
        self.kept.on_train_batch_end(trainer, module(), None, None, number)

    def epoch(self) -> None:
        for number in range(8):
            self.batch(number)
        self.kept.on_train_epoch_end(self.trainer, module())
        self.trainer.current_epoch += 1

    @property
    def steps(self) -> list[int]:
        """The steps after which last.ckpt was written."""
        return [step for name, step in self.trainer.saved if name == "last.ckpt"]


class TestWhen:
    def test_once_for_each_epoch_that_is_over(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        for _ in range(3):
            drive.epoch()
        drive.kept.on_train_end(drive.trainer, module())
        assert drive.steps == [8, 16, 24]

    def test_an_epoch_that_was_left_has_no_end(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        drive.batch(3)
        drive.kept.on_train_epoch_end(drive.trainer, module())
        drive.kept.on_train_end(drive.trainer, module())
        assert drive.steps == []

    def test_every_so_many_steps(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path, every_steps=3).begin()
        for _ in range(2):
            drive.epoch()
        # 3 and 6; then the end of the epoch at 8, from which the next are counted
        assert drive.steps == [3, 6, 8, 11, 14, 16]

    def test_steps_are_counted_from_a_resume(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path, every_steps=3).begin(step=10)
        for number in range(2, 6):
            drive.batch(number)
        assert drive.steps == [13]

    def test_never_between_the_batches_of_one_step(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path, every_steps=1).begin()
        for number, steps in enumerate((0, 0, 1, 0)):
            drive.batch(number, steps)
        assert drive.trainer.saved == [("last.ckpt", 1)]

    def test_a_signal_in_an_accumulation_waits_for_the_step(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        drive.batch(0, steps=0)
        drive.kept.signals.received = "SIGTERM"
        drive.batch(1, steps=0)
        assert drive.steps == []
        with pytest.raises(StoppedRun):
            drive.batch(2, steps=1)
        assert drive.steps == [1]

    def test_a_stop_in_an_accumulation_waits_for_the_step(self, tmp_path: Path) -> None:
        """As --trainer.max_time asks for it: the gradients so far are stored nowhere."""
        drive = Drive(tmp_path).begin()
        drive.trainer.should_stop = True
        drive.batch(0, steps=0)
        assert not drive.trainer.should_stop
        drive.batch(1, steps=0)
        drive.batch(2, steps=1)
        assert drive.trainer.should_stop
        assert drive.steps == [1]

    def test_by_the_clock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        monkeypatch.setattr(checkpoints_module, "time", clock)
        drive = Drive(tmp_path, every_minutes=0.5).begin()
        for number in range(6):
            clock.now += 12.5  # 12.5, 25, 37.5: the first above 30; then again from there
            drive.batch(number)
        assert drive.steps == [3, 6]

    def test_not_before_a_validation_that_is_due(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path, every_steps=1, validates=4).begin()
        for number in range(4):
            drive.batch(number)
        assert drive.steps == [1, 2, 3]
        drive.kept.on_validation_start(drive.trainer, module())
        assert drive.steps == [1, 2, 3, 4]
        drive.kept.on_validation_end(drive.trainer, module(**SCORES))
        assert drive.steps == [1, 2, 3, 4]
        assert drive.trainer.saved[-1] == ("best.ckpt", 4)

    def test_a_validation_saves_only_what_is_due(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path, validates=4).begin()
        for number in range(4):
            drive.batch(number)
        drive.kept.on_validation_start(drive.trainer, module())
        assert drive.trainer.saved == []
        for options in ({"sanity_checking": True}, {"state": SimpleNamespace(fn="validate")}):
            other: Any = StubTrainer(**options)  # type: ignore[arg-type]
            drive.kept._wanted = True
            drive.kept.on_validation_start(other, module())
            assert other.saved == []

    def test_where_max_steps_ends_inside_an_epoch(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        drive.trainer.max_steps = 3
        for number in range(3):
            drive.batch(number)
        assert drive.steps == [3]

    def test_where_it_ends_at_a_validation_only_after_that(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path, validates=4).begin()
        drive.trainer.max_steps = 4
        for number in range(4):
            drive.batch(number)
        assert drive.steps == []
        drive.kept.on_validation_start(drive.trainer, module())  # in case it is broken off
        assert drive.trainer.saved == [("last.ckpt", 4)]
        drive.kept.on_validation_end(drive.trainer, module(**SCORES))
        assert drive.trainer.saved[1:] == [("best.ckpt", 4), ("last.ckpt", 4)]


class TestLeaving:
    def test_after_the_batch(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        (tmp_path / "last.ckpt").touch()
        drive.batch(0)
        drive.kept.signals.received = "SIGTERM"
        with pytest.raises(StoppedRun) as raised:
            drive.batch(1)
        assert drive.trainer.saved == [("last.ckpt", 2)]
        assert raised.value.code == 143
        assert raised.value.message == (
            "stopped by SIGTERM after step 2. Go on: python -m src.train fit --run_dir "
            f"{tmp_path.parent} --ckpt_path last"
        )

    def test_at_the_end_of_the_epoch(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        for number in range(7):
            drive.batch(number)
        drive.kept.signals.received = "SIGINT"
        drive.batch(7)  # the last: validation and the end of the epoch come first
        assert drive.steps == []
        with pytest.raises(StoppedRun) as raised:
            drive.kept.on_train_epoch_end(drive.trainer, module())
        assert (drive.steps, raised.value.code) == ([8], 130)

    def test_in_a_validation(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        drive.kept.on_validation_batch_end(drive.trainer)
        assert drive.trainer.saved == []
        drive.kept.signals.received = "SIGTERM"
        for other in ({"sanity_checking": True}, {"state": SimpleNamespace(fn="validate")}):
            drive.kept.on_validation_batch_end(StubTrainer(**other))  # type: ignore[arg-type]
        with pytest.raises(StoppedRun):
            drive.kept.on_validation_batch_end(drive.trainer)
        assert drive.trainer.saved == [("last.ckpt", 0)]

    def test_before_anything_could_be_saved(self, tmp_path: Path) -> None:
        """The disk is full: the message promises no file."""
        drive = Drive(tmp_path).begin()
        drive.trainer.full, drive.kept.signals.received = FULL, "SIGTERM"
        with pytest.raises(StoppedRun) as raised:
            drive.batch(0)
        assert raised.value.message == "stopped by SIGTERM after step 1. Nothing was saved."


class TestWhatTheFileSays:
    def content(self, kept: Checkpoints, trainer: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"callbacks": {}}
        kept.on_save_checkpoint(trainer, module(), found)
        return found

    def test_its_run_and_its_name(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path, run_id="abc").begin()
        seen = []
        drive.trainer.save_checkpoint = lambda path: seen.append(
            (path.name, self.content(drive.kept, drive.trainer))
        )
        drive.kept.on_validation_end(drive.trainer, module(**SCORES))
        drive.epoch()
        assert [(n, c["run_id"], c["written_as"]) for n, c in seen] == [
            ("best.ckpt", "abc", "best"),
            ("last.ckpt", "abc", "last"),
        ]

    def test_a_validation_is_written_as_one_that_did_not_begin(self, tmp_path: Path) -> None:
        """Two were complete; of the third, 5 batches were: it is run again from its first."""
        drive = Drive(tmp_path).begin()
        counts = {"ready": 6, "started": 6, "processed": 5, "completed": 5}
        totals = {"ready": 20, "started": 20, "processed": 19, "completed": 19}
        place = "epoch_loop.val_loop.batch_progress"
        progress = {"current": counts, "total": totals, "is_last_batch": False}
        found: dict[str, Any] = {"callbacks": {}, "loops": {"fit_loop": {place: progress}}}
        drive.kept._in_validation = True
        drive.kept.on_save_checkpoint(drive.trainer, module(), found)
        assert found["loops"]["fit_loop"][place] == {
            "current": {"ready": 0, "started": 0, "processed": 0, "completed": 0},
            "total": {"ready": 15, "started": 15, "processed": 14, "completed": 14},
            "is_last_batch": False,
        }
        assert found["callbacks"][drive.kept.state_key]["in_validation"] is True

    def test_a_validation_that_is_due_is_run_although_all_steps_are_made(
        self, tmp_path: Path
    ) -> None:
        drive = Drive(tmp_path)
        state = drive.kept.state_dict() | {"in_validation": True}
        drive.trainer.max_steps = drive.trainer.fit_loop.epoch_loop.max_steps = 9
        checkpoint = {"callbacks": {drive.kept.state_key: state}}
        drive.kept.on_load_checkpoint(drive.trainer, module(), checkpoint)
        assert drive.trainer.fit_loop.epoch_loop.max_steps == -1
        drive.kept.on_validation_start(drive.trainer, module())
        assert drive.trainer.fit_loop.epoch_loop.max_steps == 9

    @pytest.mark.parametrize(("seconds", "stopped"), [(None, True), (60, True), (0, False)])
    def test_a_run_that_ran_out_of_time_may_go_on(
        self, tmp_path: Path, seconds: int | None, stopped: bool
    ) -> None:
        drive = Drive(tmp_path).begin()
        timer = Timer(duration=None if seconds is None else {"seconds": seconds})
        drive.trainer.callbacks, drive.trainer.should_stop = [timer], True
        drive.trainer.min_epochs = 1
        drive.epoch()
        assert drive.kept.state_dict()["stopped"] is stopped


class TestAFullDisk:
    def test_is_told_and_the_run_goes_on(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        drive = Drive(tmp_path).begin()
        drive.epoch()
        drive.trainer.full = FULL
        drive.epoch()
        assert capsys.readouterr().err == (
            f"WARNING: {tmp_path / 'last.ckpt'} could not be written after step 16: [Errno 28] No "
            "space left on device. The training goes on, and the file before it is kept. Free some "
            "space.\n"
        )
        assert drive.trainer.strategy.barriers == ["Trainer.save_checkpoint"]
        drive.trainer.full = None
        drive.epoch()
        drive.kept.on_train_end(drive.trainer, module())  # the end is in last.ckpt
        assert drive.steps == [8, 24]

    def test_at_the_end_is_a_failure(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        drive.epoch()
        drive.trainer.full = FULL
        drive.epoch()
        match = r"the training is over, and .*last\.ckpt could not be written: .*No space left"
        with pytest.raises(RunFailureError, match=match):
            drive.kept.on_train_end(drive.trainer, module())

    def test_what_was_not_written_is_not_the_best(self, tmp_path: Path) -> None:
        kept, trainer = Checkpoints(tmp_path), StubTrainer(0, 8)
        history = [(0.5, None), (0.9, FULL), (0.7, None)]
        for epoch, (accuracy, full) in enumerate(history):
            trainer.current_epoch, trainer.full = epoch, full
            kept.on_validation_end(trainer, module(val_accuracy=accuracy, val_loss=1.0))  # type: ignore[arg-type]
        assert trainer.saved == [("best.ckpt", 8), ("best.ckpt", 8)]
        assert (kept.best["epoch"], kept.best["val/accuracy"]) == (2, 0.7)

    def test_any_other_error_ends_the_run(self, tmp_path: Path) -> None:
        drive = Drive(tmp_path).begin()
        drive.trainer.full = ValueError("a fault of ours")
        with pytest.raises(ValueError, match="a fault of ours"):
            drive.epoch()

    def test_leaves_a_real_run_as_it_would_have_been(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The third to the fifth write fail: best and last of the second epoch, and one more."""
        weights, save, calls = [], torch.save, 0

        def full(content: Any, file: Any) -> None:
            nonlocal calls
            calls += 1
            if calls in (3, 4, 5):
                raise FULL
            save(content, file)

        for name in ("whole", "full"):
            if name == "full":
                monkeypatch.setattr(torch, "save", full)
            torch.manual_seed(0)
            model = Classifier(2, net=small, optimizer=partial(SGD, lr=0.01))
            folder = tmp_path / name / "checkpoints"
            trainer = make_trainer(
                tmp_path, Checkpoints(folder, "val/loss"), max_epochs=4,
                enable_checkpointing=True, plugins=[AtomicCheckpointIO()],
            )  # fmt: skip
            trainer.fit(model, datamodule=make_data(root))
            weights.append(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])
        assert calls > 5
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert sorted(p.name for p in folder.iterdir()) == [
            "best.ckpt", "last.ckpt", "previous.ckpt",
        ]  # fmt: skip


def test_a_save_that_failed_on_another_process_has_failed(tmp_path: Path) -> None:
    """All of them must agree on what is the best, and on how the run ends."""
    drive = Drive(tmp_path).begin()
    drive.trainer.strategy.broadcast = lambda mine: FULL
    drive.kept.on_validation_end(drive.trainer, module(**SCORES))
    assert drive.kept.best == {}
    drive.epoch()
    with pytest.raises(RunFailureError, match="No space left"):
        drive.kept.on_train_end(drive.trainer, module())
