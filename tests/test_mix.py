"""MixUp and CutMix: pixels and shares by hand, and what a training makes of them."""

import math
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import SGD

from callbacks import Mix
from callbacks.mix import _cut, _fade
from src.classifier import Classifier
from src.data.datamodule import DataModule
from src.errors import UserError
from tests.cli.conftest import SIZE, make_pictures

DRAW = np.random.default_rng(0)


def plain(value: int, side: int = 10) -> Tensor:
    return torch.full((2, side, side, 3), value, dtype=torch.uint8)


def mixed(callback: Mix, seed: int, size: int = 6) -> dict[str, Tensor]:
    """Blend pictures each of which is as bright as its number, in classes 0, 1, 2, 0, 1, 2."""
    torch.manual_seed(seed)
    image = torch.stack([torch.full((8, 8, 3), 40 * n, dtype=torch.uint8) for n in range(size)])
    batch: dict[str, Any] = {"image": image, "target": torch.arange(size) % 3}
    callback.on_train_batch_start(None, SimpleNamespace(num_classes=3), batch, 0)  # type: ignore[arg-type]
    return batch


def test_mixup_by_hand() -> None:
    image, share = _fade(plain(200), plain(100), 0.75, DRAW)
    assert (image.unique().tolist(), image.dtype, share) == ([175], torch.uint8, 0.75)
    assert _fade(plain(255), plain(0), 0.5, DRAW)[0].unique().tolist() == [128]  # of 127.5


def test_cutmix_by_hand() -> None:
    """A share of 0.75 cuts a half of each side: 5 of 10 pixels."""
    image, share = _cut(plain(200), plain(100), 0.75, np.random.default_rng(3))
    cut = (image[0, :, :, 0] == 100).nonzero()
    assert share == 0.75 and len(cut) == 25
    assert (cut.max(0).values - cut.min(0).values).tolist() == [4, 4]
    assert torch.equal(image[0], image[1]) and set(image.unique().tolist()) == {100, 200}


def test_the_share_is_that_of_whole_pixels() -> None:
    """The root of 0.3 times 10 pixels is 5.48, so 5 of them are cut."""
    assert _cut(plain(0), plain(9), 0.7, DRAW)[1] == 0.75
    image, share = _cut(plain(0), plain(9), 1.0, DRAW)
    assert share == 1.0 and not image.any()


@pytest.mark.parametrize("callback", [Mix(1.0, 0.0), Mix(0.0, 1.0), Mix()])
def test_targets_are_shared_as_the_pixels_are(callback: Mix) -> None:
    for seed in range(20):
        batch = mixed(callback, seed)
        shares = batch["target_shares"]
        assert shares.shape == (6, 3) and shares.dtype == torch.float32
        assert torch.allclose(shares.sum(1), torch.ones(6))
        assert (shares.gather(1, batch["target"][:, None]) >= 0.5).all()
        share = float(shares.max(1).values.min())
        if share > 0.9:  # too little of the other one to be told from its rounded pixels
            continue
        own, mean = 40.0 * torch.arange(6), batch["image"].float().mean((1, 2, 3))
        for n, partner in enumerate(((mean - share * own) / (1 - share) / 40).tolist()):
            other = round(partner) % 3
            rest = float(shares[n, other])
            assert rest == pytest.approx(1.0 if other == n % 3 else 1 - share, abs=1e-6)


def test_it_is_drawn_from_the_numbers_of_the_step() -> None:
    first, again, other = (mixed(Mix(), seed) for seed in (1, 1, 2))
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])


def test_both_kinds_come() -> None:
    values = [mixed(Mix(1.0, 1.0), seed)["image"].unique().tolist() for seed in range(20)]
    cut = sum(set(found) <= {0, 40, 80, 120, 160, 200} for found in values)
    assert 3 < cut < 17


class Brightness(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.float().mean((1, 2)) / 255)


def test_the_loss_takes_the_shares(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "data", {"train": 6, "val": 2, "test": 2})
    seen: list[Any] = []

    class Noting(nn.CrossEntropyLoss):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            seen.append(target)
            return super().forward(logits, target)

    model = Classifier(2, net=Brightness, optimizer=partial(SGD, lr=0.1), loss=Noting())
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        callbacks=[Mix()],
    )  # fmt: skip
    trainer.fit(model, datamodule=DataModule(root=str(root), image_size=SIZE, batch_size=6))
    assert [target.shape for target in seen[1:]] == [(6, 2), (6, 2)]  # the first was a trial
    assert model.scores["train/accuracy"] * 12 == round(model.scores["train/accuracy"] * 12)


def test_a_loss_that_takes_no_shares() -> None:
    model = Classifier(2, net=Brightness, loss=nn.MultiMarginLoss())
    with pytest.raises(UserError, match=r"callbacks\.Mix gives the loss .* MultiMarginLoss fails"):
        Mix().setup(None, model, "fit")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mixup", "cutmix"),
    [(-0.1, 1.0), (0.2, -1.0), (0.0, 0.0), (math.nan, 1.0), (0.2, math.nan), (math.inf, 0.0)],
)
def test_out_of_range(mixup: float, cutmix: float) -> None:
    with pytest.raises(UserError, match=re.escape(f"mixup {mixup} and cutmix {cutmix}; allowed")):
        Mix(mixup, cutmix)
