"""Training pictures in a size of their own: which pixels, which file decoded how often."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src import preprocess
from src.data import scans
from src.data.datamodule import DataModule
from src.data.decoded import Decoded
from src.errors import UserError
from tests.cli.conftest import make_pictures
from tests.test_datamodule import StubTrainer

SIDE, STORED = 8, 12
CROP = [{"class_path": "albumentations.RandomCrop", "init_args": {"height": 8, "width": 8}}]
SHIFT = [{"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 0.0}}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures of 32 x 32 pixels, and one to train on of 60 x 24."""
    made = make_pictures(tmp_path / "pictures", {"train": 4, "val": 2})
    pixels = np.random.default_rng(1).integers(0, 255, (24, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(made / "train" / "ant" / "0.png")
    return made


def data_module(root: Path, **options: Any) -> DataModule:
    sizes = {"image_size": SIDE, "batch_size": 4, "cache_size": STORED, "augment": CROP}
    made = DataModule(root=str(root), **{**sizes, **options})
    made.trainer = StubTrainer()  # type: ignore[assignment]
    return made


class TestForms:
    def test_of_training_pictures_and_of_the_others(self) -> None:
        cropped, stretched = (Decoded(True, SIDE, rule, STORED) for rule in ("crop", "stretch"))  # type: ignore[arg-type]
        assert cropped.form("train") == (STORED, "cover", "bilinear")
        assert stretched.form("train") == (STORED, "stretch", "bilinear")
        assert cropped.form("val") == cropped.form("predict") == (SIDE, "crop", "bilinear")
        assert Decoded(True, SIDE, "crop", None).form("train") == (SIDE, "crop", "bilinear")

    def test_shapes_that_the_augmentation_meets(self) -> None:
        assert Decoded(True, SIDE, "crop", STORED).training_shapes() == [
            (12, 12),
            (48, 12),
            (12, 48),
        ]
        assert Decoded(True, SIDE, "stretch", STORED).training_shapes() == [(12, 12)]


class TestPixels:
    @pytest.mark.parametrize("cache", [True, False])
    def test_keep_the_aspect_ratio_for_the_crop(self, root: Path, cache: bool) -> None:
        data = data_module(root, resize="crop", cache=cache)
        data.prepare("fit")
        pictures = data.train_dataloader().dataset
        pictures.augmentation = None  # type: ignore[attr-defined]
        index = pictures.index.paths.index("train/ant/0.png")  # type: ignore[attr-defined]
        expected = preprocess.load_pixels(root / "train/ant/0.png", STORED, "cover")
        assert expected.shape == (12, 30, 3)  # 60 x 24, the shorter side brought to 12
        assert np.array_equal(pictures.pixels(0, index), expected)  # type: ignore[attr-defined]

    def test_of_scored_pictures_come_straight_from_the_file(self, root: Path) -> None:
        batch = next(iter(data_module(root, resize="crop").val_dataloader()))
        expected = preprocess.load_pixels(root / "val/ant/0.png", SIDE, "crop")
        assert np.array_equal(batch["image"][0].numpy(), expected)

    def test_the_cache_changes_none(self, root: Path) -> None:
        one, other = (
            torch.cat([b["image"] for b in data_module(root, cache=cache).train_dataloader()])
            for cache in (True, False)
        )
        assert one.shape == (8, SIDE, SIDE, 3)
        assert torch.equal(one, other)


def test_training_pictures_are_decoded_once_and_scored_ones_once_more(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))
    names: list[str] = []
    real = preprocess.decode
    for module in (preprocess, scans):
        monkeypatch.setattr(
            module, "decode", lambda *of: names.append(of[0].parts[-3]) or real(*of)
        )
    for _ in range(2):
        data = data_module(root)
        for _epoch in range(2):
            list(data.train_dataloader())
            list(data.val_dataloader())
    assert sorted(names) == ["train"] * 8 + ["val"] * 8


class TestMistakes:
    def test_nothing_crops(self) -> None:
        with pytest.raises(UserError, match=r"cache_size is 12 and there is no data.augment"):
            DataModule(root="x", cache_size=STORED)

    def test_too_small(self) -> None:
        with pytest.raises(UserError, match=r"--data.cache_size is 0; allowed is 1 or more"):
            DataModule(root="x", cache_size=0, augment=CROP)

    def test_shapes_that_differ(self, root: Path) -> None:
        data = data_module(root, resize="crop", augment=SHIFT)
        with pytest.raises(UserError, match=r"square, tall and wide.*Begin it with a crop"):
            data.prepare("fit")
