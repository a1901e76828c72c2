"""The line of an epoch and the bar above which it is printed."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.optim import SGD

from src.classifier import Classifier
from src.loop import progress
from src.loop.progress import EpochBar, EpochLines, duration, progress_callback
from tests.loop.helpers import Clock, StubTrainer, make_data, module, small


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
            " | best val/accuracy 0.7500 | 45 s passed | 1 min 30 s left\n"
            "epoch 4/5 | step 40 | train/loss 0.3333 | val/loss 0.2500 | val/accuracy 0.5000"
            " | best val/accuracy 0.7500 | 1 min 30 s passed | 45 s left\n"
        )

    def test_without_a_validation_nothing_is_best(self) -> None:
        trainer: Any = StubTrainer(max_epochs=2)
        assert "best" not in EpochLines().line(trainer, {"train/loss": 0.5})

    @pytest.mark.parametrize("epochs", [-1, None])
    def test_a_run_without_a_last_epoch(self, epochs: int | None) -> None:
        trainer: Any = StubTrainer(max_epochs=epochs)
        text = EpochLines().line(trainer, {"val/accuracy": 0.5})
        assert text.startswith(
            "epoch 1/? | step 0 | val/accuracy 0.5000 | best val/accuracy 0.5000 | "
        )
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
