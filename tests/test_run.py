"""The run folder, the rules of the command line, and how a command ends badly."""

import argparse
import csv
import errno
import json
import math
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from src import hardware, run
from src.calibration import Decision
from src.config_check import check_classes, check_extras, read_config, resolve
from src.errors import RunFailureError, StoppedRun, UserError
from src.explained import explain
from src.failures import end_with_message, place
from src.failures import explain as explain_failure
from src.results import parameter_counts, peak_memory, write_predictions, write_scores
from src.run import RunFolder, git_commit, new_run_path, versions, write_json
from src.run_rules import (
    RUN_DIR,
    check_trainer,
    option_values,
    own_data,
    plan_command,
    with_stored_config,
    without_option,
)
from src.table import Table
from tests.helpers import require_program

NOON = datetime(2026, 3, 4, 12, 5, 9, tzinfo=UTC)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(path: Path, *checkpoints: str, config: str = "data: {root: pictures}\n") -> RunFolder:
    """Make a folder with a config and some checkpoints."""
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True)
    folder.config.write_text(config)
    for name in checkpoints:
        (folder.checkpoints / f"{name}.ckpt").write_bytes(b"")
    return folder


# ---------------------------------------------------------------------------------------------
# The folder


class TestNewRunPath:
    def test_recipe_and_utc_time(self) -> None:
        there = NOON.astimezone(timezone(timedelta(hours=-7)))
        expected = Path("runs/bee_wasp/2026-03-04T12-05-09")
        assert new_run_path(Path("configs/bee_wasp.yaml"), NOON) == expected
        assert new_run_path(Path("configs/bee_wasp.yaml"), there.astimezone(UTC)) == expected

    def test_without_a_config(self) -> None:
        assert new_run_path(None, NOON) == Path("runs/run/2026-03-04T12-05-09")

    def test_a_name_that_is_taken_gets_a_number(self) -> None:
        for name in ("", "-2", "-3"):
            path = new_run_path(None, NOON)
            assert path == Path(f"runs/run/2026-03-04T12-05-09{name}")
            path.mkdir(parents=True)

    def test_now_is_utc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return NOON.astimezone(tz or timezone(timedelta(hours=-7)))

        monkeypatch.setattr(run, "datetime", Clock)
        assert new_run_path(None).name == "2026-03-04T12-05-09"


class TestRunFolder:
    def test_require(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"--run_dir nope: there is no such folder"):
            RunFolder("nope").require()
        (tmp_path / "other").mkdir()
        with pytest.raises(UserError, match=r"no config\.yaml \(found: nothing\)"):
            RunFolder("other").require()
        (tmp_path / "other" / "a.txt").touch()
        with pytest.raises(UserError, match=r"is no run folder.*\(found: a\.txt\).*fit printed"):
            RunFolder("other").require()
        folder = make_run(tmp_path / "run")
        assert folder.require() is folder

    def test_require_free(self, tmp_path: Path) -> None:
        RunFolder("new").require_free()
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.txt").touch()
        RunFolder("other").require_free()  # holds files, but no run
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"--run_dir file is a file\. Give a folder"):
            RunFolder("file").require_free()
        make_run(tmp_path / "run")
        with pytest.raises(UserError, match=r"already holds a run.*--ckpt_path last"):
            RunFolder("run").require_free()

    def test_checkpoint(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "run", "last", "previous")
        assert folder.checkpoint("last") == folder.last
        assert folder.checkpoint(str(folder.last)) == folder.last
        match = r"--ckpt_path best: there is no .*best\.ckpt\. In .*: last\.ckpt, previous\.ckpt\."
        with pytest.raises(UserError, match=match):
            folder.checkpoint("best")
        assert folder.checkpoint("previous") == folder.previous
        with pytest.raises(UserError, match=r"x\.ckpt: there is no x\.ckpt\. In .*: nothing\."):
            make_run(tmp_path / "other").checkpoint("x.ckpt")
        for address in ("http://127.0.0.1/x.ckpt", "file:///x.ckpt", "s3://a/x.ckpt"):
            with pytest.raises(UserError, match=f"{address} is an address; allowed are files"):
                folder.checkpoint(address)

    def test_best_or_last(self, tmp_path: Path) -> None:
        both = make_run(tmp_path / "both", "best", "last")
        assert both.best_or_last() == both.best
        one = make_run(tmp_path / "one", "last")
        assert one.best_or_last() == one.last
        with pytest.raises(UserError, match=r"neither best\.ckpt nor last\.ckpt\. In .*: nothing"):
            make_run(tmp_path / "none").best_or_last()

    def test_discard_leaves_other_files(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "run", "last")
        (folder.path / "wandb").mkdir()
        for path in (folder.samples, folder.record, folder.metrics, folder.path / "mine.txt"):
            path.touch()
        folder.discard()
        assert [path.name for path in folder.path.iterdir()] == ["mine.txt"]
        assert not folder.holds_run
        (folder.path / "mine.txt").unlink()
        folder.discard()
        assert not folder.path.exists()

    def test_read_record(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "run")
        assert folder.read_record() == {}
        assert folder.run_id is None
        write_json(folder.record, {"seed": 3, "wandb_id": "abc"})
        assert folder.read_record() == {"seed": 3, "wandb_id": "abc"}
        assert folder.run_id == "abc"

    @pytest.mark.parametrize(
        ("names", "begun"),
        [((), False), (("best",), False), (("last",), True), (("previous",), True)],
    )
    def test_begun(self, tmp_path: Path, names: tuple[str, ...], begun: bool) -> None:
        assert make_run(tmp_path / "run", *names).begun is begun


class TestWriteJson:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_refuses_what_is_no_json_and_leaves_the_old_file(
        self, tmp_path: Path, value: float
    ) -> None:
        path = tmp_path / "test.json"
        write_json(path, {"loss": 1.0})
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(path, {"loss": value})
        assert json.loads(path.read_text()) == {"loss": 1.0}
        assert list(tmp_path.iterdir()) == [path]

    def test_is_laid_out_for_people(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"name": "bee", "n": [1]})
        assert (tmp_path / "a.json").read_text() == (
            '{\n  "name": "bee",\n  "n": [\n    1\n  ]\n}\n'
        )


class TestWritable:
    def test_a_folder_that_can_be_made(self, tmp_path: Path) -> None:
        RunFolder(tmp_path / "a/b").require_writable("go")

    def test_one_that_can_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []
        monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
        with pytest.raises(UserError, match=r"nothing can be written into .*writable, or go\.$"):
            RunFolder(tmp_path / "a/b").require_writable("go")
        assert asked == [(tmp_path, os.W_OK)]


class TestGit:
    @pytest.fixture(autouse=True)
    def git_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set git apart from the user's settings, and from a hook that may run these tests."""
        require_program("git")
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            monkeypatch.delenv(name)
        for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
            monkeypatch.setenv(name, os.devnull)

    def commit_of(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
        monkeypatch.setattr(run, "__file__", str(folder / "run.py"))
        return git_commit()

    def test_outside_git_there_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert self.commit_of(tmp_path, monkeypatch) is None

    def test_without_git_there_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert self.commit_of(tmp_path, monkeypatch) is None

    def test_names_the_commit_and_whether_it_was_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def git(*words: str) -> str:
            identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
            done = subprocess.run(
                ["git", *identity, *words], cwd=tmp_path, capture_output=True, text=True, check=True
            )
            return done.stdout.strip()

        git("init", "-q")
        (tmp_path / "a").write_text("1")
        git("add", "a")
        git("commit", "-q", "-m", "one")
        git("tag", "-a", "v1", "-m", "one")  # a tag's name would say less than the commit
        commit = git("rev-parse", "HEAD")
        assert self.commit_of(tmp_path, monkeypatch) == commit
        (tmp_path / "a").write_text("2")
        assert self.commit_of(tmp_path, monkeypatch) == f"{commit}-dirty"


def test_versions_name_what_a_run_depends_on() -> None:
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert {
        "waggle",
        "python",
        "lightning",
        "torchmetrics",
        "albumentations",
        "wandb",
        "pillow",
    } < (set(found))


# ---------------------------------------------------------------------------------------------
# The rules of the command line


class TestWords:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("fit --config a.yaml -c b.yaml", ["a.yaml", "b.yaml"]),
            ("fit --config=a.yaml", ["a.yaml"]),
            ("fit --config=a=b.yaml", ["a=b.yaml"]),
            ("fit --config=", [""]),
            ("fit --configs=a.yaml --config_x a", []),
            ("fit --config", []),
            ("fit", []),
        ],
    )
    def test_option_values(self, words: str, expected: list[str]) -> None:
        assert option_values(words.split(), "--config", "-c") == expected

    def test_option_values_keep_the_order_of_both_forms(self) -> None:
        """The last one wins, whichever form it has."""
        words = ["fit", "--run_dir=a", "--run_dir", "b", "--run_dir=c", "--run_dir", "d"]
        assert option_values(words, "--run_dir") == ["a", "b", "c", "d"]

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("fit --run_dir a --seed_everything 3", "fit --seed_everything 3"),
            ("fit --run_dir=a --seed_everything 3", "fit --seed_everything 3"),
            ("fit --run_dirs a --x=--run_dir", "fit --run_dirs a --x=--run_dir"),
            ("fit --run_dir", "fit"),
            ("fit --run_dir a --run_dir=b", "fit"),
        ],
    )
    def test_without_option(self, words: str, expected: str) -> None:
        assert without_option(words.split(), "--run_dir") == expected.split()


class TestStoredConfig:
    STORED = (
        "seed_everything: 4\nmodel: {num_classes: 2}\ndata: {root: pictures}\nprogress: bar\n"
        "trainer: {precision: bf16-mixed, devices: 4, logger: true, max_epochs: 3}\n"
    )

    def config_of(self, words: list[str], scratch: Path) -> dict[str, Any]:
        found = with_stored_config(words, scratch)
        assert found[:2] == [words[0], "--config"]
        assert found[3:][: len(words) - 1] == words[1:]
        content: dict[str, Any] = yaml.safe_load(Path(found[2]).read_text())
        return content

    def test_scoring_takes_what_scores_depend_on(self, tmp_path: Path) -> None:
        make_run(tmp_path / "run", config=self.STORED)
        (tmp_path / "scratch").mkdir()
        for command in ("validate", "test", "predict"):
            assert self.config_of([command, "--run_dir", "run"], tmp_path / "scratch") == {
                "seed_everything": 4,
                "model": {"num_classes": 2},
                "data": {"root": "pictures"},
                "trainer": {"logger": False, "devices": 1, "precision": "bf16-mixed"},
            }

    def test_the_folder_of_a_checkpoint_will_do(self, tmp_path: Path) -> None:
        make_run(tmp_path / "run", "best", config=self.STORED)
        (tmp_path / "scratch").mkdir()
        words = ["test", "--ckpt_path", "run/checkpoints/best.ckpt"]
        found = with_stored_config(words, tmp_path / "scratch")
        assert found[-2:] == ["--run_dir", str(tmp_path / "run")]

    @pytest.mark.parametrize("words", [["test"], ["predict", "--ckpt_path", "x.ckpt"]])
    def test_no_run(self, words: list[str], tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"{words[0]} needs a run: give --run_dir RUN"):
            with_stored_config(words, tmp_path)

    @pytest.mark.parametrize("name", ["last", "auto"])
    def test_fit_goes_on_with_the_whole_of_it(self, name: str, tmp_path: Path) -> None:
        make_run(tmp_path / "run", config=self.STORED)
        (tmp_path / "scratch").mkdir()
        words = ["fit", "--run_dir=run", f"--ckpt_path={name}"]
        assert self.config_of(words, tmp_path / "scratch") == yaml.safe_load(self.STORED)
        again = [*words, "--config", "own.yaml"]
        assert with_stored_config(again, tmp_path / "scratch") == again

    @pytest.mark.parametrize(
        "words",
        [
            ["fit"],
            ["fit", "--run_dir=run"],
            ["fit", "--ckpt_path=last"],
            ["fit", "--run_dir=new", "--ckpt_path=auto"],
            ["test", "--help"],
            ["--help"],
        ],
    )
    def test_words_that_need_none_stay(self, words: list[str], tmp_path: Path) -> None:
        make_run(tmp_path / "run")
        assert with_stored_config(words, tmp_path) == words

    def test_last_where_there_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="--run_dir new: there is no such folder"):
            with_stored_config(["fit", "--run_dir=new", "--ckpt_path=last"], tmp_path)


def options(
    run_dir: str | None = None,
    ckpt_path: str | None = None,
    config: list[str] | None = None,
    fast: bool = False,
    root: str | None = None,
) -> Any:
    return SimpleNamespace(
        run_dir=run_dir,
        ckpt_path=ckpt_path,
        config=config,
        trainer=SimpleNamespace(fast_dev_run=fast),
        data=SimpleNamespace(root=root),
    )


class TestPlan:
    def test_a_new_run_goes_to_a_folder_of_its_recipe(self) -> None:
        plan = plan_command("fit", options(config=["configs/demo.yaml", "x.yaml"]), {})
        assert plan.folder is not None
        assert plan.folder.path.parent == Path("runs/demo")
        assert (plan.checkpoint, plan.resumes) == (None, False)
        assert not plan.folder.path.exists()  # nothing is written by planning

    @pytest.mark.parametrize(
        "env",
        [{"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0"}, {"SLURM_NTASKS": "2"}],
        ids=["torchrun", "SLURM"],
    )
    def test_processes_that_others_start_must_be_told_the_folder(self, env: dict[str, str]) -> None:
        with pytest.raises(UserError, match=r"under torchrun and SLURM .* give --run_dir DIR"):
            plan_command("fit", options(), env)
        plan = plan_command("fit", options(run_dir="here"), env)
        assert plan.folder is not None
        assert plan.folder.path == Path("here")

    def test_one_task_of_slurm_needs_no_folder(self) -> None:
        plan = plan_command("fit", options(), {"SLURM_NTASKS": "1"})
        assert plan.folder is not None
        assert plan.folder.path.parent == Path("runs/run")

    def test_children_take_the_folder_that_they_are_handed(self) -> None:
        handed = {RUN_DIR: "settled", "LOCAL_RANK": "1"}
        plan = plan_command("fit", options(), handed)
        assert plan.folder is not None
        assert plan.folder.path == Path("settled")
        alone = plan_command("fit", options(), {RUN_DIR: "settled"})  # left over by another run
        assert alone.folder is not None
        assert alone.folder.path.parent == Path("runs/run")

    def test_children_may_come_after_the_folder_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_run(tmp_path / "run")
        with pytest.raises(UserError, match="already holds a run"):
            plan_command("fit", options(run_dir="run"), {})
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        assert plan_command("fit", options(run_dir="run"), {}).folder is not None

    @pytest.mark.parametrize("name", ["last", "auto"])
    def test_going_on(self, name: str, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "run")
        torch.save({"state_dict": {}, "global_step": 3}, folder.last)
        plan = plan_command("fit", options("run", name), {})
        assert (plan.checkpoint, plan.resumes) == (Path("run/checkpoints/last.ckpt"), True)
        assert plan.damage == ()
        assert plan.folder is not None
        assert plan.folder.path.resolve() == folder.path

    @pytest.mark.parametrize("name", ["last", "auto"])
    def test_going_on_from_the_one_before(self, name: str, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "run")
        torch.save({"state_dict": {}, "global_step": 3}, folder.previous)
        plan = plan_command("fit", options("run", name), {})
        assert (plan.checkpoint, plan.resumes) == (Path("run/checkpoints/previous.ckpt"), True)
        assert plan.damage == ("run/checkpoints/last.ckpt is missing.",)
        folder.last.write_bytes(b"")  # planning tells, and changes nothing
        plan = plan_command("fit", options("run", name), {})
        assert "last.ckpt (0 bytes) can't be used: it is empty" in plan.damage[0]
        assert folder.last.read_bytes() == b""

    def test_auto_starts_where_there_is_nothing_to_go_on_with(self) -> None:
        plan = plan_command("fit", options("new", "auto"), {})
        assert (plan.checkpoint, plan.resumes) == (None, False)

    def test_last_where_there_is_none(self, tmp_path: Path) -> None:
        make_run(tmp_path / "run")
        with pytest.raises(UserError, match=r"--ckpt_path last: there is no .*last\.ckpt"):
            plan_command("fit", options("run", "last"), {})
        with pytest.raises(UserError, match="--run_dir new: there is no such folder"):
            plan_command("fit", options("new", "last"), {})

    def test_a_file_is_gone_on_from_in_a_new_folder(self, tmp_path: Path) -> None:
        make_run(tmp_path / "run", "best")
        name = "run/checkpoints/best.ckpt"
        plan = plan_command("fit", options("new", name), {})
        assert (plan.checkpoint, plan.resumes) == (Path(name), False)
        with pytest.raises(UserError, match="already holds a run"):
            plan_command("fit", options("run", name), {})

    def test_a_dev_run_has_no_folder(self, tmp_path: Path) -> None:
        make_run(tmp_path / "run", "best")
        for name in (None, "auto", "last"):
            plan = plan_command("fit", options("run", name, fast=True), {})
            assert (plan.folder, plan.checkpoint) == (None, None)
        name = "run/checkpoints/best.ckpt"
        assert plan_command("fit", options(None, name, fast=True), {}).checkpoint == Path(name)

    def test_scoring_takes_the_best_unless_told(self, tmp_path: Path) -> None:
        make_run(tmp_path / "run", "best", "last")
        for name, expected in ((None, "best"), ("best", "best"), ("last", "last")):
            plan = plan_command("test", options("run", name))
            assert plan.checkpoint == Path(f"run/checkpoints/{expected}.ckpt")
        with pytest.raises(UserError, match="is no run folder"):
            plan_command("predict", options("."))


class TestOwnData:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> RunFolder:
        """A run whose own pictures lie in `own`, with val but no test folder."""
        (tmp_path / "own" / "val").mkdir(parents=True)
        (tmp_path / "other").mkdir()
        found = make_run(tmp_path / "run", "best")
        write_json(found.record, {"data": {"root": str(tmp_path / "own")}})
        return found

    def asked(self, folder: RunFolder, command: str, *words: str, root: str = "own") -> Any:
        given = options(str(folder.path), root=root)
        plan = plan_command(command, given)
        return own_data(command, plan, given, [command, *words]), given.data.root

    @pytest.mark.parametrize("command", ["validate", "test", "predict"])
    def test_nothing_given_means_the_stored_split(self, folder: RunFolder, command: str) -> None:
        assert self.asked(folder, command) == (folder.samples, "own")

    def test_a_relative_root_that_is_gone_is_found_where_it_was(
        self, folder: RunFolder, tmp_path: Path
    ) -> None:
        moved = self.asked(folder, "test", root="gone/own")
        assert moved == (folder.samples, str(tmp_path / "own"))

    def test_a_root_that_is_gone_for_good_stays_as_it_was(
        self, folder: RunFolder, tmp_path: Path
    ) -> None:
        (tmp_path / "own").rename(tmp_path / "away")
        assert self.asked(folder, "test", root="gone/own") == (folder.samples, "gone/own")

    @pytest.mark.parametrize(
        ("command", "words", "stored"),
        [
            ("test", ["--data.root=own"], True),  # has no test folder: the stored split
            ("test", ["--data.root", "run/../own"], True),
            ("validate", ["--data.root=own"], False),  # has a val folder
            ("test", ["--data.root=other"], False),
            ("test", ["--data.root=own", "--data.root=other"], False),  # the last one counts
            ("test", ["--data.root=nope"], False),
            ("predict", ["--data.root=own"], False),  # all of it
        ],
    )
    def test_a_root_that_is_given(
        self, folder: RunFolder, command: str, words: list[str], stored: bool
    ) -> None:
        found, _ = self.asked(folder, command, *words)
        assert found == (folder.samples if stored else None)


def trainer_options(**changed: Any) -> Any:
    plain = {
        "accelerator": "auto", "devices": "auto", "precision": None, "default_root_dir": None,
        "use_distributed_sampler": False, "val_check_interval": None, "num_nodes": 1,
        "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1,
    }  # fmt: skip
    return SimpleNamespace(**{**plain, **changed})


class TestTrainerOptions:
    def test_several_devices_need_a_shell_and_one_does_not(self) -> None:
        for devices in ("auto", "1", 1, [0]):
            check_trainer(trainer_options(devices=devices), False)
        for devices in (2, "2", [0, 1]):
            check_trainer(trainer_options(devices=devices), True)
            with pytest.raises(UserError, match=r"several devices need `python -m src\.train"):
                check_trainer(trainer_options(devices=devices), False)

    def test_what_breaks_a_promise_is_refused(self) -> None:
        check_trainer(trainer_options(), True)
        with pytest.raises(UserError, match=r"use_distributed_sampler true: the order .*Drop it"):
            check_trainer(trainer_options(use_distributed_sampler=True), True)
        with pytest.raises(UserError, match=r"default_root_dir x: .* Give --run_dir DIR instead"):
            check_trainer(trainer_options(default_root_dir="x"), True)

    def machine(self, monkeypatch: pytest.MonkeyPatch, gpus: int, bf16: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    @pytest.mark.parametrize(
        "changed",
        [
            {},
            {"accelerator": "cpu", "devices": 8},
            {"devices": 2},
            {"accelerator": "gpu", "devices": "2"},
            {"accelerator": "gpu", "devices": "auto"},
            {"accelerator": "gpu", "devices": -1},
            {"accelerator": "gpu", "devices": [0, 1]},
            {"accelerator": "cuda", "devices": [1]},
            {"accelerator": "gpu", "precision": "16-mixed"},
            {"accelerator": "cpu", "precision": "bf16-mixed"},
            {"accelerator": "cpu", "precision": 32},
            {"accelerator": "cpu", "precision": "64"},
        ],
    )
    def test_what_a_machine_with_two_gpus_can_do(
        self, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.machine(monkeypatch, gpus=2)
        hardware.check(trainer_options(**changed))

    @pytest.mark.parametrize(
        ("changed", "match"),
        [
            (
                {"devices": 3},
                r"--trainer\.devices 3: this machine has 2 GPU\(s\)\. Allowed: 1 to 2",
            ),
            ({"accelerator": "gpu", "devices": "3"}, r"--trainer\.devices 3: this machine has 2"),
            ({"accelerator": "gpu", "devices": [0, 2]}, r"devices \[0, 2\]: this machine has 2"),
            ({"accelerator": "gpu", "devices": "0,2"}, r"devices 0,2: this machine has 2"),
            ({"accelerator": "cpu", "precision": 16}, r"precision 16: a CPU can't do that"),
            ({"accelerator": "cpu", "precision": "16-mixed"}, r"Allowed here: 32-true, bf16-mixed"),
            ({"accelerator": "cpu", "precision": "transformer-engine"}, "a CPU can't do that"),
        ],
    )
    def test_what_it_can_not_do(
        self, changed: dict[str, Any], match: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.machine(monkeypatch, gpus=2)
        with pytest.raises(UserError, match=match):
            hardware.check(trainer_options(**changed))

    def test_an_old_gpu_has_no_bfloat16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine(monkeypatch, gpus=1, bf16=False)
        hardware.check(trainer_options(precision="16-mixed"))
        match = r"precision bf16-mixed: this GPU has no bfloat16\. Allowed: 32-true, 16-mixed"
        with pytest.raises(UserError, match=match):
            hardware.check(trainer_options(precision="bf16-mixed"))

    @pytest.mark.parametrize(
        ("precision", "device", "machine", "avx512", "slow"),
        [
            ("bf16-mixed", "cpu", "x86_64", False, True),
            ("bf16-true", "cpu", "AMD64", False, True),
            ("bf16-mixed", "cpu", "x86_64", True, False),
            ("bf16-mixed", "cpu", "arm64", False, False),
            ("bf16-mixed", "cuda", "x86_64", False, False),
            ("32-true", "cpu", "x86_64", False, False),
        ],
    )
    def test_emulated_bf16(
        self,
        precision: str,
        device: str,
        machine: str,
        avx512: bool,
        slow: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("platform.machine", lambda: machine)
        monkeypatch.setattr(hardware, "has_avx512", lambda: avx512)
        found = hardware.slow_precision(precision, torch.device(device))
        assert bool(found) == slow
        assert not slow or "Take 32-true" in found

    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine(monkeypatch, gpus=0)
        hardware.check(trainer_options(devices=2))  # processes on the CPU
        for name in ("gpu", "cuda"):
            match = f"accelerator {name}: this machine has no GPU that torch can use.*cpu, or auto"
            with pytest.raises(UserError, match=match):
                hardware.check(trainer_options(accelerator=name))
        with pytest.raises(UserError, match="a CPU can't do that"):
            hardware.check(trainer_options(precision="16-mixed"))


# ---------------------------------------------------------------------------------------------
# Config files


class TestConfigFiles:
    def test_what_is_no_config(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_text("")
        assert read_config(path) == {}
        path.write_text("data: {root: x}\n")
        assert read_config(path) == {"data": {"root": "x"}}
        for content, match in {
            b"- 1\n": r"a\.yaml holds a list; a config is a mapping",
            b"a\n": r"a\.yaml holds a str",
            b"0\n": r"a\.yaml holds a int",
            b"data: {\n": r"a\.yaml, line 2, column 1: this is no YAML",
            b"a: b: c\n": r"a\.yaml, line 1, column 5: this is no YAML: mapping values",
            b"a: !!python/object:os.system x\n": r"a\.yaml, line 1, .*could not determine",
            b"\xff\xfe\x00\x01": r"a\.yaml: this is no YAML text file",
            b"a: \x01\n": r"a\.yaml: this is no YAML text file",
        }.items():
            path.write_bytes(content)
            with pytest.raises(UserError, match=match):
                read_config(path)

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"--config x\.yaml: .*there are: none here"):
            read_config(Path("x.yaml"))
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "demo.yaml").touch()
        with pytest.raises(UserError, match=r"did you mean 'configs/demo\.yaml'"):
            read_config(Path("configs/deom.yaml"))

    @pytest.mark.parametrize(
        ("config", "match"),
        [
            (
                {"trainer": {"callbacks": [{"class_path": "callbacks.Thruput"}]}},
                r"my\.yaml: trainer\.callbacks\[0\]: callbacks has no class 'Thruput'; did you",
            ),
            (
                {"model": {"net": {"class_path": "src.models.SeedCNN", "init_args": {"img": 3}}}},
                r"model\.net: SeedCNN has no argument 'img'; allowed are num_classes, single_logit",
            ),
            (
                {"model": {"net": {"class_path": "src.models.SeedCNN", "init_args": [3]}}},
                r"init_args is \[3\]; expected is a mapping",
            ),
            (
                {"model": {"net": {"class_path": "scr.models.SeedCNN"}}},
                r"no module 'scr' for class_path scr\.models\.SeedCNN; did you mean 'src'",
            ),
            (
                {"model": {"net": {"class_path": "xyzzy.Net"}}},
                "no module 'xyzzy' .*write the full dotted path",
            ),
        ],
    )
    def test_mistyped_classes(self, config: dict[str, Any], match: str) -> None:
        with pytest.raises(UserError, match=match):
            check_classes(config, "my.yaml")

    def test_a_package_that_the_class_needs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mine.py").write_text("import no_such_package\n")
        monkeypatch.syspath_prepend(tmp_path)
        match = r"here: mine\.Net needs the package 'no_such_package', which is not installed"
        with pytest.raises(UserError, match=match):
            resolve("mine.Net", "here")

    def test_what_passes(self) -> None:
        assert resolve("SGD", "here") is None  # a short name is jsonargparse's to find
        assert resolve("torch.optim.SGD", "here") is torch.optim.SGD
        flop = {"class_path": "albumentations.HorizontalFlop"}
        check_classes({"data": {"augment": [flop]}}, "my.yaml")  # src.data.transforms checks it
        takes_any = "lightning.pytorch.loggers.WandbLogger"
        logger = {"class_path": takes_any, "init_args": {"anything": 1}}
        check_classes({"trainer": {"logger": [logger]}}, "my.yaml")

    def test_a_logger_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        board = SimpleNamespace(class_path="lightning.pytorch.loggers.TensorBoardLogger")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        for loggers in (board, [SimpleNamespace(class_path="x.Y"), board]):
            with pytest.raises(UserError, match=r"package 'tensorboard'.*-e '\.\[tensorboard\]'"):
                check_extras(loggers)
        for fine in (True, None, [], SimpleNamespace(class_path="x.Y")):
            check_extras(fine)

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (
                "unrecognized arguments: --data.batchsize=3",
                "there is no option 'data.batchsize'; did you mean 'data.batch_size'?",
            ),
            (
                "Subcommand 'fit' does not accept option 'xyzzy'",
                "there is no option 'xyzzy'; see --help for the list",
            ),
            (
                "Parser key \"data.batch_size\":\n  Expected a <class 'int'>. Got value: many",
                "--data.batch_size is 'many'; expected is a whole number",
            ),
            (
                "module 'src.models' has no attribute 'SmalResNet'",
                ": src.models has no class 'SmalResNet'; did you mean 'SmallResNet'?",
            ),
        ],
    )
    def test_messages_of_the_parser(self, message: str, expected: str) -> None:
        assert explain(message, ["data.batch_size", "data.root"]) == expected


# ---------------------------------------------------------------------------------------------
# Bad ends


class Fails(Dataset[int]):
    """Data that can't be read."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise self.error


def from_a_worker(error: BaseException) -> Exception:
    """Return what a DataLoader makes of an error in one of its processes."""
    loader = DataLoader(Fails(error), num_workers=1, multiprocessing_context="fork")
    batches = iter(loader)
    try:
        next(batches)
    except Exception as raised:
        assert "in DataLoader worker process" in str(raised)
        return raised.with_traceback(None)  # whose frames would keep the worker waiting
    raise AssertionError("the worker raised nothing")


def oserror(number: int, name: str | None = "a.ckpt") -> OSError:
    return OSError(number, os.strerror(number), name)


FULL = r"the disk is full \(a\.ckpt\): No space left on device\. .*--ckpt_path auto"


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "code", "match"),
        [
            (UserError("mend it"), 2, "^mend it$"),
            (RunFailureError("it gave out"), 1, "^it gave out$"),
            (argparse.ArgumentError(None, "no such option"), 2, "^no such option$"),
            (MisconfigurationException("not like this"), 2, "^not like this$"),
            (oserror(errno.ENOSPC), 1, FULL),
            (oserror(errno.EDQUOT), 1, r"the disk is full \(a\.ckpt\)"),
            (oserror(errno.EFBIG, None), 1, "the disk is full: File too large"),
            (oserror(errno.EACCES), 2, r"^Permission denied \(a\.ckpt\)\. Give a path that can"),
            (oserror(errno.EROFS), 2, r"^Read-only file system \(a\.ckpt\)\. Give a path that can"),
            (oserror(errno.ENOENT), 2, r"^No such file or directory \(a\.ckpt\)\. Give a path"),
            (oserror(errno.ENOTDIR), 2, r"^Not a directory \(a\.ckpt\)"),
            (MemoryError(), 1, "not enough memory: the system gave none. Lower --data.batch_size"),
            (
                torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore"),
                1,
                r"not enough memory: CUDA out of memory\. Tried 2 GiB\. Lower",
            ),
            (
                RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"),
                1,
                "not enough memory: .*DefaultCPUAllocator",
            ),
            (
                RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
                1,
                "a checkpoint could not be written, the disk may be full: PytorchStreamWriter",
            ),
            (
                RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "),
                1,
                r"is killed by signal: Killed\. .*lower --data\.num_workers",
            ),
        ],
    )
    def test_codes_and_messages(self, error: Exception, code: int, match: str) -> None:
        found, message = explain_failure(error)
        assert found == code
        assert message is not None
        assert re.search(match, message), message

    @pytest.mark.parametrize(
        "error", [KeyError("x"), oserror(errno.EIO), RuntimeError("x"), AssertionError()]
    )
    def test_what_nobody_foresaw(self, error: Exception) -> None:
        assert explain_failure(error) == (1, None)

    @pytest.mark.parametrize(
        ("error", "code", "message"),
        [
            (UserError("x.png is gone.\nOSError: as it says. Mend it."), 2, None),
            (UserError("src.errors.UserError: is a part of the text"), 2, None),
            (RunFailureError("it gave out"), 1, None),
        ],
    )
    def test_ours_from_a_worker_without_its_traceback(
        self, error: Exception, code: int, message: str | None
    ) -> None:
        found, text = explain_failure(from_a_worker(error))
        assert found == code
        assert text is not None
        assert text.strip() == str(error)

    @pytest.mark.parametrize(
        ("error", "named"),
        [
            (MemoryError("no room for a picture"), "not enough memory: no room for a picture"),
            # how torch says that the memory which processes share is used up
            (
                RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)"),
                "No space left on device",
            ),
        ],
    )
    def test_memory_gives_out_in_a_worker(self, error: Exception, named: str) -> None:
        code, message = explain_failure(from_a_worker(error))
        assert code == 1
        assert message is not None
        assert re.search(named, message), message
        assert "--data.num_workers" in message
        assert "Traceback" not in message

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (UserError("mend it"), 2),
            (SystemExit(0), 0),
            (SystemExit(3), 3),
            (SystemExit(None), 0),
            (SystemExit("a text"), 1),
        ],
    )
    def test_exit_codes(
        self, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with end_with_message() as outcome:
            raise error
        assert outcome.code == code
        err = capsys.readouterr().err
        assert "Traceback" not in err
        if isinstance(error, UserError):
            assert err == "error: mend it\n"

    @pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
    def test_a_run_that_was_stopped_and_saved(
        self, name: str, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with end_with_message() as outcome:
            raise StoppedRun(name, " after step 3.")
        assert outcome.code == code
        shown = "Ctrl-C" if name == "SIGINT" else name
        assert capsys.readouterr().err == f"stopped by {shown} after step 3.\n"

    @pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK"])
    def test_the_first_process_speaks(
        self, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for rank in ("0", "1"):
            monkeypatch.setenv(variable, rank)
            with end_with_message():
                raise StoppedRun("SIGTERM")
            assert bool(capsys.readouterr().err) == (rank == "0")

    @pytest.mark.skipif(os.name != "posix", reason="not on this system: signals")
    @pytest.mark.parametrize(
        ("name", "code", "shown"),
        [("SIGINT", 130, "Ctrl-C"), ("SIGTERM", 143, "SIGTERM"), ("SIGUSR1", 143, "SIGUSR1")],
    )
    def test_a_signal_ends_it_tidily(
        self, name: str, code: int, shown: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        number, tidied = getattr(signal, name), False
        before = signal.getsignal(number)
        with end_with_message() as outcome:
            try:
                signal.raise_signal(number)
            finally:
                tidied = True
        assert (outcome.code, tidied) == (code, True)
        assert signal.getsignal(number) is before
        assert capsys.readouterr().err == f"stopped by {shown}\n"

    def test_outside_the_main_thread_it_sets_no_handler(self) -> None:
        codes = []

        def work() -> None:
            with end_with_message() as outcome:
                pass
            codes.append(outcome.code)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert codes == [0]

    def test_all_went_well(self) -> None:
        with end_with_message() as outcome:
            pass
        assert outcome.code == 0

    def test_a_fault_shows_its_traceback(self, capsys: pytest.CaptureFixture[str]) -> None:
        with end_with_message() as outcome:
            raise KeyError("wing")
        assert outcome.code == 1
        err = capsys.readouterr().err
        assert err.startswith("Traceback")
        assert re.search(r"error: KeyError: 'wing'\nThis is a fault in Waggle or in a class", err)

    def test_place_of_an_error(self) -> None:
        def raises() -> None:
            raise ValueError

        with pytest.raises(ValueError) as raised:
            raises()
        line = raises.__code__.co_firstlineno + 1
        assert place(raised.value) == f"raises in test_run.py, line {line}"


@pytest.mark.skipif(os.name != "posix", reason="not on this system: a shell script")
class TestRequeue:
    @pytest.fixture
    def asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A stand-in for scontrol that notes its words; it fails for the job 666."""
        program = tmp_path / "bin" / "scontrol"
        program.parent.mkdir()
        note = tmp_path / "asked"
        program.write_text(f'#!/bin/sh\necho "$@" >> {note}\ntest "$2" != 666\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return note

    def leave(self, name: str = "SIGUSR1") -> None:
        with end_with_message():
            raise StoppedRun(name)

    @pytest.mark.parametrize(
        ("env", "words"),
        [
            ({"SLURM_JOB_ID": "17"}, "requeue 17\n"),
            # each task of an array has an id of its own, which is not the one to name
            (
                {"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"},
                "requeue 17_3\n",
            ),
        ],
        ids=["job", "array"],
    )
    def test_names_the_job(
        self, asked: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], words: str
    ) -> None:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        self.leave()
        assert asked.read_text() == words

    @pytest.mark.parametrize(
        ("name", "leader", "job"),
        [
            ("SIGTERM", True, "17"),
            ("SIGINT", True, "17"),
            ("SIGUSR1", False, "17"),
            ("SIGUSR1", True, ""),
        ],
    )
    def test_is_for_one_signal_one_process_and_slurm(
        self, asked: Path, monkeypatch: pytest.MonkeyPatch, name: str, leader: bool, job: str
    ) -> None:
        if job:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_PROCID", "0" if leader else "1")
        self.leave(name)
        assert not asked.exists()

    def test_that_fails_is_told(
        self, asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "666")
        self.leave()
        warning = "WARNING: scontrol requeue 666 ended with code 1\n"
        assert capsys.readouterr().err == f"stopped by SIGUSR1\n{warning}"

    def test_without_the_program_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.setenv("PATH", str(tmp_path))
        self.leave()
        assert "\nWARNING: job 17 was not queued again: " in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------
# Results


def table(*logits: tuple[float, float], target: int = -1) -> Table:
    rows = len(logits)
    return Table.from_rows(range(rows), [target] * rows, np.array(logits, np.float32))


class TestPredictions:
    def write(
        self,
        path: Path,
        name: str = "a.png",
        decision: Decision = Decision(),  # noqa: B008
    ) -> None:
        write_predictions(
            path,
            listed=[name, "broken.png", "b.png"],
            errors={"broken.png": "truncated, at the end"},
            predicted=["b.png", name],
            table=table((0.0, 0.0), (np.log(3), 0.0)),
            classes=("bee", "wasp, the"),
            decision=decision,
        )

    def test_by_hand(self, tmp_path: Path) -> None:
        path = tmp_path / "predictions.csv"
        path.write_text("old\n" * 99)
        self.write(path)
        assert path.read_text() == (
            'path,predicted_class,"prob_wasp, the",error\n'.replace("class,", "class,prob_bee,")
            + "a.png,bee,0.750000,0.250000,\n"  # softmax of ln 3 and 0
            + 'broken.png,,,,"truncated, at the end"\n'
            + "b.png,bee,0.500000,0.500000,\n"
        )
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("name", ['with "quotes", and commas.png', "\udcff.png", "ä.png"])
    def test_names_come_back_as_they_are(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "predictions.csv"
        self.write(path, name)
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            assert [row["path"] for row in csv.DictReader(file)] == [name, "broken.png", "b.png"]

    def test_the_decision_rules(self, tmp_path: Path) -> None:
        """Half the logits: softmax of ln 3 / 2 and 0; from 0.4 on it is the second class."""
        path = tmp_path / "predictions.csv"
        self.write(path, decision=Decision(2.0, 0.4))
        assert path.read_text().splitlines()[1::2] == [
            "a.png,bee,0.633975,0.366025,",
            'b.png,"wasp, the",0.500000,0.500000,',
        ]

    def test_a_failure_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "predictions.csv"
        path.write_text("old\n")
        one = table((0.0, 0.0))
        with pytest.raises(KeyError, match=r"lost\.png"):
            write_predictions(
                path, ["a.png", "lost.png"], {}, ["a.png"], one, ("a", "b"), Decision()
            )
        assert path.read_text() == "old\n"


class TestResults:
    def test_scores_are_written_and_shown(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        right = table((2.0, 0.0), (3.0, 0.0), target=0)
        more = {"checkpoint": "best.ckpt"}
        names = ["a.png", "b.png"]
        write_scores(tmp_path / "test.json", names, right, ("bee", "wasp"), Decision(), more)
        found = json.loads((tmp_path / "test.json").read_text())
        assert (found["accuracy"], found["n"], found["checkpoint"]) == (1.0, 2, "best.ckpt")
        expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-3))) / 2
        assert found["loss"] == pytest.approx(expected, rel=1e-6)
        assert "accuracy  1.0000  (0.3424 to 1.0000)" in capsys.readouterr().out

    def test_parameter_counts(self) -> None:
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        net[0].weight.requires_grad = False
        assert parameter_counts(net) == {"parameters": 26, "trainable_parameters": 14}

    def test_peak_memory_is_in_gib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        resource = pytest.importorskip("resource", reason="not on this system: resource")
        usage: Callable[[Any], Any] = lambda who: SimpleNamespace(ru_maxrss=3 * 2**20)  # noqa: E731
        monkeypatch.setattr(resource, "getrusage", usage)
        for platform, gib in (("linux", 3.0), ("darwin", round(3 / 1024, 3)), ("win32", None)):
            monkeypatch.setattr("sys.platform", platform)
            assert peak_memory()["process_gib"] == gib
