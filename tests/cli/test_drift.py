"""A run that goes on with something changed: refused, allowed by name, or impossible."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from src.train import main
from tests.cli.conftest import TINY, Cli, make_pictures
from tests.cli.test_fit import rows

WORDS = [*TINY, "--model.optimizer.momentum=0.9", "--trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def two_epochs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift") / "run"
    assert main(["fit", f"--data.root={pictures}", f"--run_dir={folder}", *WORDS]) == 0
    return folder


@pytest.fixture
def begun(cli: Cli, pictures: Path, two_epochs: Path) -> list[str]:
    """Copy a run of two epochs; return the words that go on to a third."""
    shutil.copytree(two_epochs, "run")
    words = ["fit", f"--data.root={pictures}", "--run_dir=run", *WORDS]
    return [*words, "--trainer.max_epochs=3", "--ckpt_path=last"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("--data.batch_size=4", "data.batch_size is 4 and was 8"),
        ("--data.eval_batch_size=3", "data.eval_batch_size is 3 and was None"),
        ("--seed_everything=5", "seed_everything is 5 and was 0"),
        ("--data.sampling=balanced", "data.sampling is 'balanced' and was 'uniform'"),
        ("--model.optimizer.lr=0.1", "model.optimizer.init_args.lr is 0.1 and was 0.05"),
        ("--trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches is 2 and was 1"),
        ("--trainer.gradient_clip_val=1", "trainer.gradient_clip_val is 1 and was None"),
        ("--trainer.precision=bf16-mixed", "trainer.precision is 'bf16-mixed'"),
        ("--data.augment=[{class_path: albumentations.HorizontalFlip}]", "data.augment is"),
        ("--monitor=val/loss", "monitor is 'val/loss' and was 'val/accuracy'"),
    ],
)
def test_what_breaks_exactness_is_refused_unless_allowed(
    change: str, text: str, begun: list[str], cli: Cli
) -> None:
    ended = cli(*begun, change)
    assert ended.code == 2
    assert text in ended.err
    assert "--allow_drift true" in ended.err and "--init_from run" in ended.err
    assert len(rows(Path("run"))) == 2
    ended = cli(*begun, change, "--allow_drift=true")
    assert ended.code == 0, ended.err
    assert f"WARNING: going on with changes: {text}" in ended.err
    assert len(rows(Path("run"))) == 3
    assert any(text in line for line in json.loads(Path("run/run.json").read_text())["drift"][0])


def test_what_breaks_nothing_passes(begun: list[str], cli: Cli) -> None:
    free = ("--data.num_workers=1", "--trainer.log_every_n_steps=7", "--checkpoint_every_steps=2")
    ended = cli(*begun, *free)
    assert ended.code == 0, ended.err
    assert "drift" not in json.loads(Path("run/run.json").read_text())


def test_an_allowed_rate_is_really_taken(begun: list[str], cli: Cli) -> None:
    assert cli(*begun, "--model.optimizer.lr=0.001", "--allow_drift=true").code == 0
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == 0.001
    assert [row["lr"] for row in rows(Path("run"))] == ["0.05", "0.05", "0.001"]


def test_an_allowed_rate_under_a_schedule(cli: Cli, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", "--run_dir=run", *WORDS]
    words += ["--model.scheduler=torch.optim.lr_scheduler.StepLR", "--model.scheduler.gamma=0.5"]
    words += ["--model.scheduler.step_size=1"]
    assert cli(*words).code == 0
    words += ["--trainer.max_epochs=4", "--ckpt_path=last", "--allow_drift=true"]
    assert cli(*words, "--model.optimizer.lr=0.8").code == 0
    assert [float(row["lr"]) for row in rows(Path("run"))] == [0.05, 0.025, 0.2, 0.1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("--model.net.widths=[8,8]", "is of another network"),
        ("--model.net.dropout=0.5", "model.net.init_args.dropout is 0.5 and was 0.0"),
        ("--model.optimizer=torch.optim.AdamW", "model.optimizer.class_path"),
        ("--model.scheduler=src.schedules.OneCycle", "model.scheduler"),
    ],
)
def test_what_no_checkpoint_fits_is_refused_always(
    change: str, text: str, begun: list[str], cli: Cli
) -> None:
    ended = cli(*begun, change, "--allow_drift=true")
    assert ended.code == 2
    assert text in ended.err and "--init_from" in ended.err


def test_inside_an_epoch_the_batches_must_stay(cli: Cli, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", "--run_dir=run", *WORDS, "--trainer.max_steps=7"]
    assert cli(*words).code == 0
    more = [*words, "--trainer.max_steps=9", "--ckpt_path=last", "--allow_drift=true"]
    ended = cli(*more, "--data.batch_size=4")
    assert ended.code == 2
    assert "data.batch_size is 4 and was 8" in ended.err
    assert "--allow_drift" not in ended.err  # it would not help
    assert cli(*more, "--model.optimizer.lr=0.01").code == 0


def test_a_longer_run_passes_where_no_schedule_depends_on_it(cli: Cli, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", "--run_dir=run", *WORDS]
    words += ["--model.scheduler=src.schedules.OneCycle"]
    assert cli(*words).code == 0
    ended = cli(*words, "--trainer.max_epochs=3", "--ckpt_path=last")
    assert ended.code == 2
    assert "trainer.max_epochs is 3 and was 2, and src.schedules.OneCycle depends" in ended.err


def test_other_pictures(cli: Cli, tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "data", {"train": 10, "val": 3})
    words = ["fit", f"--data.root={root}", "--run_dir=run", *WORDS]
    assert cli(*words).code == 0
    (root / "train/ant/0.png").unlink()
    words += ["--trainer.max_epochs=3", "--ckpt_path=last"]
    ended = cli(*words)
    assert ended.code == 2
    assert "the data have changed since the run began" in ended.err
    ended = cli(*words, "--allow_drift=true")
    assert ended.code == 0, ended.err
    assert len(rows(Path("run"))) == 3
