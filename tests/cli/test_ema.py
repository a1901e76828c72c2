"""The averaged weights in the program: what is scored, what a signal leaves, what may change."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import src.cli
from src.models import SmallResNet
from src.preprocess import load_pixels
from src.train import main
from tests.cli.conftest import SIZE, TINY, Cli
from tests.cli.test_fit import RECIPE, rows
from tests.cli.test_resume import assert_same
from tests.cli.test_signals import SendAt
from tests.helpers import ROOT

AVERAGED = ["--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=0.9"]
WORDS = [*RECIPE, *AVERAGED, "--trainer.max_epochs=2", "--trainer.val_check_interval=2"]
SILENT = ("current_model_state", "WeightAveraging", "average model")  # what Lightning says of it


@pytest.fixture(scope="module")
def averaged(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with four validations; tests may add scores to it and nothing else."""
    folder = tmp_path_factory.mktemp("ema") / "run"
    assert main(["fit", f"--data.root={pictures}", f"--run_dir={folder}", *WORDS]) == 0
    return folder


def content(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)


def loss_of(state: dict[str, Any], pictures: list[Path]) -> float:
    """Return the mean cross entropy of a network with these weights."""
    net = SmallResNet(2, stem_width=4, widths=[4, 8], blocks=[1, 1], dropout=0.3).eval()
    net.load_state_dict({k.removeprefix("net."): v for k, v in state.items()})
    targets = torch.tensor([("ant", "bug").index(path.parent.name) for path in pictures])
    pixels = [torch.from_numpy(load_pixels(str(p), SIZE, "stretch", "bilinear")) for p in pictures]
    with torch.inference_mode():
        logits = net(torch.stack(pixels))
    return F.cross_entropy(logits.double(), targets).item()


def test_the_scores_are_of_the_average(averaged: Path, pictures: Path, cli: Cli) -> None:
    ended = cli("test", f"--run_dir={averaged}", "--ckpt_path=last")
    assert ended.code == 0, ended.err
    assert not [word for word in SILENT if word in ended.out + ended.err]
    found = json.loads((averaged / "test.json").read_text())["loss"]
    paths = sorted((pictures / "test").rglob("*.png"))
    last = content(averaged)
    assert found == pytest.approx(loss_of(last["state_dict"], paths), rel=1e-4)
    assert found != pytest.approx(loss_of(last["current_model_state"], paths), rel=1e-4)


def test_best_was_chosen_by_the_average_that_it_holds(averaged: Path, cli: Cli) -> None:
    best = content(averaged, "best")
    row = next(r for r in rows(averaged) if int(r["step"]) == best["global_step"])
    assert cli("validate", f"--run_dir={averaged}", "--ckpt_path=best").code == 0
    assert repr(json.loads((averaged / "validate.json").read_text())["loss"]) == row["val/loss"]


@pytest.mark.parametrize(
    ("hook", "number", "step"),
    [
        ("on_validation_start", 3, 4),  # the first is the look before the training
        ("on_validation_batch_start", 3, 4),
        pytest.param("on_validation_batch_end", 3, 4, marks=pytest.mark.campaign),
        ("on_train_batch_end", 3, 3),
        ("on_train_epoch_end", 1, 5),
    ],
)
def test_a_signal_and_a_resume_end_in_the_bytes_of_the_whole_run(
    hook: str,
    number: int,
    step: int,
    averaged: Path,
    cli: Cli,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = src.cli.loop_callbacks
    with monkeypatch.context() as patch:
        extra = SendAt(hook, number, (signal.SIGTERM,))
        patch.setattr(src.cli, "loop_callbacks", lambda *a: [*inner(*a), extra])
        ended = cli("fit", f"--data.root={pictures}", "--run_dir=parts", *WORDS)
    assert ended.code == 143, ended.err
    left = content(Path("parts"))
    assert left["global_step"] == step
    weight = "net.head.weight"
    assert not torch.equal(left["state_dict"][weight], left["current_model_state"][weight])
    assert left["callbacks"]["EMA"]["updates"] == step
    ended = cli("fit", "--run_dir=parts", "--ckpt_path=last")
    assert ended.code == 0, ended.err
    assert not [word for word in SILENT if word in ended.out + ended.err]
    assert_same(averaged, Path("parts"))


def test_a_new_run_starts_from_the_average(averaged: Path, pictures: Path, cli: Cli) -> None:
    words = ["fit", f"--data.root={pictures}", "--run_dir=new", *TINY, "--trainer.max_epochs=1"]
    words += ["--model.net.dropout=0.3", "--model.optimizer.lr=0"]
    ended = cli(*words, f"--init_from={averaged / 'checkpoints/last.ckpt'}")
    assert ended.code == 0, ended.err
    ours, theirs = content(Path("new"))["state_dict"], content(averaged)["state_dict"]
    assert torch.equal(ours["net.head.weight"], theirs["net.head.weight"])


def test_nothing_goes_on_without_the_average(averaged: Path, pictures: Path, cli: Cli) -> None:
    path = averaged / "checkpoints/last.ckpt"
    words = ["fit", f"--data.root={pictures}", "--run_dir=new", *RECIPE, f"--ckpt_path={path}"]
    words += ["--trainer.max_epochs=3", "--trainer.val_check_interval=2"]
    for more in ([], ["--allow_drift=true"]):
        ended = cli(*words, *more)
        assert ended.code == 2
        assert "--init_from" in ended.err
        assert not Path("new").exists()
    assert "holds averaged weights, and no callback goes on averaging" in ended.err


def test_an_average_that_joins_later_is_told(trained: Path, pictures: Path, cli: Cli) -> None:
    path = trained / "checkpoints/last.ckpt"
    words = ["fit", f"--data.root={pictures}", "--run_dir=new", *TINY, *AVERAGED]
    words += ["--trainer.max_epochs=3", f"--ckpt_path={path}"]
    ended = cli(*words)
    assert ended.code == 2
    assert "trainer.callbacks is [" in ended.err and "callbacks.EMA" in ended.err
    ended = cli(*words, "--allow_drift=true")
    assert ended.code == 0, ended.err
    assert "WARNING: going on with changes: trainer.callbacks is [" in ended.err
    left = content(Path("new"))
    assert (left["callbacks"]["EMA"]["updates"], left["global_step"]) == (5, 15)


@pytest.mark.slow
def test_shares_are_refused_before_the_training(pictures: Path, tmp_path: Path) -> None:
    """In a program of its own: the strategy connects processes before it is looked at."""
    words = ["fit", f"--data.root={pictures}", f"--run_dir={tmp_path / 'run'}", *TINY, *AVERAGED]
    words += [f"--config={ROOT / 'configs/trainer/fsdp.yaml'}", "--trainer.devices=1"]
    done = subprocess.run(
        [sys.executable, "-m", "src.train", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "callbacks.EMA needs the whole weights in every process" in done.stderr
    assert not (tmp_path / "run").exists()
