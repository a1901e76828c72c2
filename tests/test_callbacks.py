"""The callbacks that a config can name: what they print, log and write."""

from functools import partial
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

from callbacks import SampleImages, Throughput, sample_images, throughput
from callbacks.sample_images import contact_sheet
from src.classifier import Classifier
from src.data.datamodule import DataModule
from src.data.sampler import TrainBatches
from tests.cli.conftest import SIZE, make_pictures

GAP, LINE = 6, 16  # white between the pictures, and below each for its name


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


def fit(root: Path, folder: Path, callback: Any, **options: Any) -> tuple[Trainer, DataModule]:
    """Train on augmented pictures, six in a batch."""
    torch.manual_seed(0)
    spin = {"class_path": "albumentations.Affine", "init_args": {"rotate": [-90, 90], "p": 1}}
    data = DataModule(root=str(root), image_size=SIZE, batch_size=6, augment=[spin], seed=3)
    trainer = Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        callbacks=[callback], **{"logger": False, "max_epochs": 1, **options},
    )  # fmt: skip
    trainer.fit(Classifier(2, net=Linear, optimizer=partial(SGD, lr=0.1)), datamodule=data)
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


def tiles(sheet: np.ndarray, count: int, columns: int) -> list[np.ndarray]:
    """Cut a sheet into its pictures."""
    found = []
    for number in range(count):
        row, column = divmod(number, columns)
        y, x = GAP + row * (SIZE + LINE + GAP), GAP + column * (SIZE + GAP)
        found.append(sheet[y : y + SIZE, x : x + SIZE])
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
        named: list[str] = []

        def note(images: np.ndarray, names: list[str]) -> Image.Image:
            named.extend(names)
            assert len(images) == 4
            return contact_sheet(images, names)

        monkeypatch.setattr(sample_images, "contact_sheet", note)
        _, data = fit(root, tmp_path, SampleImages(max_images=4))
        keys = TrainBatches(14, 6, seed=3).batch(0, 0)[:4]
        paths = data.index("fit").subset("train").paths
        assert named == [paths[i].split("/")[1] for i in keys]

    def test_the_sheet_by_hand(self) -> None:
        images = np.stack([np.full((SIZE, SIZE, 3), 10 * n, np.uint8) for n in range(5)])
        sheet = contact_sheet(images, list("abcde"))
        # five pictures are three columns and two rows
        assert sheet.size == (3 * (SIZE + GAP) + GAP, 2 * (SIZE + LINE + GAP) + GAP)
        pixels = np.asarray(sheet)
        for number, tile in enumerate(tiles(pixels, 5, columns=3)):
            assert (tile == 10 * number).all()
        names = pixels[GAP + SIZE : GAP + SIZE + LINE]
        assert (names < 128).any()  # something is written below
        assert (pixels[:GAP] == 255).all()

    def test_a_dev_run_writes_nothing(self, root: Path, tmp_path: Path) -> None:
        fit(root, tmp_path, SampleImages(), fast_dev_run=True)
        assert list(tmp_path.iterdir()) == []

    def test_other_processes_write_nothing(self, tmp_path: Path) -> None:
        trainer: Any = SimpleNamespace(
            current_epoch=0, fast_dev_run=False, is_global_zero=False, default_root_dir=tmp_path
        )
        SampleImages().on_train_batch_end(trainer, MagicMock(), None, None, 0)
        assert list(tmp_path.iterdir()) == []

    def test_goes_to_the_loggers_that_can_show_it(self, tmp_path: Path) -> None:
        wandb, board, plain = MagicMock(WandbLogger), MagicMock(TensorBoardLogger), MagicMock()
        board.experiment = MagicMock()
        trainer: Any = SimpleNamespace(
            current_epoch=0, fast_dev_run=False, is_global_zero=True, default_root_dir=tmp_path,
            global_step=7, loggers=[wandb, board, plain],
            datamodule=SimpleNamespace(classes=("ant", "bug")),
        )  # fmt: skip
        images = torch.arange(2, dtype=torch.uint8).repeat_interleave(SIZE * SIZE * 3)
        batch = {"image": images.reshape(2, SIZE, SIZE, 3), "target": torch.tensor([1, 0])}
        SampleImages().on_train_batch_end(trainer, MagicMock(), None, batch, 0)
        stored = np.asarray(Image.open(tmp_path / "pictures" / "train-epoch-1.png"))
        (name, (sheet,)), options = wandb.log_image.call_args
        assert (name, options) == ("pictures/train", {"step": 7})
        assert np.array_equal(np.asarray(sheet), stored)
        (name, pixels, step), options = board.experiment.add_image.call_args
        assert (name, step, options) == ("pictures/train", 7, {"dataformats": "HWC"})
        assert np.array_equal(pixels, stored)
        assert plain.mock_calls == []

    @pytest.mark.parametrize("options", [{"every_n_epochs": 0}, {"max_images": 0}])
    def test_values_out_of_range(self, options: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="every_n_epochs and max_images of"):
            SampleImages(**options)
