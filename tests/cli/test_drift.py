"""A run that goes on with something changed: refused, allowed by name, or impossible."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from src.run import RunFolder
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
        ("--trainer.gradient_clip_val=1.5", "trainer.gradient_clip_val is 1.5 and was None"),
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
    assert "the data have changed (fingerprint " in ended.err
    ended = cli(*words, "--allow_drift=true")
    assert ended.code == 0, ended.err
    assert len(rows(Path("run"))) == 3


def test_an_allowed_change_is_how_the_run_goes_on(begun: list[str], cli: Cli) -> None:
    """The latest checkpoint says what it was made with, and the latest config is the run's own."""
    words = [*begun, "--trainer.max_epochs=-1"]
    smaller = [*words, "--data.batch_size=4", "--trainer.max_steps=13"]  # 10, then inside an epoch
    assert cli(*smaller, "--allow_drift=true").code == 0
    back = cli(*words, "--trainer.max_steps=15")
    assert back.code == 2
    assert "data.batch_size is 8 and was 4" in back.err
    assert cli(*words, "--trainer.max_steps=15", "--data.batch_size=4").code == 0
    ended = cli("fit", "--run_dir=run", "--ckpt_path=last", "--trainer.max_steps=17")
    assert ended.code == 0, ended.err
    stored = yaml.safe_load(RunFolder("run").newest_config.read_text())
    assert (stored["data"]["batch_size"], stored["trainer"]["max_steps"]) == (4, 17)
    assert len(json.loads(Path("run/run.json").read_text())["drift"]) == 1


def test_the_same_command_again_stores_no_config_again(begun: list[str], cli: Cli) -> None:
    for epochs in (3, 3, 4):
        assert cli(*begun, f"--trainer.max_epochs={epochs}").code == 0
    Path("run/config.resume-1.yaml").unlink()
    assert cli(*begun, "--trainer.max_epochs=5").code == 0
    assert sorted(path.name for path in Path("run").glob("*.resume-*")) == [
        "config.resume-2.yaml", "config.resume-3.yaml",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("--data.batch_size=4", "data.batch_size is 4 and was 8"),
        ("--model.optimizer=torch.optim.AdamW", "model.optimizer.class_path is"),
    ],
)
def test_a_file_is_gone_on_from_by_the_same_rules(
    change: str, text: str, begun: list[str], cli: Cli
) -> None:
    words = [word for word in begun if "run_dir" not in word and "ckpt_path" not in word]
    words += ["--run_dir=new", "--ckpt_path=run/checkpoints/last.ckpt"]
    ended = cli(*words, change)
    assert ended.code == 2
    assert text in ended.err
    assert not Path("new").exists()
    assert cli(*words).code == 0


def test_other_versions_and_threads_are_told(begun: list[str], cli: Cli) -> None:
    record = json.loads(Path("run/run.json").read_text())
    record["versions"]["torch"], record["threads"] = "1.0", 99
    Path("run/run.json").write_text(json.dumps(record))
    ended = cli(*begun)
    assert ended.code == 0
    assert re.search(
        r"WARNING: since the run began: torch 1\.0 -> \S+, threads 99 -> \d+\. It goes on; "
        "its last bits may differ",
        ended.err,
    )
