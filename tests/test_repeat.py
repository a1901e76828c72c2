"""The command that repeats a recipe: its plan, its sums, and real runs that are stopped."""

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from src import repeat, train
from src.child import Ended, run_child
from src.errors import UserError
from src.repeat import main, read_words
from src.repetition import (
    check_same_data,
    differences,
    keep_plan,
    options_of,
    plan_of,
    scores_of,
    table,
)
from src.run import RunFolder
from src.sameness import compare_runs
from src.scored import read_scored
from tests.cli.conftest import TINY, make_pictures
from tests.helpers import ROOT
from tests.slow import SECONDS

RECIPE = {"trainer": {"max_epochs": 2}, "model": {"label_smoothing": 0.1}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE), "utf-8")
    return path


class TestWords:
    def test_the_rest_goes_to_fit(self) -> None:
        line = "--data.root D -c a/x.yaml --config y.yaml --seeds 3,1 -- --trainer.max_epochs 3"
        settings = read_words(line.split())
        assert settings.fit == ("--data.root", "D", "--trainer.max_epochs", "3")
        assert settings.configs == (Path("a/x.yaml"), Path("y.yaml"))
        assert settings.seeds == (3, 1)
        assert settings.folder == Path("runs/repeat/x")
        assert settings.run(3).path == Path("runs/repeat/x/seed-3")

    def test_nobody_looks_at_the_test_pictures_unasked(self) -> None:
        assert read_words(["--config", "x.yaml"]).splits == ("val",)
        assert read_words(["--config", "x.yaml", "--test"]).splits == ("val", "test")

    def test_five_seeds_unasked(self) -> None:
        assert read_words(["--config", "x.yaml"]).seeds == (0, 1, 2, 3, 4)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("", r"required: --config/-c\. See --help"),
            ("--config c --seeds 1,x", r"'1,x' is no list of different numbers from 0 to 4294967"),
            ("--config c --seeds 1,1", r"'1,1' is no list of different numbers"),
            ("--config c --seeds 4294967296", r"is no list of different numbers"),
            ("--config c --run_dir R", r"--run_dir can't be given here: --out DIR is the folder"),
            ("--config c --ckpt_path=last", r"--ckpt_path can't be given here"),
            ("--config c -- --seed_everything 3", r"--seed_everything can't .*: --seeds lists"),
            ("--config c --trainer.fast_dev_run true", r"keeps nothing that could be scored"),
            ("--config c -- --config d", r"--config can't be given here: give it before the lone"),
        ],
    )
    def test_mistakes(self, words: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            read_words(words.split())

    def test_no_such_config(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert main(["--config", str(tmp_path / "nope.yaml"), "--out", str(out)]) == 2
        assert "nope.yaml: there is no such file" in capsys.readouterr().err
        assert not out.exists()

    def test_options_are_pairs(self) -> None:
        words = ["--a=1", "--b", "2", "--c", "--d+=x=y", "--e", "-1", "stray"]
        assert options_of(words) == [
            *(("--a", "1"), ("--b", "2"), ("--c", ""), ("--d+", "x=y"), ("--e", "-1")),
            ("stray", ""),
        ]


class TestPlan:
    def keep(self, folder: Path, config: Path, line: str = "") -> None:
        keep_plan(folder, plan_of([config], line.split()))

    def test_the_same_plan_goes_on(self, config: Path, tmp_path: Path) -> None:
        for line in ("--model.net.dropout 0.1 --a=b", "--model.net.dropout=0.1 --a b"):
            self.keep(tmp_path / "out", config, line)

    def test_where_the_data_lie_and_who_is_told_may_change(
        self, config: Path, tmp_path: Path
    ) -> None:
        self.keep(tmp_path / "out", config, "--data.root A --trainer.logger false")
        self.keep(tmp_path / "out", config, "--data.root=B --data.num_workers 2 --progress off")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--data.batch_size 8", r"--data\.batch_size is '8' and was '4'\. Undo that"),
            ("", r"--data\.batch_size is not given and was '4'"),
            ("--data.batch_size 4 --x 1", r"plan: --x is '1' and was not given\. Undo"),
            ("--data.batch_size 4 --data.batch_size 5", r"is '4 5' and was '4'"),
        ],
    )
    def test_another_option_is_named(
        self, line: str, message: str, config: Path, tmp_path: Path
    ) -> None:
        self.keep(tmp_path / "out", config, "--data.batch_size 4")
        with pytest.raises(UserError, match=message):
            self.keep(tmp_path / "out", config, line)
        self.keep(tmp_path / "out", config, "--data.batch_size 4")

    def test_another_config_is_named(self, config: Path, tmp_path: Path) -> None:
        self.keep(tmp_path / "out", config)
        changed = {**RECIPE, "trainer": {"max_epochs": 3}, "data": {"root": "elsewhere"}}
        config.write_text(yaml.safe_dump(changed), "utf-8")
        with pytest.raises(UserError, match=r"plan: trainer\.max_epochs is 3 and was 2\. Undo"):
            self.keep(tmp_path / "out", config)

    def test_of_several_configs_the_number_is_named(self, config: Path, tmp_path: Path) -> None:
        keep_plan(tmp_path / "out", plan_of([config, config], []))
        other = tmp_path / "other.yaml"
        other.write_text("trainer: {max_epochs: 5}\n")
        with pytest.raises(UserError, match=r"config 2: trainer\.max_epochs is 5 and was 2"):
            keep_plan(tmp_path / "out", plan_of([config, other], []))

    def test_a_folder_of_something_else(self, config: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"--out \S+ is not free"):
            self.keep(tmp_path, config)
        with pytest.raises(UserError, match=r"--out \S+ is not free"):
            self.keep(config, config)

    @pytest.mark.parametrize("text", ["", "[]", "configs: 3", "configs: []", "a: [", "options: []"])
    def test_a_damaged_plan(self, text: str, config: Path, tmp_path: Path) -> None:
        self.keep(tmp_path / "out", config)
        (tmp_path / "out/plan.yaml").write_text(text)
        with pytest.raises(UserError, match=r"plan\.yaml is damaged"):
            self.keep(tmp_path / "out", config)

    def test_a_value_of_none_is_not_an_absent_one(self) -> None:
        assert differences({"a": None}, {}) == ["a is not given and was None"]
        assert differences({"a": None}, {"a": None}) == []


def result(seed: int, accuracy: float, loss: float, fingerprint: str = "f") -> dict[str, Any]:
    scores = {
        "accuracy": accuracy, "accuracy_interval": [accuracy - 0.05, accuracy + 0.04],
        "loss": loss, "data_fingerprint": fingerprint,
    }  # fmt: skip
    return {"seed": seed, "run_dir": f"seed-{seed}", "wall_seconds": 61.4, "val": scores}


class TestResult:
    def test_table(self) -> None:
        # Deviations of 0.02 and -0.02: sd 0.0283, half width 12.706 * 0.02.
        lines = table([result(0, 0.90, 0.5), result(7, 0.94, 0.3)], ["val"])
        assert [line.split("  ")[0] for line in lines] == [
            *("seed", "0", "7", "mean", "sd", "min", "max", "95 %")
        ]
        cells = [re.split(r"  +", line) for line in lines]
        assert cells[0] == ["seed", "val accuracy", "val loss", "seconds"]
        assert cells[2] == ["7", "0.9400 (0.8900 to 0.9800)", "0.3000", "61"]
        assert cells[3] == ["mean", "0.9200", "0.4000"]
        assert cells[4] == ["sd", "0.0283", "0.1414"]
        assert cells[5] == ["min", "0.9000", "0.3000"]
        assert cells[7] == ["95 %", "0.6659 to 1.0000", "0.0000 to 1.6706"]

    def test_one_seed_has_no_spread(self) -> None:
        lines = table([result(3, 1.0, 0.5)], ["val"])
        assert re.split(r"  +", lines[3]) == ["sd", "-", "-"]

    def test_other_pictures_are_refused(self) -> None:
        results = [result(0, 0.9, 0.5), result(4, 0.9, 0.5, "g")]
        with pytest.raises(UserError, match=r"val pictures of seed 4 are not those of seed 0.*4"):
            check_same_data(results, ["val"])

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"checkpoint": "last.ckpt"}'])
    def test_scores_that_are_none(self, text: str, tmp_path: Path) -> None:
        assert scores_of(RunFolder(tmp_path), "val") is None
        (tmp_path / "validate.json").write_text(text)
        assert scores_of(RunFolder(tmp_path), "val") is None


def in_process(words: Sequence[str], log: Path, keep: Sequence[int] = ()) -> Ended:
    """Run a command as `run_child` does, without the seconds of a process's start."""
    with (
        log.open("a") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        return Ended(train.main(list(words)), None)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), {"train": 20, "test": 7})


@pytest.fixture(scope="module")
def repeated(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe.yaml, and in `out` two seeds of it; tests must not write into it."""
    folder = tmp_path_factory.mktemp("repeated")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeat, "run_child", in_process)
        patch.chdir(folder)
        assert main([*words_of(pictures), "--seeds=0,1"]) == 0
    return folder


def words_of(pictures: Path) -> list[str]:
    return ["--config=recipe.yaml", "--out=out", f"--data.root={pictures}", *TINY]


@pytest.mark.cli
class TestCommand:
    @pytest.fixture(autouse=True)
    def place(self, repeated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Go to a copy of the repeated runs."""
        shutil.copytree(repeated, tmp_path / "place")
        monkeypatch.chdir(tmp_path / "place")

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The commands that are run, with the folder of each."""
        commands: list[str] = []

        def run(words: Sequence[str], log: Path, keep: Sequence[int] = ()) -> Ended:
            commands.append(f"{words[0]} {Path(words[list(words).index('--run_dir') + 1]).name}")
            return in_process(words, log)

        monkeypatch.setattr(repeat, "run_child", run)
        return commands

    def test_what_it_leaves(self) -> None:
        assert {path.name for path in Path("out").iterdir()} >= {
            *("plan.yaml", "repeat.json", "seed-0", "seed-0.log", "seed-1", "seed-1.log")
        }
        found = json.loads(Path("out/repeat.json").read_text())
        assert [run["seed"] for run in found["runs"]] == [0, 1]
        for run in found["runs"]:
            scores = json.loads(Path("out", run["run_dir"], "validate.json").read_text())
            assert run["val"]["accuracy"] == scores["accuracy"]
            assert run["val"]["loss"] == scores["loss"]
        one, other = (run["val"]["loss"] for run in found["runs"])
        assert one != other
        spread = found["spread"]["val"]["loss"]
        assert spread["mean"] == pytest.approx((one + other) / 2)
        assert spread["sd"] == pytest.approx(abs(one - other) / math.sqrt(2))
        assert (spread["min"], spread["max"]) == (min(one, other), max(one, other))
        high = spread["mean"] + 12.7062 * abs(one - other) / 2
        assert spread["interval"][1] == pytest.approx(high, abs=1e-5)

    def test_the_seed_alone_differs(self) -> None:
        configs = [yaml.safe_load(Path(f"out/seed-{n}/config.yaml").read_text()) for n in (0, 1)]
        assert [config.pop("seed_everything") for config in configs] == [0, 1]
        assert configs[0] == configs[1]
        assert configs[0]["model"]["label_smoothing"] == 0.1
        samples = [Path(f"out/seed-{n}/samples.csv").read_bytes() for n in (0, 1)]
        assert samples[0] == samples[1]

    def test_nobody_looked_at_the_test_pictures(self) -> None:
        assert not list(Path("out").rglob("test.*"))

    def test_the_same_line_again_runs_nothing(
        self, asked: list[str], pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = Path("out/repeat.json").read_bytes()
        assert main([*words_of(pictures), "--seeds=0,1"]) == 0
        assert asked == []
        assert Path("out/repeat.json").read_bytes() == before
        out, err = capsys.readouterr()
        assert err == ""
        line = r"^seed 1 \(2 of 2\): val accuracy \d\.\d{4} \(.* to .*\), loss \d\.\d{4} \(.* to "
        assert re.search(line, out, re.M)
        assert re.search(r"^95 %  .* to ", out, re.M)
        assert out.endswith("repeat.json\n")

    def test_what_is_missing_is_done(self, asked: list[str], pictures: Path) -> None:
        assert main([*words_of(pictures), "--seeds=1,2", "--test"]) == 0
        assert asked == ["test seed-1", "fit seed-2", "validate seed-2", "test seed-2"]
        found = json.loads(Path("out/repeat.json").read_text())
        assert [run["seed"] for run in found["runs"]] == [1, 2]
        scores = json.loads(Path("out/seed-2/test.json").read_text())
        assert found["runs"][1]["test"]["accuracy"] == scores["accuracy"]
        assert set(found["spread"]) == {"val", "test"}

    def test_scores_of_other_weights_are_not_taken(self, asked: list[str], pictures: Path) -> None:
        assert train.main(["validate", "--run_dir=out/seed-0", "--ckpt_path=last"]) == 0
        Path("out/seed-1/validate.csv").unlink()
        assert main([*words_of(pictures), "--seeds=0,1"]) == 0
        assert asked == ["validate seed-0", "validate seed-1"]

    def test_nor_are_those_of_a_run_that_has_gone_on(
        self, asked: list[str], pictures: Path
    ) -> None:
        best = Path("out/seed-0/checkpoints/best.ckpt")
        before = best.read_bytes()
        other = Path("out/seed-1/checkpoints/best.ckpt").read_bytes()
        best.write_bytes(other)
        with pytest.raises(UserError, match=r"is of an earlier best\.ckpt: the run has gone on"):
            read_scored(Path("out/seed-0"), "val")
        assert scores_of(RunFolder("out/seed-0"), "val") is None
        best.write_bytes(before)
        assert scores_of(RunFolder("out/seed-0"), "val") is not None

    def test_another_plan_is_refused_before_anything_runs(
        self, asked: list[str], pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [*words_of(pictures), "--seeds=5", "--trainer.max_epochs=3"]
        assert main(words) == 2
        err = capsys.readouterr().err
        assert "out holds runs of another plan: --trainer.max_epochs is '3' and was not" in err
        assert asked == []

    def test_runs_that_are_not_alike_are_named(
        self, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = Path("out/seed-1/config.yaml")
        config = yaml.safe_load(path.read_text())
        config["trainer"]["max_epochs"], config["data"]["root"] = 3, "elsewhere"
        path.write_text(yaml.safe_dump(config))
        assert main([*words_of(pictures), "--seeds=0,1"]) == 0
        assert capsys.readouterr().err == (
            "WARNING: the runs differ in more than their seed: seed 1: trainer.max_epochs is 3 and "
            "in the first run 2\n"
        )

    @pytest.mark.parametrize("text", ["{", "{}", "[]"])
    def test_a_damaged_summary(
        self, text: str, pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("out/seed-1/summary.json").write_text(text)
        assert main([*words_of(pictures), "--seeds=0,1"]) == 2
        assert "summary.json is damaged" in capsys.readouterr().err

    def test_a_fit_that_fails(
        self, asked: list[str], pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--config=recipe.yaml", f"--data.root={pictures}", "--data.batchsize=3"]
        assert main([*words, "--seeds=4,5"]) == 2
        err = capsys.readouterr().err
        assert "seed 4: fit ended by itself with exit code 2; it said last:" in err
        assert "no option 'data.batchsize'" in err
        assert asked == ["fit seed-4"]
        assert Path("runs/repeat/recipe/plan.yaml").is_file()

    def test_a_dev_run_can_not_be_repeated(
        self, asked: list[str], pictures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("dev.yaml").write_text("trainer: {fast_dev_run: true}\n")
        words = ["--config=dev.yaml", f"--data.root={pictures}", *TINY, "--seeds=0"]
        assert main(words) == 2
        assert "seed 0: fit went well and kept nothing" in capsys.readouterr().err

    def test_a_class_of_the_users_own_is_trusted_again(
        self, asked: list[str], pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = "from src.models import SmallResNet\n\n\nclass Net(SmallResNet):\n    pass\n"
        Path("my_repeated_net.py").write_text(source)
        monkeypatch.syspath_prepend(Path.cwd())
        tiny = [word.replace("src.models.SmallResNet", "my_repeated_net.Net") for word in TINY]
        words = ["--config=recipe.yaml", f"--data.root={pictures}", *tiny, "--seeds=0"]
        assert main([*words, "--trust_code=my_repeated_net"]) == 0
        sys.modules.pop("my_repeated_net")


def written(path: Path) -> int | None:
    """Return when a file was written, None where there is none at the moment."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return None


def when(happened: Callable[[], bool], act: Callable[[], None]) -> None:
    """Act from another thread as soon as something has happened; give up after minutes."""

    def watch() -> None:
        limit = time.monotonic() + 300
        while not happened() and time.monotonic() < limit:
            time.sleep(0.02)
        act()

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.cli
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="not on this system: SIGKILL")
def test_stopped_and_killed_runs_go_on_to_the_same_end(
    config: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)  # where tests.slow is found
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [f"--data.root={pictures}", *TINY, "--trainer.callbacks+=tests.slow.Slow"]
    words += ["--checkpoint_every_steps=1"]
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "out/seed-6")
    fit = ["fit", f"--config={config}", *words, f"--run_dir={whole.path}", "--seed_everything=6"]
    assert run_child(fit, tmp_path / "log").code == 0
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def recorded(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(start(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", recorded)
    line = [f"--config={config}", *words, f"--out={tmp_path / 'out'}", "--seeds=6"]
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    monkeypatch.setenv(SECONDS, "1")  # ten batches
    when(parts.last.is_file, lambda: signal.pthread_kill(main_thread, signal.SIGTERM))
    assert main(line) == 143
    err = capsys.readouterr().err
    assert "stopped by SIGTERM in seed 6. Go on: type the same line again" in err
    assert "stopped by SIGTERM after step" in (tmp_path / "out/seed-6.log").read_text()

    saved = written(parts.last)
    when(
        lambda: written(parts.last) not in (None, saved),
        lambda: os.kill(started[-1].pid, signal.SIGKILL),
    )
    assert main(line) == 1
    assert "seed 6: fit ended by itself with exit code 137" in capsys.readouterr().err

    monkeypatch.setenv(SECONDS, "0")
    assert main(line) == 0
    assert compare_runs(whole, parts).different == ()
    assert len(started) == 4  # three times fit, once validate


def test_the_docs_name_options_that_exist() -> None:
    page = (ROOT / "docs/compare.md").read_text("utf-8")
    lines = re.findall(r"^\$ python -m src\.repeat (.*)$", page, re.MULTILINE)
    assert lines
    for line in lines:
        settings = read_words(shlex.split(line))
        assert all((ROOT / path).is_file() for path in settings.configs)
        names = [name for name, _ in options_of(settings.fit)]
        assert all(name.startswith(("--data.", "--model.", "--trainer.")) for name in names)
