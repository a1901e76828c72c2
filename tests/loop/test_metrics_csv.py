"""metrics.csv: its rows, its clock, and what a resume makes of it."""

import csv
import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src.errors import UserError
from src.loop import metrics_csv
from src.loop.metrics_csv import MetricsCsv
from src.rows import COLUMNS, read_rows
from tests.loop.helpers import Clock, StubTrainer, module


def line(epoch: int, step: int) -> str:
    return f"{epoch},{step},0.5,0.75,0.6,0.55,0.7,0.7,0.65,0.8,0.1,12.345,678.9\n"


HEADER = ",".join(COLUMNS) + "\n"


def resumed(path: Path, rows: int, lr: float = 0.1) -> MetricsCsv:
    """Return a table whose run goes on from a checkpoint that knows so many rows."""
    file = MetricsCsv(path)
    file.load_state_dict({"seconds": 0.0, "rows": rows, "lr": lr})
    return file


def start(file: MetricsCsv) -> None:
    file.on_train_start(StubTrainer(), module())  # type: ignore[arg-type]


class TestMetricsCsv:
    def test_a_row_by_hand(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        monkeypatch.setattr(metrics_csv, "time", clock)
        file, trainer = MetricsCsv(tmp_path / "metrics.csv"), StubTrainer(world_size=2)
        scores = module(train_loss=0.5, train_accuracy=0.75, val_loss=0.25,
                        val_loss_calibrated=0.125, val_accuracy=1.0,
                        val_accuracy_argmax=0.875, val_f1=0.125, val_auroc=math.nan)  # fmt: skip
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
            + "0,2,0.5,0.75,0.25,0.125,1.0,0.875,0.125,nan,0.2,5.0,32.0\n"
            + "1,4,0.5,0.75,0.25,0.125,1.0,0.875,0.125,nan,0.4,10.0,32.0\n"
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

    @pytest.mark.parametrize("kept", [0, 1, 2, 3])
    def test_a_resume_drops_rows_that_the_checkpoint_lacks(self, tmp_path: Path, kept: int) -> None:
        path, rows = tmp_path / "metrics.csv", [line(0, 10), line(1, 20), line(2, 30)]
        path.write_text(HEADER + "".join(rows))
        start(resumed(path, rows=kept))
        assert path.read_text() == HEADER + "".join(rows[:kept])

    def test_the_checkpoint_says_how_many(self, tmp_path: Path) -> None:
        first = MetricsCsv(tmp_path / "metrics.csv")
        start(first)
        assert first.state_dict()["rows"] == 0
        for number in (1, 2):
            first.on_validation_end(StubTrainer(number), module(val_loss=1.0))  # type: ignore[arg-type]
            assert first.state_dict()["rows"] == number
        again = MetricsCsv(tmp_path / "metrics.csv")
        again.load_state_dict(first.state_dict())
        start(again)
        assert again.state_dict()["rows"] == 2

    def test_the_rate_of_the_step_before_a_resume_is_known(self, tmp_path: Path) -> None:
        """A validation that is run again comes before any step of the new sitting."""
        file = resumed(tmp_path / "metrics.csv", rows=0, lr=0.375)
        start(file)
        file.on_validation_end(StubTrainer(), module(val_loss=1.0))  # type: ignore[arg-type]
        assert [row["lr"] for row in read_rows(file.path)] == ["0.375"]

    def test_rows_that_are_lost_are_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "metrics.csv"
        path.write_text(HEADER + line(0, 10))
        start(resumed(path, rows=3))
        assert path.read_text() == HEADER + line(0, 10)
        assert capsys.readouterr().err == (
            f"WARNING: {path} has 1 rows and the checkpoint was written after 3: the others are "
            "lost.\n"
        )

    def test_nothing_is_told_where_nothing_is_lost(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "metrics.csv"
        path.write_text(HEADER + line(0, 10) + line(1, 20))
        start(resumed(path, rows=2))
        start(resumed(path, rows=1))
        assert capsys.readouterr().err == ""

    def test_a_new_folder_takes_no_rows(self, tmp_path: Path) -> None:
        """A run that goes on from a file of another folder begins its table anew."""
        path = tmp_path / "metrics.csv"
        file = MetricsCsv(path, goes_on=False)
        file.load_state_dict({"seconds": 0.0, "rows": 3, "lr": 0.1})
        path.write_text(HEADER + line(0, 10))
        start(file)
        assert path.read_text() == HEADER

    def test_a_full_disk_is_told_and_the_next_row_brings_the_missing_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(path: Path, text: str) -> None:
            raise OSError(28, "No space left on device", str(path))

        file = MetricsCsv(tmp_path / "metrics.csv")
        start(file)
        for epoch in range(3):
            with monkeypatch.context() as patch:
                if epoch == 1:
                    patch.setattr(metrics_csv, "write_text", fail)
                file.on_validation_end(StubTrainer(epoch), module(val_loss=1.0))  # type: ignore[arg-type]
            assert file.state_dict()["rows"] == epoch + 1
            expected = [["0"], ["0"], ["0", "1", "2"]][epoch]
            assert [row["epoch"] for row in read_rows(file.path)] == expected
        err = capsys.readouterr().err
        assert err.startswith(f"WARNING: {file.path} could not be written: ")
        assert "No space left on device" in err
        assert "The training goes on; the next row brings what is missing." in err
        assert err.count("WARNING") == 1

    def test_a_table_that_is_none_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.csv"
        path.write_text("not,a,table\n1,2,3\n")
        with pytest.raises(UserError, match=r"metrics\.csv is damaged: its first line is not"):
            start(resumed(path, rows=1))
        assert path.read_text() == "not,a,table\n1,2,3\n"

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
