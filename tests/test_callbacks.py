"""The callbacks that a config can name: what they print, log and write."""

import os
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD

from callbacks import SampleImages, Throughput, sample_images, sheets, throughput
from callbacks.sheets import contact_sheet, font
from src.classifier import Classifier
from src.data.datamodule import DataModule
from src.data.sampler import TrainBatches
from src.errors import UserError
from tests.cli.conftest import SIZE, make_pictures
from tests.helpers import require_module

GAP, LINE = 12, 19  # white between the pictures, and below each for its name
SHOWN = 128  # what pictures of 32 pixels are enlarged to


class Linear(nn.Module):
    """The smallest network there is."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.float().mean((1, 2)) / 255)


class Clock:
    """A clock that tests wind."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def fit(
    root: Path, folder: Path, *callbacks: Any, learns: bool = True, **options: Any
) -> tuple[Trainer, DataModule]:
    """Train on augmented pictures, six in a batch."""
    torch.manual_seed(0)
    spin = {"class_path": "albumentations.Affine", "init_args": {"rotate": [-90, 90], "p": 1}}
    data = DataModule(root=str(root), image_size=SIZE, batch_size=6, augment=[spin], seed=3)
    trainer = Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        **{"logger": False, "max_epochs": 1, **options, "callbacks": [*callbacks]},
    )  # fmt: skip
    rate = 0.1 if learns else 0.0
    trainer.fit(Classifier(2, net=Linear, optimizer=partial(SGD, lr=rate)), datamodule=data)
    return trainer, data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data"), {"train": 7, "val": 2})


class TestThroughput:
    def test_an_epoch_by_hand(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        clock = Clock()
        monkeypatch.setattr(throughput, "time", clock)
        callback, logged = Throughput(), {}
        trainer: Any = SimpleNamespace(world_size=2, is_global_zero=True)
        module: Any = SimpleNamespace(log_dict=lambda rates, **_: logged.update(rates))
        for epoch in range(2):  # the second starts anew
            clock.now += 1000
            callback.on_train_epoch_start(trainer, module)
            for batch_idx in range(4):
                clock.now += 1 + epoch  # waiting for the batch
                callback.on_train_batch_start(trainer, module, None, batch_idx)
                clock.now += 3  # the step
                batch = {"image": torch.zeros(5 - batch_idx % 2)}
                callback.on_train_batch_end(trainer, module, None, batch, batch_idx)
                if batch_idx % 2:
                    clock.now += 500  # a validation, and all that follows it
                    callback.on_validation_end(trainer, module)
            clock.now += 77  # what comes after the last step is none of training's
            callback.on_train_epoch_end(trainer, module)
            # 5 + 4 + 5 + 4 pictures on 2 processes in four steps of 4 s, of 5 s in the second
            assert logged == {
                "throughput/images_per_second": pytest.approx(36 / (16 + 4 * epoch)),
                "throughput/waiting_for_data": pytest.approx((4 + 4 * epoch) / (16 + 4 * epoch)),
            }
        assert capsys.readouterr().out == (
            "throughput: 2.2 images/s, 25% of the time waiting for data\n"
            "throughput: 1.8 images/s, 40% of the time waiting for data\n"
        )

    def test_a_run_logs_positive_rates(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trainer, _ = fit(root, tmp_path, Throughput())
        assert trainer.logged_metrics["throughput/images_per_second"] > 0
        assert 0 < trainer.logged_metrics["throughput/waiting_for_data"] <= 1
        assert capsys.readouterr().out.count("throughput: ") == 1

    def test_one_process_speaks(self, capsys: pytest.CaptureFixture[str]) -> None:
        trainer: Any = SimpleNamespace(world_size=2, is_global_zero=False)
        Throughput().on_train_epoch_end(trainer, MagicMock())
        assert capsys.readouterr().out == ""


def tiles(sheet: np.ndarray, count: int, columns: int, lines: int = 1) -> list[np.ndarray]:
    """Cut a sheet into its pictures, and take their enlargement back."""
    found, times = [], SHOWN // SIZE
    for number in range(count):
        row, column = divmod(number, columns)
        y, x = GAP + row * (SHOWN + lines * LINE + GAP), GAP + column * (SHOWN + GAP)
        tile = sheet[y : y + SHOWN, x : x + SHOWN]
        found.append(tile[::times, ::times])
        assert np.array_equal(np.kron(found[-1], np.ones((times, times, 1), np.uint8)), tile)
    return found


class TestSampleImages:
    def test_shows_the_first_batch_byte_for_byte(self, root: Path, tmp_path: Path) -> None:
        _, data = fit(root, tmp_path, SampleImages(every_n_epochs=2), max_epochs=3)
        names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
        assert names == ["train-epoch-1.png", "train-epoch-3.png"]
        pictures: Any = data.train_dataloader().dataset
        for epoch in (0, 2):
            keys = TrainBatches(14, 6, seed=3).batch(epoch, 0)
            with Image.open(tmp_path / "pictures" / f"train-epoch-{epoch + 1}.png") as sheet:
                shown = tiles(np.asarray(sheet), 6, columns=3)
            for tile, index in zip(shown, keys, strict=True):
                augmented = pictures.pixels(epoch, index)
                assert np.array_equal(tile, augmented)
                assert not np.array_equal(tile, np.asarray(Image.open(pictures.index.path(index))))

    def test_shows_at_most_so_many_with_their_classes(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        named: list[tuple[str, ...]] = []

        def note(images: list[np.ndarray], captions: list[tuple[str, ...]]) -> Image.Image:
            named.extend(captions)
            assert len(images) == 4
            return contact_sheet(images, captions)

        monkeypatch.setattr(sample_images, "contact_sheet", note)
        _, data = fit(root, tmp_path, SampleImages(max_images=4))
        keys = TrainBatches(14, 6, seed=3).batch(0, 0)[:4]
        paths = data.index("fit").subset("train").paths
        assert named == [(paths[i].split("/")[1],) for i in keys]

    def test_a_step_is_held_up_by_a_copy_alone(self, tmp_path: Path) -> None:
        trainer, batch = stub_trainer(tmp_path), two_pictures()
        callback, white = SampleImages(), batch["image"].clone()
        callback.on_train_batch_end(trainer, MagicMock(), None, batch, 0)
        batch["image"].fill_(255)  # what comes after the step may write on it
        other = {"image": batch["image"], "target": batch["target"]}
        callback.on_train_batch_end(trainer, MagicMock(), None, other, 1)
        assert list(tmp_path.iterdir()) == []
        callback.on_train_epoch_end(trainer, MagicMock())
        with Image.open(tmp_path / "pictures" / "train-epoch-1.png") as sheet:
            shown = tiles(np.asarray(sheet), 2, columns=2)
        assert np.array_equal(np.stack(shown), white.numpy())

    def test_an_epoch_that_an_error_has_ended_is_not_shown_as_the_next(
        self, tmp_path: Path
    ) -> None:
        callback, trainer = SampleImages(), stub_trainer(tmp_path)
        callback.on_train_batch_end(trainer, MagicMock(), None, two_pictures(), 0)
        callback.on_train_epoch_start(trainer, MagicMock())
        callback.on_train_epoch_end(trainer, MagicMock())
        assert list(tmp_path.iterdir()) == []

    def test_a_dev_run_writes_nothing(self, root: Path, tmp_path: Path) -> None:
        fit(root, tmp_path, SampleImages(), fast_dev_run=True)
        assert list(tmp_path.iterdir()) == []

    def test_other_processes_write_nothing(self, tmp_path: Path) -> None:
        trainer = stub_trainer(tmp_path, is_global_zero=False)
        callback = SampleImages()
        callback.on_train_batch_end(trainer, MagicMock(), None, two_pictures(), 0)
        callback.on_train_epoch_end(trainer, MagicMock())
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_ends_no_training(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "pictures").write_text("no folder can be made here")
        callback, trainer = SampleImages(), stub_trainer(tmp_path)
        callback.on_train_batch_end(trainer, MagicMock(), None, two_pictures(), 0)
        callback.on_train_epoch_end(trainer, MagicMock())
        message = "WARNING: callbacks.SampleImages could not write into the run folder: "
        assert capsys.readouterr().err.startswith(message)

    def test_a_logger_that_fails_ends_no_training(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        wandb = MagicMock(WandbLogger)
        wandb.log_image.side_effect = RuntimeError("no such server")
        callback, trainer = SampleImages(), stub_trainer(tmp_path, loggers=[wandb])
        for _ in range(2):
            callback.on_train_batch_end(trainer, MagicMock(), None, two_pictures(), 0)
            callback.on_train_epoch_end(trainer, MagicMock())
        assert capsys.readouterr().err == (
            "WARNING: callbacks.SampleImages could not send a picture to Weights & Biases: no such "
            "server. The training goes on without it.\n"
        )

    def test_goes_to_the_loggers_that_can_show_it(self, tmp_path: Path) -> None:
        wandb, board, plain = MagicMock(WandbLogger), MagicMock(TensorBoardLogger), MagicMock()
        board.experiment = MagicMock()
        trainer = stub_trainer(tmp_path, loggers=[wandb, board, plain])
        callback = SampleImages()
        callback.on_train_batch_end(trainer, MagicMock(), None, two_pictures(), 0)
        callback.on_train_epoch_end(trainer, MagicMock())
        stored = np.asarray(Image.open(tmp_path / "pictures" / "train-epoch-1.png"))
        (name, (sheet,)), options = wandb.log_image.call_args
        assert (name, options) == ("pictures/train", {"step": 6})  # Lightning counts from 0
        assert np.array_equal(np.asarray(sheet), stored)
        (name, pixels, step), options = board.experiment.add_image.call_args
        assert (name, step, options) == ("pictures/train", 6, {"dataformats": "HWC"})
        assert np.array_equal(pixels, stored)
        assert plain.mock_calls == []

    @pytest.mark.parametrize(("name", "value"), [("every_n_epochs", 0), ("max_images", -1)])
    def test_values_out_of_range(self, name: str, value: int) -> None:
        message = rf"^{name} of callbacks\.SampleImages is {value}; allowed is 1 or more\.$"
        with pytest.raises(UserError, match=message):
            SampleImages(**{name: value})


def stub_trainer(folder: Path, **options: Any) -> Any:
    """Return what the callbacks ask of a Trainer in its first epoch, after seven steps."""
    return SimpleNamespace(
        **{
            "current_epoch": 0, "fast_dev_run": False, "is_global_zero": True, "global_step": 7,
            "default_root_dir": folder, "loggers": [], "sanity_checking": False,
            "state": SimpleNamespace(fn="fit"),
            "datamodule": SimpleNamespace(classes=("ant", "bug")), **options,
        }
    )  # fmt: skip


def two_pictures() -> dict[str, Tensor]:
    """Return a batch of two pictures of one colour each, a bug and an ant."""
    images = torch.arange(2, dtype=torch.uint8).repeat_interleave(SIZE * SIZE * 3)
    return {"image": images.reshape(2, SIZE, SIZE, 3), "target": torch.tensor([1, 0])}


class TestContactSheet:
    def test_by_hand(self) -> None:
        images = [np.full((SIZE, SIZE, 3), 10 * n, np.uint8) for n in range(5)]
        sheet = contact_sheet(images, [(name,) for name in "abcde"])
        # five pictures are three columns and two rows
        assert sheet.size == (3 * (SHOWN + GAP) + GAP, 2 * (SHOWN + LINE + GAP) + GAP)
        pixels = np.asarray(sheet)
        for number, tile in enumerate(tiles(pixels, 5, columns=3)):
            assert (tile == 10 * number).all()
        names = pixels[GAP + SHOWN : GAP + SHOWN + LINE]
        assert (names < 128).any()  # something is written below
        assert (pixels[:GAP] == 255).all()

    @pytest.mark.parametrize(("side", "shown"), [(40, 120), (64, 128), (150, 150), (448, 256)])
    def test_sides(self, side: int, shown: int) -> None:
        sheet = contact_sheet([np.zeros((side, side, 3), np.uint8)], [("a", "b")])
        assert sheet.height == GAP + shown + 2 * LINE + GAP
        assert sheet.width == 2 * GAP + max(shown, 128)

    def test_names_do_not_run_into_the_next_picture(self) -> None:
        images = [np.zeros((SIZE, SIZE, 3), np.uint8)] * 2
        pixels = np.asarray(contact_sheet(images, [("a" * 200,), ("",)]))
        assert (pixels[GAP + SHOWN :, GAP + SHOWN : GAP + SHOWN + GAP] == 255).all()

    def test_a_name_that_no_font_can_draw(self) -> None:
        contact_sheet([np.zeros((SIZE, SIZE, 3), np.uint8)], [(os.fsdecode(b"bee\xff"),)])

    @pytest.mark.parametrize("letter", "äßøąЖΩ")
    def test_letters_beyond_english(self, letter: str) -> None:
        require_module("matplotlib")
        drawn, box = (bytes(font(14).getmask(text)) for text in (letter, "\uffff"))
        assert drawn != box

    @pytest.mark.parametrize(
        "found",
        [
            None,
            ModuleSpec("matplotlib", None),  # a folder of that name
            ModuleSpec("matplotlib", None, origin="without/fonts/__init__.py"),
        ],
    )
    def test_without_matplotlib_it_is_the_font_of_pillow(
        self, found: ModuleSpec | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sheets, "find_spec", lambda name: found)
        assert font.__wrapped__(14).getname()[0] == "Aileron"
