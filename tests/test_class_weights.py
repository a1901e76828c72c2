"""How much each class counts in the loss of the training."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD

from src.class_weights import balanced_weights
from src.classifier import Classifier
from src.errors import UserError
from tests.cli.conftest import make_pictures
from tests.test_classifier import Constant, make_data, make_trainer

ANT, BUG = -math.log(3 / 4), -math.log(1 / 4)  # losses of Constant


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ants and a bug to train on, two ants and a bug to validate on."""
    root = make_pictures(tmp_path_factory.mktemp("uneven"), {"train": 3, "val": 2})
    for name in ("train/bug/1.png", "train/bug/2.png", "val/bug/1.png"):
        (root / name).unlink()
    return root


def test_balanced_by_hand() -> None:
    assert balanced_weights({"a": 3, "b": 1}) == [4 / 6, 2.0]
    assert balanced_weights({"a": 5, "b": 10, "c": 15}) == [2.0, 1.0, 30 / 45]


def test_a_class_without_a_picture() -> None:
    with pytest.raises(UserError, match="the training has no picture of b, d"):
        balanced_weights({"a": 3, "b": 0, "c": 1, "d": 0})


class TestTraining:
    def scores(self, root: Path, folder: Path, weights: Any) -> dict[str, float]:
        model = Classifier(2, net=Constant, optimizer=partial(SGD, lr=0.0), class_weights=weights)
        make_trainer(folder).fit(model, datamodule=make_data(root))
        assert model.scores["val/loss"] == pytest.approx((2 * ANT + BUG) / 3, rel=1e-6)
        return model.scores

    def test_balanced(self, uneven: Path, tmp_path: Path) -> None:
        # ants weigh 2/3, the bug 2: together 4, of which each class has the half
        found = self.scores(uneven, tmp_path, "balanced")["train/loss"]
        assert found == pytest.approx((ANT + BUG) / 2, rel=1e-6)

    def test_given_by_hand(self, uneven: Path, tmp_path: Path) -> None:
        found = self.scores(uneven, tmp_path, [1, 7])["train/loss"]
        assert found == pytest.approx((3 * ANT + 7 * BUG) / 10, rel=1e-6)

    def test_none(self, uneven: Path, tmp_path: Path) -> None:
        found = self.scores(uneven, tmp_path, None)["train/loss"]
        assert found == pytest.approx((3 * ANT + BUG) / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "options", "match"),
    [
        ([1.0], {}, r"class_weights has 1 numbers and there are 2 classes; give one for each"),
        ([1.0, 0.0], {}, r"class_weights is \[1\.0, 0\.0\]; each number must be above 0"),
        ([1.0, -2.0], {}, "each number must be above 0"),
        ([1.0, math.nan], {}, "each number must be above 0"),
        ([1.0, math.inf], {}, "and finite"),
        ("equal", {}, r"class_weights is 'equal'; allowed are balanced, a list"),
        ("balanced", {"loss": nn.MultiMarginLoss()}, r"beside a model\.loss of your own"),
    ],
)
def test_what_is_refused(weights: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        Classifier(2, net=Constant, class_weights=weights, **options)
