"""The command that kills a run and compares, and the functions that compare."""

import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from src import verify_resume
from src.errors import RunFailureError, UserError
from src.run import RunFolder
from src.sameness import Comparison, compare_runs, count_tensors, differences
from src.sitting import Sitting, saved_step
from src.verify_resume import Trial, main, read_words, table
from tests.cli.conftest import TINY, make_pictures
from tests.helpers import ROOT

needs_kill = pytest.mark.skipif(not hasattr(os, "killpg"), reason="not on this system: SIGKILL")


class TestDifferences:
    @pytest.mark.parametrize(
        "value",
        [
            torch.tensor([1.0, math.nan]),
            torch.tensor(3, dtype=torch.int64),
            torch.zeros(2, 0),
            torch.ones(2, 3, dtype=torch.bfloat16).T,
            {"a": [1, (2.0, None)], 3: "x"},
            math.nan,
        ],
        ids=repr,
    )
    def test_a_thing_is_the_same_as_its_copy(self, value: Any) -> None:
        copy = value.clone() if isinstance(value, torch.Tensor) else value
        assert differences({"it": value}, {"it": copy}) == []

    @pytest.mark.parametrize(
        ("one", "other", "line"),
        [
            (torch.zeros(3), torch.tensor([0.0, 1e-45, 0.0]), "w: 1 of 3 values"),
            (torch.zeros(2), -torch.zeros(2), "w: 2 of 2 values"),
            (torch.tensor(1.0), torch.tensor(2.0), "w: 1 of 1 values"),
            (torch.zeros(1), torch.zeros(1).double(), "w: torch.float32 [1] and torch.float64 [1]"),
            (torch.zeros(2, 1), torch.zeros(1, 2), "w: torch.float32 [2, 1] and torch.float32 [1"),
            ([1, 2], [1], "w: 2 and 1 entries"),
            ([1, 2], [1, 3], "w[1]: 2 and 3"),
            ({"a": {"b": 1}}, {"a": {}}, "w.a.b is in one of them alone"),
            ({}, {0: 1}, "w.0 is in one of them alone"),
            (1, 1.0, "w: 1 and 1.0"),
            (1, True, "w: 1 and True"),
            (math.nan, 0.0, "w: nan and 0.0"),
            (torch.zeros(1), 0.0, "w: tensor"),
        ],
    )
    def test_names_what_differs(self, one: Any, other: Any, line: str) -> None:
        for a, b in ((one, other), (other, one)):
            found = differences(a, b, "w")
            assert len(found) == 1
        assert differences(one, other, "w")[0].startswith(line)

    def test_the_clock_may_differ(self) -> None:
        one = {"callbacks": {"MetricsCsv": {"seconds": 1.0, "rows": 2}}, "run_id": "a"}
        other = {"callbacks": {"MetricsCsv": {"seconds": 2.0, "rows": 3}}, "run_id": "b"}
        assert differences(one, other) == ["callbacks.MetricsCsv.rows: 2 and 3"]

    def test_tensors_are_counted(self) -> None:
        assert count_tensors({"a": torch.zeros(2), "b": [torch.zeros(1), (1, torch.ones(1))]}) == 3


def write_run(path: Path, weight: float = 1.0, loss: str = "0.5", best: bool = True) -> RunFolder:
    """Write what is compared of a run folder."""
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True)
    content = {
        "state_dict": {"net.weight": torch.tensor([weight])},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.tensor([weight])}}}],
        "global_step": 7,
    }
    for file in [folder.last, folder.best][: 1 + best]:
        torch.save(content, file)
    folder.metrics.write_text(f"step,val/loss,seconds,images_per_second\n7,{loss},{weight},1\n")
    return folder


class TestCompareRuns:
    def test_same(self, tmp_path: Path) -> None:
        found = compare_runs(write_run(tmp_path / "a"), write_run(tmp_path / "b"))
        assert found == Comparison(tensors=4, rows=1, different=())

    def test_names_file_and_tensor(self, tmp_path: Path) -> None:
        found = compare_runs(write_run(tmp_path / "a"), write_run(tmp_path / "b", weight=2.0))
        weight = "state_dict.net.weight: 1 of 1 values"
        momentum = "optimizer_states[0].state.0.momentum_buffer: 1 of 1 values"
        assert found.different == tuple(
            f"{file}.{name}" for file in ("last", "best") for name in (weight, momentum)
        )

    def test_a_row_differs(self, tmp_path: Path) -> None:
        found = compare_runs(write_run(tmp_path / "a"), write_run(tmp_path / "b", loss="0.6"))
        assert found.different == ("metrics.csv[0].val/loss: '0.5' and '0.6'",)

    def test_a_best_that_only_one_has(self, tmp_path: Path) -> None:
        one, other = write_run(tmp_path / "a"), write_run(tmp_path / "b", best=False)
        assert compare_runs(one, other).different == ("best.ckpt is in one of them alone",)
        assert compare_runs(other, one).different == ("best.ckpt is in one of them alone",)

    def test_no_last(self, tmp_path: Path) -> None:
        other = write_run(tmp_path / "b")
        other.last.unlink()
        with pytest.raises(UserError, match="there is no such checkpoint"):
            compare_runs(write_run(tmp_path / "a"), other)


def test_saved_step(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    assert saved_step(folder) == 7
    folder.last.rename(folder.previous)
    assert saved_step(folder) == 7
    folder.previous.unlink()
    assert saved_step(folder) == 0


class TestTable:
    def test_equal(self) -> None:
        trials = [
            Trial(0, ("3", "14*"), Comparison(61, 4, ())),
            Trial(12, (), Comparison(6, 4, ())),
        ]
        assert table(trials, asked=2) == [
            "workers  kills   saved step at each kill  tensors  rows  result",
            "0        2 of 2  3, 14*                   61       4     equal",
            "12       0 of 2  -                        6        4     equal",
            "* a checkpoint was being written",
            "a kill that is missing came too late, when the run was over: train longer",
            "nothing is shown for a run that was never killed",
        ]

    def test_different(self) -> None:
        names = tuple(f"last.w{number}: 1 of 1 values" for number in range(23))
        lines = table([Trial(2, ("3",), Comparison(61, 4, names))], asked=1)
        assert lines[1].endswith("differs in 23")
        assert lines[2] == "2 workers: last.w0: 1 of 1 values"
        assert lines[-1] == "2 workers: and 3 more"
        assert len(lines) == 23


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text("trainer: {accelerator: cpu}\n", "utf-8")
    return path


@needs_kill
@pytest.mark.parametrize(
    ("places", "different", "code"), [(("3",), (), 0), (("3",), ("w: 1",), 1), ((), (), 1)]
)
def test_exit_code(
    places: tuple[str, ...],
    different: tuple[str, ...],
    code: int,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that was over before any kill has shown nothing."""
    trials = [Trial(0, ("1",), Comparison(1, 1, ())), Trial(2, places, Comparison(1, 1, different))]
    monkeypatch.setattr(verify_resume, "verify", lambda *_: trials)
    assert main(["--config", str(config)]) == code


@needs_kill
class TestWords:
    def test_the_rest_goes_to_fit(self, config: Path) -> None:
        line = f"--data.root D --config {config} --seed_everything=3 --workers 1,4 --seed 5"
        settings, out = read_words([*line.split(), "--trainer.max_epochs", "3"])
        start = ("--config", str(config), "--data.root", "D", "--seed_everything=3")
        words = tuple(word for word in settings.fit if "deterministic" not in word)
        assert (
            words[:7] == (*start, "--trainer.max_epochs", "3") or torch.accelerator.is_available()
        )
        assert settings.fit[-4:] == ("--trainer.logger", "false", "--progress", "off")
        assert (settings.workers, settings.kills, settings.seed, out) == ((1, 4), 5, 5, None)

    def test_several_processes(self, config: Path) -> None:
        words = read_words(["--config", str(config), "--processes", "2"])[0].fit
        assert "--trainer.strategy ddp --trainer.devices 2" in " ".join(words)
        assert "--trainer.accelerator cpu" in " ".join(words)

    @pytest.mark.parametrize(("gpu", "more"), [(True, ""), (False, ""), (True, "cpu")])
    def test_deterministic_on_a_gpu_alone(
        self, gpu: bool, more: str, config: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
        given = [f"--trainer.accelerator={more}"] if more else []
        words = read_words(["--config", str(config), *given])[0].fit
        assert ("--trainer.deterministic" in words) == (gpu and not more)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--config nope.yaml", r"--config nope.yaml: there is no such file"),
            ("--config CONFIG --kills 0", r"--kills is 0; allowed is 1 or more"),
            ("--config CONFIG --processes -1", r"--processes is -1; allowed is 1 or more"),
            ("--config CONFIG --workers 1,x", r"'1,x' is no list of numbers from 0, such as 0,2"),
            ("--config CONFIG --run_dir=R", r"--run_dir can't be given here: --out DIR keeps"),
            ("--config CONFIG --ckpt_path last", r"--ckpt_path can't be given here"),
            ("--config CONFIG --data.num_workers 2", r"num_workers can't be given here: --workers"),
            ("--config CONFIG --trainer.fast_dev_run true", r"keeps nothing that could be"),
            ("--config CONFIG --processes 2 --trainer.devices 2", r"--processes sets it"),
            ("--config CONFIG --out .", r"--out . is not free"),
            ("--kills 2", r"required: --config"),
        ],
    )
    def test_mistakes(
        self,
        words: str,
        message: str,
        config: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(config.parent)
        assert main(words.replace("CONFIG", str(config)).split()) == 2
        assert re.search(message, capsys.readouterr().err)

    def test_the_docs_name_options_that_exist(self, config: Path) -> None:
        page = (ROOT / "docs/reproducibility.md").read_text("utf-8")
        lines = re.findall(r"^\$ python -m src\.verify_resume (.*)$", page, re.MULTILINE)
        assert lines
        for line in lines:
            known, rest = verify_resume.parser().parse_known_args(shlex.split(line))
            assert all((ROOT / name).is_file() for name in known.config)
            assert all(word.startswith(("--data.", "--trainer.")) for word in rest[::2])


class TestSittingThatFails:
    def ended(self, tmp_path: Path, code: int, text: str) -> Sitting:
        sitting = Sitting.__new__(Sitting)
        sitting.log = tmp_path / "log"
        sitting.log.write_text(text)
        sitting._process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
        sitting._process.wait()
        return sitting

    def test_shows_the_end_of_its_log(self, tmp_path: Path) -> None:
        text = "".join(f"line {number}.\n" for number in range(40))
        with pytest.raises(RunFailureError, match=r"exit code 1; .*\n  line 25\.\n") as raised:
            self.ended(tmp_path, 1, text).require_well()
        assert "line 24." not in str(raised.value)

    def test_a_mistake_of_the_user(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"exit code 2; .*\n  error: no such root"):
            self.ended(tmp_path, 2, "error: no such root\n").require_well()

    def test_names_the_operation_that_can_not_repeat(self, tmp_path: Path) -> None:
        text = "RuntimeError: avg_cuda does not have a deterministic implementation, but you set\n"
        with pytest.raises(RunFailureError, match=r"^avg_cuda has no deterministic"):
            self.ended(tmp_path, 1, text).require_well()

    def test_nothing_is_wrong_with_a_good_one(self, tmp_path: Path) -> None:
        self.ended(tmp_path, 0, "").require_well()


# A network whose noise comes from Python's own generator, which no checkpoint holds.
NOISY = """
import random

from torch import nn


class Noisy(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(32 * 32 * 3, num_classes)

    def forward(self, image):
        return self.last(image.flatten(1).float() / 255 * random.random())
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), {"train": 20, "test": 7})


class AtTheSixthStep(Sitting):
    """Its moment is certain: the end of a sitting is waited for until six steps are saved."""

    def ends_within(self, seconds: float | None) -> bool:
        over = super().ends_within(None if seconds is None else 0.001)
        while not over and seconds is not None and saved_step(self.folder) < 6:
            over = super().ends_within(0.001)
        return over


@needs_kill
@pytest.mark.cli
class TestCommand:
    @pytest.fixture(autouse=True)
    def one_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")

    @pytest.mark.slow
    def test_a_good_run(self, config: Path, pictures: Path, tmp_path: Path) -> None:
        words = ["--config", str(config), f"--data.root={pictures}", *TINY, "--workers=1"]
        words += ["--trainer.max_epochs=20", "--kills=1", f"--out={tmp_path / 'out'}"]
        program = [sys.executable, "-m", "src.verify_resume", *words]
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"^1 +1 of 1  \d+\*? .* 20 +equal$", done.stdout, re.MULTILINE)
        there = {path.name for path in (tmp_path / "out").iterdir()}
        assert {"whole", "workers-1", "whole.log", "workers-1-sitting-2.log"} <= there

    @pytest.mark.slow
    def test_a_network_with_a_memory_is_found(
        self,
        config: Path,
        pictures: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "noisy_net.py").write_text(NOISY, "utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(verify_resume, "Sitting", AtTheSixthStep)
        tiny = [word for word in TINY if not word.startswith("--model.net")]
        words = ["--config", str(config), f"--data.root={pictures}", *tiny, "--workers=0"]
        words += ["--model.net=noisy_net.Noisy", "--trainer.max_epochs=20", "--kills=1"]
        assert main([*words, "--checkpoint_every_steps=1"]) == 1
        out = capsys.readouterr().out
        assert re.search(r"^0 +1 of 1 .* differs in \d+$", out, re.MULTILINE)
        assert re.search(r"^0 workers: last\.state_dict\.net\.\S*weight: \d+ of", out, re.MULTILINE)
        assert "0 workers: metrics.csv[" in out or "more" in out

    def test_a_fit_that_fails_by_itself(
        self, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--config", str(config), "--data.root", "nowhere"]) == 2
        err = capsys.readouterr().err
        assert "exit code 2; it said last:" in err
        assert "nowhere" in err
