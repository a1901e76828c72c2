"""--minutes and --find_lr: settled once, written down, and never again."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import src.cli
from src import pace, settling
from src.budget import Budget
from src.find_lr import RangeTest
from tests.cli.conftest import TINY, Cli
from tests.cli.test_fit import assert_same_run
from tests.cli.test_resume import Break, Broken
from tests.test_docs import ROOT


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SECONDS", 0.01)
    monkeypatch.setattr("src.budget._SECONDS", 0.01)


def config_of(run: str) -> Any:
    return yaml.safe_load(Path(run, "config.yaml").read_text())


def epochs_of(run: str) -> list[str]:
    with Path(run, "metrics.csv").open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def words(pictures: Path, run: str) -> list[str]:
    return ["fit", f"--data.root={pictures}", f"--run_dir={run}", *TINY]


class TestMinutes:
    def test_epochs_are_the_config_from_then_on(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settling, "_measure", lambda *_: Budget(1.0, 5, 14.5))  # 20 s an epoch
        given = ["--minutes=2", "--model.scheduler=src.schedules.OneCycle"]
        ended = cli(*words(pictures, "run"), *given)
        assert ended.code == 0, ended.err
        found = re.search(r"--minutes 2: (\d) epoch\(s\) of about 20.0 s, (\d+) s are", ended.out)
        assert found is not None and 60 < int(found[2]) <= 120
        assert config_of("run")["trainer"]["max_epochs"] == int(found[1])
        assert "minutes" not in config_of("run")
        assert epochs_of("run") == [str(n) for n in range(int(found[1]))]
        same = ["--model.scheduler=src.schedules.OneCycle", f"--trainer.max_epochs={found[1]}"]
        assert cli(*words(pictures, "plain"), *same).code == 0
        assert_same_run(Path("run"), Path("plain"))

    def test_a_resume_never_measures(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settling, "_measure", lambda *_: Budget(1.0, 5, 44.5))
        given = [*words(pictures, "run"), "--minutes=3", "--model.scheduler=src.schedules.OneCycle"]
        inner = src.cli.loop_callbacks
        with monkeypatch.context() as patch, pytest.raises(Broken):
            patch.setattr(src.cli, "loop_callbacks", lambda *a: [*inner(*a), Break(40)])
            cli(*given)
        epochs = config_of("run")["trainer"]["max_epochs"]
        monkeypatch.setattr(settling, "_measure", lambda *_: pytest.fail("it was measured"))
        again = cli(*given, "--ckpt_path=auto")
        assert again.code == 0, again.err
        assert epochs > 1 and epochs_of("run") == [str(n) for n in range(epochs)]
        assert "--minutes 3:" not in again.out

    def test_nor_does_a_start_anew_before_the_first_checkpoint(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settling, "_measure", lambda *_: Budget(1.0, 5, 44.5))
        given = [*words(pictures, "run"), "--minutes=3"]
        inner = src.cli.loop_callbacks
        with monkeypatch.context() as patch, pytest.raises(Broken):
            patch.setattr(src.cli, "loop_callbacks", lambda *a: [*inner(*a), Break(9)])
            cli(*given)
        assert not Path("run/checkpoints/last.ckpt").exists()
        epochs = config_of("run")["trainer"]["max_epochs"]
        monkeypatch.setattr(settling, "_measure", lambda *_: pytest.fail("it was measured"))
        again = cli(*given, "--ckpt_path=auto")
        assert again.code == 0, again.err
        assert f"--minutes: settled when the run began, {epochs} epoch(s)" in again.out
        assert len(epochs_of("run")) == epochs

    def test_really_measured(self, cli: Cli, pictures: Path) -> None:
        """An epoch of these takes well under a second, and its half second of margin."""
        ended = cli(*words(pictures, "run"), "--minutes=0.3")
        assert ended.code == 0, ended.err
        found = re.search(r"(\d+) epoch\(s\) of about ([\d.]+) s, (\d+) s are", ended.out)
        assert found is not None
        epochs, seconds, left = int(found[1]), float(found[2]), int(found[3])
        assert 0.5 <= seconds < 10 and left <= 18
        # as many as fit, but for what rounding to 0.1 s and to whole seconds hides
        fewest = (0.95 * (left - 0.5) - 2) // (seconds + 0.05)
        assert max(1, fewest) <= epochs <= max(1, (0.95 * (left + 0.5) - 2) // (seconds - 0.05))
        assert config_of("run")["trainer"]["max_epochs"] == epochs

    @pytest.mark.parametrize("begins", ["Features", "Steps"])
    def test_a_callback_that_makes_other_steps(
        self, cli: Cli, pictures: Path, begins: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("callbacks.Throughput.changes_steps", begins == "Steps", raising=False)
        monkeypatch.setattr(settling, "_measure", lambda *_: Budget(1.0, 5, 400.0))
        given = ["--minutes=1", "--trainer.callbacks+=callbacks.Throughput"]
        ended = cli(*words(pictures, "run"), *given)
        if begins == "Steps":
            assert ended.code == 2 and not Path("run").exists()
            assert "Throughput makes others of them. Give --trainer.max_epochs" in ended.err
        else:
            assert ended.code == 0

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["--minutes=0"], "--minutes is 0; allowed is a number above 0"),
            (["--minutes=-1"], "--minutes is -1; allowed"),
            (["--minutes=1", "--trainer.max_steps=5"], "Give one of them"),
            (["--minutes=1", "--trainer.max_time=00:00:01:00"], "Give one of them"),
            (["--minutes=soon"], "minutes"),
            (["--minutes=.nan"], "--minutes is nan; allowed is a number above 0"),
            (["--minutes=.inf"], "--minutes is inf; allowed"),
            (["--minutes=1", "--trainer.limit_train_batches=2"], "trainer.limit_train_batches is"),
            (["--minutes=1", "--trainer.val_check_interval=2"], "--trainer.val_check_interval is"),
            (["--minutes=1", "--trainer.check_val_every_n_epoch=2"], "check_val_every_n_epoch is"),
        ],
    )
    def test_refused(self, cli: Cli, pictures: Path, given: list[str], message: str) -> None:
        ended = cli(*words(pictures, "run"), *given)
        assert ended.code == 2 and message in ended.err
        assert not Path("run").exists()

    def test_torchrun_starts_all_processes_itself(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"):
            monkeypatch.setenv(name, "1")
        for option in ("--minutes=1", "--find_lr=go_on"):
            ended = cli(*words(pictures, "run"), option)
            assert ended.code == 2
            assert f"{option.split('=')[0]} is measured by the process that starts" in ended.err

    def test_fast_dev_run_measures_nothing(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settling, "_measure", lambda *_: pytest.fail("it was measured"))
        given = ["--minutes=1", "--find_lr=go_on", "--trainer.fast_dev_run=true"]
        assert cli(*words(pictures, "run"), *given).code == 0

    @pytest.mark.slow
    def test_two_processes_agree(self, pictures: Path, tmp_path: Path) -> None:
        given = [*words(pictures, "run"), "--minutes=0.2", "--trainer.devices=2"]
        given += ["--trainer.strategy=ddp"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "src.train", *given],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        epochs = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["max_epochs"]
        summary = json.loads((tmp_path / "run/summary.json").read_text())
        assert summary["final"]["epoch"] == epochs - 1
        assert done.stdout.count("--minutes 0.2:") == 1


class TestFindLr:
    @pytest.mark.parametrize(
        "option",
        [
            ["--find_lr"],
            pytest.param(["--find_lr", "stop"], marks=pytest.mark.campaign),
            pytest.param(["--find_lr=stop"], marks=pytest.mark.campaign),
        ],
    )
    def test_it_stops_with_a_proposal(self, cli: Cli, pictures: Path, option: list[str]) -> None:
        ended = cli(*words(pictures, "run"), *option, "--trainer.max_epochs=1")
        assert ended.code == 0, ended.err
        assert re.search(r"^proposed: --model.optimizer.init_args.lr [\d.e-]+$", ended.out, re.M)
        assert sorted(p.name for p in Path("run").iterdir()) == ["find_lr.csv", "find_lr.svg"]
        assert Path("run/find_lr.csv").read_text().startswith("lr,loss\n1e-06,")
        assert (
            cli(*words(pictures, "run"), "--trainer.max_epochs=1").code == 0
        )  # in the same folder

    def test_going_on_is_the_run_with_that_rate(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        test = RangeTest([0.01, 0.1], [2.0, 1.0], 0.0123)
        monkeypatch.setattr(settling, "range_test", lambda *_: test)
        given = [*words(pictures, "run"), "--trainer.max_epochs=2"]
        ended = cli(*given, "--find_lr=go_on")
        assert ended.code == 0, ended.err
        assert config_of("run")["model"]["optimizer"]["init_args"]["lr"] == 0.012
        assert cli(*words(pictures, "plain"), "--trainer.max_epochs=2",
                   "--model.optimizer.lr=0.012").code == 0  # fmt: skip
        assert_same_run(Path("run"), Path("plain"))
        monkeypatch.setattr(settling, "range_test", lambda *_: pytest.fail("it was measured"))
        again = cli(*given, "--find_lr=go_on", "--ckpt_path=auto")
        assert again.code == 0, again.err

    def test_a_real_test_leaves_no_trace(self, cli: Cli, pictures: Path) -> None:
        given = ["--minutes=0.01"]
        ended = cli(*words(pictures, "run"), "--find_lr=go_on", *given)
        assert ended.code == 0, ended.err
        config = config_of("run")
        rate, epochs = (
            config["model"]["optimizer"]["init_args"]["lr"],
            config["trainer"]["max_epochs"],
        )
        assert cli(*words(pictures, "plain"), f"--model.optimizer.lr={rate}",
                   f"--trainer.max_epochs={epochs}").code == 0  # fmt: skip
        assert_same_run(Path("run"), Path("plain"))

    def test_of_a_run_that_has_begun(self, cli: Cli, pictures: Path) -> None:
        assert cli(*words(pictures, "run"), "--trainer.max_epochs=1").code == 0
        ended = cli(*words(pictures, "run"), "--find_lr", "--ckpt_path=last")
        assert ended.code == 2
        assert "--find_lr tries rates for a new run, and --ckpt_path goes on with one" in ended.err

    def test_no_rate_helps(self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settling, "range_test", lambda *_: RangeTest([0.1], [2.0], None))
        ended = cli(*words(pictures, "run"), "--find_lr", "--trainer.max_epochs=1")
        assert ended.code == 1
        assert "no learning rate of 1e-06 to 10 made the loss fall" in ended.err

    def test_the_default_optimizer(self, cli: Cli, pictures: Path) -> None:
        given = [word for word in words(pictures, "run") if "optimizer" not in word]
        ended = cli(*given, "--find_lr=go_on", "--trainer.max_epochs=1")
        assert ended.code == 0, ended.err
        assert f"{config_of('run')['model']['optimizer']['init_args']['lr']:.2g}" in ended.out

    def test_one_that_searches_for_its_step(self, cli: Cli, pictures: Path) -> None:
        given = [word for word in words(pictures, "run") if "optimizer" not in word]
        given += ["--model.optimizer=torch.optim.LBFGS", "--trainer.max_epochs=1"]
        ended = cli(*given, "--find_lr")
        assert ended.code == 2 and "LBFGS searches for its own step" in ended.err

    def test_of_a_checkpoint_of_another_run(self, cli: Cli, pictures: Path) -> None:
        assert cli(*words(pictures, "old"), "--trainer.max_epochs=1").code == 0
        for option in ("--find_lr", "--minutes=1"):
            ended = cli(*words(pictures, "run"), option, "--ckpt_path=old/checkpoints/last.ckpt")
            assert ended.code == 2
            assert "goes on with another one. Give one of them" in ended.err
