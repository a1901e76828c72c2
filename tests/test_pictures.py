"""What callbacks show of a validation: the table, the confusion matrix, the worst mistakes."""

import csv
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from callbacks import ConfusionMatrix, PredictionTable, WorstMistakes, prediction_table
from callbacks.confusion_matrix import cell_colours, draw_confusion
from callbacks.shown import AfterValidation
from callbacks.worst_mistakes import find_mistakes
from src.calibration import Decision
from src.errors import UserError
from src.preprocess import BadImageError
from src.scored import write_scored
from src.table import Table
from tests.cli.conftest import SIZE, make_pictures
from tests.test_callbacks import fit, stub_trainer, tiles

CLASSES = ("ant", "bug")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data"), {"train": 6, "val": 3})


def module_of(shares: list[list[float]], target: list[int], **decision: Any) -> Any:
    """Return a module whose latest validation gave these probabilities, before calibration."""
    logits = np.log(np.array(shares, np.float32))
    table = Table.from_rows(np.arange(len(target)), target, logits)
    return SimpleNamespace(table=table, decision=Decision(**decision))


def trainer_of(folder: Path, num: int, **options: Any) -> Any:
    """Return a Trainer that validates `num` pictures, the nth of them of grey level n."""
    pictures = SimpleNamespace(
        index=SimpleNamespace(paths=tuple(f"val/{n}.png" for n in range(num))),
        pixels=lambda epoch, index: np.full((SIZE, SIZE, 3), index, np.uint8),
    )
    data = SimpleNamespace(classes=CLASSES, validated=lambda: pictures)
    return stub_trainer(folder, **{"datamodule": data, **options})


def lines(folder: Path, epoch: int = 1) -> list[list[str]]:
    text = (folder / f"tables/val-epoch-{epoch}.csv").read_text("utf-8", "surrogateescape")
    return list(csv.reader(text.splitlines()))


class Seen(AfterValidation):
    """Notes the epochs whose turn it was."""

    def __init__(self, every_n_epochs: int) -> None:
        super().__init__(every_n_epochs)
        self.epochs: list[int] = []

    def look(self, trainer: Any, module: Any, epoch: int) -> None:
        assert len(module.table.target) == 6
        self.epochs.append(epoch)


class StopIn(Callback):
    """Ends the training in an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epoch


class TestAfterValidation:
    @pytest.mark.parametrize(
        ("every", "options", "epochs"),
        [
            (1, {"max_epochs": 3}, [1, 2, 3]),
            (2, {"max_epochs": 4}, [1, 3, 4]),
            (3, {"max_epochs": 4}, [1, 4]),  # the last one is in turn, and looked at once
            (9, {"max_epochs": 9, "callbacks": [StopIn(3)]}, [1, 3]),
            (9, {"max_steps": 6, "max_epochs": 9}, [1, 3]),  # two steps an epoch
            (2, {"max_epochs": 2, "val_check_interval": 1}, [1, 1, 2]),
            (1, {"max_epochs": 2, "limit_val_batches": 0}, []),
            (1, {"fast_dev_run": True}, []),
        ],
    )
    def test_whose_turn_it_is(
        self, every: int, options: dict[str, Any], epochs: list[int], root: Path, tmp_path: Path
    ) -> None:
        callback = Seen(every)
        others = options.get("callbacks", [])
        fit(root, tmp_path, callback, *others, **options)
        assert callback.epochs == epochs

    def test_a_validation_apart_is_left_alone(self, root: Path, tmp_path: Path) -> None:
        callback = Seen(1)
        trainer, data = fit(root, tmp_path, callback, max_epochs=1)
        trainer.validate(trainer.lightning_module, datamodule=data, verbose=False)
        assert callback.epochs == [1]

    @pytest.mark.parametrize("options", [{"is_global_zero": False}, {"sanity_checking": True}])
    def test_nobody_else_looks(self, options: dict[str, Any], tmp_path: Path) -> None:
        trainer = trainer_of(tmp_path, 1, **options)
        PredictionTable().on_validation_end(trainer, module_of([[0.5, 0.5]], [0]))
        assert list(tmp_path.iterdir()) == []

    def test_an_end_without_a_validation_shows_nothing_of_an_earlier_fit(
        self, tmp_path: Path
    ) -> None:
        callback, trainer = Seen(2), trainer_of(tmp_path, 1, current_epoch=1)
        callback.on_validation_end(trainer, MagicMock())
        callback.on_train_start(trainer, MagicMock())
        callback.on_train_end(trainer, MagicMock())
        assert callback.epochs == []

    @pytest.mark.parametrize("callback", [PredictionTable, ConfusionMatrix, WorstMistakes])
    def test_a_full_disk_ends_no_training(
        self, callback: type[AfterValidation], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("pictures", "tables"):
            (tmp_path / name).write_text("no folder can be made here")
        module = module_of([[0.9, 0.1]], [1])
        callback().on_validation_end(trainer_of(tmp_path, 1), module)
        message = f"WARNING: callbacks.{callback.__name__} could not write into the run folder: "
        assert capsys.readouterr().err.startswith(message)

    @pytest.mark.parametrize("callback", [PredictionTable, ConfusionMatrix, WorstMistakes])
    def test_a_full_disk_keeps_nothing_from_the_loggers(
        self, callback: type[AfterValidation], tmp_path: Path
    ) -> None:
        for name in ("pictures", "tables"):
            (tmp_path / name).write_text("no folder can be made here")
        wandb = MagicMock(WandbLogger)
        trainer = trainer_of(tmp_path, 1, loggers=[wandb])
        callback().on_validation_end(trainer, module_of([[0.9, 0.1]], [1]))
        assert wandb.log_image.called or wandb.log_table.called

    @pytest.mark.parametrize("error", [ValueError("no such server."), RuntimeError(), OSError(5)])
    def test_a_logger_that_fails_ends_no_training(
        self, error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        wandb, board = MagicMock(WandbLogger), MagicMock(TensorBoardLogger)
        board.experiment = MagicMock()
        wandb.log_image.side_effect = wandb.log_table.side_effect = error
        board.experiment.add_image.side_effect = error
        callbacks = [PredictionTable(), ConfusionMatrix(), WorstMistakes()]
        for epoch in range(3):
            for callback in callbacks:
                trainer = trainer_of(tmp_path, 1, loggers=[wandb, board], current_epoch=epoch)
                callback.on_validation_end(trainer, module_of([[0.9, 0.1]], [1]))
        reason = {"ValueError": "no such server", "RuntimeError": "RuntimeError", "OSError": "5"}
        end = f": {reason[type(error).__name__]}. The training goes on without it."
        told = "WARNING: callbacks.{} could not send a {} to {}" + end
        assert capsys.readouterr().err.splitlines() == [
            told.format("PredictionTable", "table", "Weights & Biases"),
            told.format("ConfusionMatrix", "picture", "Weights & Biases"),
            told.format("ConfusionMatrix", "picture", "TensorBoard"),
            told.format("WorstMistakes", "picture", "Weights & Biases"),
            told.format("WorstMistakes", "picture", "TensorBoard"),
        ]
        assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
            f"{kind}-epoch-{epoch}.png" for kind in ("confusion", "worst") for epoch in (1, 2, 3)
        }
        found = json.loads((tmp_path / "tables/worst.json").read_text())
        assert (found["epoch"], found["sheet"]) == (3, "worst-epoch-3.png")

    def test_another_fit_tells_it_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "pictures").write_text("no folder can be made here")
        callback, trainer = ConfusionMatrix(), trainer_of(tmp_path, 1)
        for _ in range(2):
            callback.on_fit_start(trainer, MagicMock())
            for _ in range(2):
                callback.on_validation_end(trainer, module_of([[0.9, 0.1]], [1]))
        assert capsys.readouterr().err.count("could not write into the run folder") == 2

    def test_mistakes_of_the_program_are_not_hidden(self, tmp_path: Path) -> None:
        class Broken(AfterValidation):
            def look(self, trainer: Any, module: Any, epoch: int) -> None:
                raise LookupError("a class of its own")

        with pytest.raises(LookupError, match="a class of its own"):
            Broken(1).on_validation_end(trainer_of(tmp_path, 1), MagicMock())

    def test_what_looks_at_nothing_can_not_be_made(self) -> None:
        with pytest.raises(TypeError, match=r"abstract method '?look'?"):
            AfterValidation(1)  # type: ignore[abstract]

    @pytest.mark.parametrize("callback", [PredictionTable, ConfusionMatrix, WorstMistakes])
    def test_checkpoints_know_nothing_of_it(self, callback: type[AfterValidation]) -> None:
        assert callback().state_dict() == {}

    @pytest.mark.parametrize(
        ("callback", "name", "value"),
        [
            (PredictionTable, "every_n_epochs", 0),
            (PredictionTable, "keep", 0),
            (PredictionTable, "max_rows", -1),
            (ConfusionMatrix, "every_n_epochs", 0),
            (WorstMistakes, "every_n_epochs", -1),
            (WorstMistakes, "max_images", 0),
        ],
    )
    def test_values_out_of_range(self, callback: Any, name: str, value: int) -> None:
        least = 0 if name == "max_rows" else 1
        message = rf"{name} of callbacks\.{callback.__name__} is {value}; allowed is {least} or"
        with pytest.raises(UserError, match=message):
            callback(**{name: value})


class TestPredictionTable:
    def test_by_hand(self, tmp_path: Path) -> None:
        # Four to one before a temperature of 2 is two to one after it; the threshold is above that.
        shares = [[0.2, 0.8], [0.8, 0.2], [0.5, 0.5]]
        module = module_of(shares, [1, 1, -1], temperature=2.0, threshold=0.7)
        PredictionTable().on_validation_end(trainer_of(tmp_path, 3), module)
        header, *found = lines(tmp_path)
        assert header == ["path", "label", "predicted_class", "prob_ant", "prob_bug"]
        assert [row[:3] for row in found] == [
            ["val/0.png", "bug", "ant"],
            ["val/1.png", "bug", "ant"],
            ["val/2.png", "", "ant"],
        ]
        shown = [[float(text) for text in row[3:]] for row in found]
        assert shown == [pytest.approx(row) for row in ([1 / 3, 2 / 3], [2 / 3, 1 / 3], [0.5, 0.5])]

    def test_is_what_the_scores_were_read_off(self, root: Path, tmp_path: Path) -> None:
        trainer, data = fit(root, tmp_path, PredictionTable(), max_epochs=2)
        module: Any = trainer.lightning_module
        found = lines(tmp_path, 2)[1:]
        assert [row[0] for row in found] == list(data.validated().index.paths)
        assert [row[1] for row in found] == [Path(row[0]).parent.name for row in found]
        right = sum(row[1] == row[2] for row in found)
        assert right / 6 == module.scores["val/accuracy"]
        logs = [math.log(float(row[3 + CLASSES.index(row[1])])) for row in found]
        expected = module.decision.probabilities(module.table.logits)
        assert [float(row[3]) for row in found] == expected[:, 0].tolist()  # all digits
        assert sum(logs) < 0

    def test_is_byte_for_byte_what_validate_writes(self, tmp_path: Path) -> None:
        shares = [[0.2, 0.8], [0.7, 0.3], [0.5, 0.5]]
        module, trainer = module_of(shares, [1, 0, -1], temperature=2.0), trainer_of(tmp_path, 3)
        paths = trainer.datamodule.validated().index.paths = ("a,b.png", "c\rd.png", "e.png")
        PredictionTable().on_validation_end(trainer, module)
        write_scored(tmp_path / "validate.csv", paths, module.table, CLASSES, module.decision)
        written = (tmp_path / "tables/val-epoch-1.csv").read_bytes()
        assert written == (tmp_path / "validate.csv").read_bytes()

    def test_keeps_the_newest(self, tmp_path: Path) -> None:
        callback, module = PredictionTable(keep=2), module_of([[0.5, 0.5]], [0])
        (tmp_path / "tables").mkdir()
        mine = tmp_path / "tables/val-epoch-1.csv.mine"
        mine.write_text("not ours")
        for epoch in (0, 1, 8, 9):  # by number, not by name: 9 before 10
            callback.on_validation_end(trainer_of(tmp_path, 1, current_epoch=epoch), module)
        names = {path.name for path in (tmp_path / "tables").iterdir()}
        assert names == {"val-epoch-9.csv", "val-epoch-10.csv", mine.name}
        # A run that was cut back to an earlier epoch makes the later ones again.
        callback.on_validation_end(trainer_of(tmp_path, 1, current_epoch=2), module)
        names = {path.name for path in (tmp_path / "tables").iterdir()}
        assert names == {"val-epoch-3.csv", mine.name}

    def test_a_write_that_fails_leaves_the_tables_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        callback, module = PredictionTable(keep=1), module_of([[0.5, 0.5]], [0])
        callback.on_validation_end(trainer_of(tmp_path, 1), module)

        def full(*_: Any, **__: Any) -> None:
            raise OSError("the disk is full")

        monkeypatch.setattr(prediction_table, "write_scored", full)
        callback.on_validation_end(trainer_of(tmp_path, 1, current_epoch=1), module)
        assert [path.name for path in (tmp_path / "tables").iterdir()] == ["val-epoch-1.csv"]

    def test_logits_that_are_no_numbers_are_written_down(self, tmp_path: Path) -> None:
        module = module_of([[0.5, 0.5], [math.nan, 0.5], [math.inf, 0.5]], [0, 0, 1])
        PredictionTable().on_validation_end(trainer_of(tmp_path, 3), module)
        assert [row[3] for row in lines(tmp_path)[1:]] == ["0.5", "nan", "nan"]

    def test_wandb_gets_rows_from_everywhere(self, tmp_path: Path) -> None:
        wandb, board = MagicMock(WandbLogger), MagicMock(TensorBoardLogger)
        trainer = trainer_of(tmp_path, 9, loggers=[wandb, board])
        module = module_of([[0.25, 0.75]] * 9, [1] * 9)
        PredictionTable(max_rows=3).on_validation_end(trainer, module)
        (name,), sent = wandb.log_table.call_args
        assert (name, sent["step"]) == ("tables/predictions", 6)
        assert sent["columns"] == ["path", "label", "predicted_class", "prob_ant", "prob_bug"]
        expected = [[f"val/{n}.png", "bug", "bug", 0.25, 0.75] for n in (0, 4, 8)]
        assert [[*row[:3], *map(pytest.approx, row[3:])] for row in sent["data"]] == expected
        assert board.mock_calls == []
        wandb.reset_mock()
        PredictionTable(max_rows=0).on_validation_end(trainer, module)
        assert wandb.mock_calls == []
        PredictionTable(max_rows=100).on_validation_end(trainer, module)
        assert len(wandb.log_table.call_args[1]["data"]) == 9

    def test_a_file_name_that_is_no_text(self, tmp_path: Path) -> None:
        trainer = trainer_of(tmp_path, 1)
        trainer.datamodule.validated().index.paths = (os.fsdecode(b"b\xff.png"),)
        PredictionTable().on_validation_end(trainer, module_of([[0.5, 0.5]], [0]))
        assert lines(tmp_path)[1][0] == os.fsdecode(b"b\xff.png")


class TestConfusionMatrix:
    def test_counts_are_those_of_the_decision(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[Any] = []

        def note(counts: Any, classes: tuple[str, ...], epoch: int) -> Image.Image:
            drawn.append((counts.tolist(), classes, epoch))
            return Image.new("RGB", (1, 1))

        monkeypatch.setattr("callbacks.confusion_matrix.draw_confusion", note)
        shares = [[0.4, 0.6], [0.1, 0.9], [0.45, 0.55], [0.9, 0.1], [0.1, 0.9]]
        module = module_of(shares, [0, 0, 1, 1, -1], threshold=0.7)
        ConfusionMatrix().on_validation_end(trainer_of(tmp_path, 5, current_epoch=4), module)
        # 0.6 and 0.55 lie below the threshold; the last has no label
        assert drawn == [([[1, 1], [2, 0]], CLASSES, 5)]
        assert (tmp_path / "pictures/confusion-epoch-5.png").is_file()

    def test_logits_that_are_no_numbers_are_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[Any] = []

        def note(counts: Any, *_: Any) -> Image.Image:
            drawn.append(counts.tolist())
            return Image.new("RGB", (1, 1))

        monkeypatch.setattr("callbacks.confusion_matrix.draw_confusion", note)
        module = module_of([[0.9, 0.1], [math.nan, 0.5], [math.inf, 0.5]], [0, 0, 1])
        ConfusionMatrix().on_validation_end(trainer_of(tmp_path, 3), module)
        assert drawn == [[[1, 0], [0, 0]]]

    def test_colours_by_hand(self) -> None:
        colours = cell_colours(np.array([[4, 0], [1, 3]])).astype(int)
        empty, right, wrong = np.array([(247, 245, 239), (37, 99, 168), (179, 38, 30)])
        assert colours[0].tolist() == [right.tolist(), empty.tolist()]
        half = empty + 0.5 * (wrong - empty)  # the root of one in four
        assert np.abs(colours[1, 0] - half).max() <= 0.5
        assert np.abs(colours[1, 1] - (empty + 0.75**0.5 * (right - empty))).max() <= 0.5
        assert cell_colours(np.zeros((2, 2), np.int64))[1, 1].tolist() == empty.tolist()

    @pytest.mark.parametrize(("num", "cell"), [(2, 130), (20, 38), (40, 30), (60, 12), (500, 1)])
    def test_sizes_and_numbers(self, num: int, cell: int) -> None:
        counts = np.full((num, num), 7)
        picture = draw_confusion(counts, tuple(f"c{n}" for n in range(num)), 1)
        side = num * cell
        matrix = np.asarray(picture)[-16 - side : -16, -16 - side : -16]
        if picture.width == 420:  # a small matrix does not reach the right edge
            left = 40 + 8 + 15
            matrix = np.asarray(picture)[-16 - side : -16, left : left + side]
        if cell < 4:
            return
        inside = matrix[2 : cell - 2, 2 : cell - 2].reshape(-1, 3)
        has_number = len(np.unique(inside, axis=0)) > 1
        assert has_number == (num <= 40)

    def test_says_that_numbers_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said: list[str] = []
        monkeypatch.setattr(
            "callbacks.confusion_matrix.ImageDraw.ImageDraw.text",
            lambda self, place, text, *_, **__: said.append(text),
        )
        draw_confusion(np.eye(41, dtype=np.int64), tuple(map(str, range(41))), 1)
        assert "Colour: share of the row; 41 classes, so numbers are left out." in said
        said.clear()
        draw_confusion(np.array([[999, 1], [500, 1500]]), CLASSES, 3)
        assert "Epoch 3: 2,499 of 3,000 right (83.30 %)" in said
        assert [text for text in said if text.isdigit()] == ["999", "1", "500", "1500"]
        assert [text for text in said if text.endswith("0.1 %")] == ["0.1 %"]

    def test_long_names_are_shortened(self) -> None:
        short, long = (
            draw_confusion(np.eye(2, dtype=np.int64), (n, n), 1) for n in ("a", "a" * 99)
        )
        assert long.width <= short.width + 170
        draw_confusion(np.eye(2, dtype=np.int64), ("", os.fsdecode(b"bee\xff")), 1)


class TestWorstMistakes:
    def test_mistakes_by_hand(self) -> None:
        shares = [[0.9, 0.1], [0.3, 0.7], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [math.nan, 1.0]]
        module = module_of(shares, [1, 0, 0, 1, 1, 1])
        found = find_mistakes(module.table, module.decision, 16)
        assert found.num_pictures == 5  # logits of the sixth are no numbers
        assert found.num_mistakes == 3
        assert [one.index for one in found.worst] == [0, 4, 1]  # of equals the first
        assert [one.loss for one in found.worst] == pytest.approx(
            [math.log(10), math.log(10), -math.log(0.3)]
        )
        assert [one.probability for one in found.worst] == pytest.approx([0.9, 0.9, 0.7])
        first = find_mistakes(module.table, module.decision, 1)
        assert (first.num_mistakes, first.worst) == (3, found.worst[:1])

    def test_the_decision_says_what_is_a_mistake(self) -> None:
        # 0.8 of the second class is 2/3 at a temperature of 2, and the threshold is above it.
        module = module_of([[0.2, 0.8], [0.2, 0.8]], [0, 1], temperature=2.0, threshold=0.7)
        (one,) = find_mistakes(module.table, module.decision, 16).worst
        assert (one.index, one.predicted) == (1, 0)
        assert one.probability == pytest.approx(1 / 3)
        assert one.loss == pytest.approx(-math.log(2 / 3))

    def test_unlabelled_rows_are_no_mistakes(self) -> None:
        module = module_of([[0.9, 0.1]], [-1])
        assert find_mistakes(module.table, module.decision, 16).worst == []

    def test_sheet_and_list(self, tmp_path: Path) -> None:
        shares = [[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]
        module = module_of(shares, [1, 1, 1, 0])
        trainer = trainer_of(tmp_path, 4, current_epoch=2)
        WorstMistakes(max_images=2).on_validation_end(trainer, module)
        with Image.open(tmp_path / "pictures/worst-epoch-3.png") as sheet:
            first, second = tiles(np.asarray(sheet), 2, columns=2, lines=2)
        assert (first == 2).all() and (second == 3).all()  # losses of 1.61 and 1.20
        found = json.loads((tmp_path / "tables/worst.json").read_text())
        assert {name: found[name] for name in ("epoch", "pictures", "mistakes", "sheet")} == {
            "epoch": 3, "pictures": 4, "mistakes": 3, "sheet": "worst-epoch-3.png",
        }  # fmt: skip
        assert [(one["path"], one["label"], one["predicted"]) for one in found["worst"]] == [
            ("val/2.png", "bug", "ant"),
            ("val/3.png", "ant", "bug"),
        ]
        assert [one["probability"] for one in found["worst"]] == pytest.approx([0.8, 0.7])

    def test_pictures_are_those_that_the_network_saw(self, root: Path, tmp_path: Path) -> None:
        _, data = fit(root, tmp_path, WorstMistakes(max_images=3), learns=False)
        found = json.loads((tmp_path / "tables/worst.json").read_text())
        assert found["mistakes"] >= len(found["worst"]) == 3
        with Image.open(tmp_path / "pictures/worst-epoch-1.png") as sheet:
            shown = tiles(np.asarray(sheet), 3, columns=2, lines=2)
        paths = data.validated().index.paths
        for tile, one in zip(shown, found["worst"], strict=True):
            assert np.array_equal(tile, data.validated().pixels(0, paths.index(one["path"])))

    def test_a_picture_that_has_gone_is_left_out_of_the_sheet(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def pixels(epoch: int, index: int) -> Any:
            if index != 1:
                return np.full((SIZE, SIZE, 3), index, np.uint8)
            try:
                raise BadImageError("val/1.png", "truncated")
            except BadImageError as error:
                raise UserError("Bring the file back, then --ckpt_path last.") from error

        trainer = trainer_of(tmp_path, 3)
        trainer.datamodule.validated().pixels = pixels
        WorstMistakes().on_validation_end(trainer, module_of([[0.9, 0.1]] * 3, [1] * 3))
        assert capsys.readouterr().err == (
            "WARNING: callbacks.WorstMistakes could not read a picture: val/1.png: truncated. The "
            "training goes on without it.\n"
        )
        found = json.loads((tmp_path / "tables/worst.json").read_text())
        assert len(found["worst"]) == 3
        with Image.open(tmp_path / "pictures" / found["sheet"]) as sheet:
            first, second = tiles(np.asarray(sheet), 2, columns=2, lines=2)
        assert (first == 0).all() and (second == 2).all()

    @pytest.mark.parametrize(
        "error", [UserError("it was there"), BadImageError("a.png", "empty file")]
    )
    def test_no_picture_can_be_read(
        self, error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trainer = trainer_of(tmp_path, 1)
        trainer.datamodule.validated().pixels = MagicMock(side_effect=error)
        WorstMistakes().on_validation_end(trainer, module_of([[0.9, 0.1]], [1]))
        message = "WARNING: callbacks.WorstMistakes could not read a picture: "
        assert capsys.readouterr().err.startswith(message + str(error))
        assert not (tmp_path / "pictures").exists()
        found = json.loads((tmp_path / "tables/worst.json").read_text())
        assert (found["sheet"], len(found["worst"])) == (None, 1)

    def test_without_a_mistake_there_is_no_sheet(self, tmp_path: Path) -> None:
        WorstMistakes().on_validation_end(trainer_of(tmp_path, 1), module_of([[0.9, 0.1]], [0]))
        assert not (tmp_path / "pictures").exists()
        found = json.loads((tmp_path / "tables/worst.json").read_text())
        assert found == {"epoch": 1, "pictures": 1, "mistakes": 0, "sheet": None, "worst": []}

    def test_goes_to_the_loggers_that_can_show_it(self, tmp_path: Path) -> None:
        wandb, board = MagicMock(WandbLogger), MagicMock(TensorBoardLogger)
        board.experiment = MagicMock()
        trainer = trainer_of(tmp_path, 1, loggers=[wandb, board])
        for callback in (WorstMistakes(), ConfusionMatrix()):
            callback.on_validation_end(trainer, module_of([[0.9, 0.1]], [1]))
        names = [call.args[0] for call in wandb.log_image.call_args_list]
        assert names == ["pictures/worst", "pictures/confusion"]
        names = [call.args[0] for call in board.experiment.add_image.call_args_list]
        assert names == ["pictures/worst", "pictures/confusion"]
