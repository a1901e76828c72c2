"""Signals: noted at once, followed at a safe point, and the second one at once."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from src.errors import StoppedRun
from src.loop import signals as signals_module
from src.loop.signals import Signals
from tests.helpers import ROOT
from tests.loop.helpers import StubTrainer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="not on this system: signals")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Give the handlers of this process back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def installed(**options: Any) -> tuple[Signals, Any]:
    signals, trainer = Signals(), StubTrainer(**options)
    signals.on_train_start(trainer, None)  # type: ignore[arg-type]
    return signals, trainer


class TestTheFirst:
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
    def test_is_noted_and_told(self, name: str, capfd: pytest.CaptureFixture[str]) -> None:
        signals, trainer = installed()
        assert not signals.asked(trainer)
        os.kill(os.getpid(), getattr(signal, name))
        assert (signals.received, signals.asked(trainer)) == (name, True)
        assert capfd.readouterr().err == (
            f"\n{name}: finishing this batch and saving; a second signal ends at once\n"
        )

    def test_one_process_speaks(self, capfd: pytest.CaptureFixture[str]) -> None:
        signals, _ = installed(is_global_zero=False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == "SIGTERM"
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("stage", ["sanity_check", "train", "validation", "test", "predict"])
    def test_is_noted_in_every_stage(self, stage: str) -> None:
        signals = Signals()
        getattr(signals, f"on_{stage}_start")(StubTrainer(), None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == "SIGTERM"

    def test_outside_the_main_thread_there_are_no_handlers(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=installed)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is before

    def test_of_another_process_counts(self) -> None:
        signals, trainer = installed()
        trainer.strategy.reduce_boolean_decision = lambda decision, all: not all
        assert signals.asked(trainer)
        with pytest.raises(StoppedRun) as raised:
            signals.leave(trainer, None)
        assert raised.value.code == 143


class TestTheSecond:
    SCRIPT = """
import atexit, os, signal, sys, time
from src.loop.signals import Signals
from tests.loop.helpers import StubTrainer
atexit.register(print, "tidied up")
Signals().on_train_start(StubTrainer(), None)
for _ in range(2):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    print("still here", flush=True)
"""

    @pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
    def test_ends_the_process_at_once(self, name: str, code: int) -> None:
        done = subprocess.run(
            [sys.executable, "-c", self.SCRIPT, name],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert done.stdout == "still here\n"

    def test_ends_the_processes_that_lightning_started(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended: list[tuple[str, int]] = []
        monkeypatch.setattr(os, "_exit", lambda code: ended.append(("self", code)))
        _, trainer = installed()
        launcher = SimpleNamespace(kill=lambda number: ended.append(("others", int(number))))
        trainer.strategy.launcher = launcher
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [("others", signal.SIGKILL), ("self", 143)]


class TestLeaving:
    def left(self, name: str | None, saved: Path | None = None, **options: Any) -> StoppedRun:
        signals, trainer = Signals(), StubTrainer(step=17, **options)
        signals.received = name
        with pytest.raises(StoppedRun) as raised:
            signals.leave(trainer, saved)  # type: ignore[arg-type]
        return raised.value

    @pytest.mark.parametrize(
        ("name", "code", "shown"),
        [("SIGTERM", 143, "SIGTERM"), ("SIGINT", 130, "Ctrl-C"), ("SIGUSR1", 143, "SIGUSR1")],
    )
    def test_code_and_message(self, name: str, code: int, shown: str) -> None:
        found = self.left(name, Path("runs/a/checkpoints/last.ckpt"))
        assert found.code == code
        assert found.message == (
            f"stopped by {shown} after step 17. Go on: python -m src.train fit --run_dir runs/a "
            "--ckpt_path last"
        )
        assert self.left(name).message == f"stopped by {shown} after step 17. Nothing was saved."

    def test_scoring_has_no_steps(self) -> None:
        found = self.left("SIGTERM", state=SimpleNamespace(fn="test"))
        assert (found.code, found.message) == (143, "stopped by SIGTERM")

    def test_other_processes_say_nothing(self) -> None:
        assert self.left("SIGINT", is_global_zero=False).message == ""

    @pytest.mark.parametrize(
        ("hook", "fn", "saves", "leaves"),
        [
            ("train", "fit", False, True),
            ("train", "fit", True, False),  # Checkpoints saves first and leaves then
            ("validation", "fit", False, True),
            ("validation", "fit", True, False),
            ("validation", "validate", True, True),
            ("test", "test", True, True),
            ("predict", "predict", True, True),
        ],
    )
    def test_where(self, hook: str, fn: str, saves: bool, leaves: bool) -> None:
        signals = Signals(leaves=not saves)
        trainer: Any = StubTrainer(state=SimpleNamespace(fn=fn))
        end: Any = getattr(signals, f"on_{hook}_batch_end")
        end(trainer, None, None, None, 0)  # nobody asked
        signals.received = "SIGTERM"
        if leaves:
            with pytest.raises(StoppedRun):
                end(trainer, None, None, None, 0)
        else:
            end(trainer, None, None, None, 0)

    def test_in_the_sanity_check(self) -> None:
        signals = Signals(leaves=False)
        signals.received = "SIGTERM"
        trainer: Any = StubTrainer(sanity_checking=True)
        with pytest.raises(StoppedRun):
            signals.on_validation_batch_end(trainer)


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

    def leave(self, name: str = "SIGUSR1", **options: Any) -> None:
        signals, trainer = Signals(), StubTrainer(**options)
        signals.received = name
        with pytest.raises(StoppedRun):
            signals.leave(trainer, None)  # type: ignore[arg-type]

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
        [("SIGTERM", True, "17"), ("SIGINT", True, "17"), ("SIGUSR1", False, "17"),
         ("SIGUSR1", True, "")],
    )  # fmt: skip
    def test_is_for_one_signal_one_process_and_slurm(
        self, asked: Path, monkeypatch: pytest.MonkeyPatch, name: str, leader: bool, job: str
    ) -> None:
        if job:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        self.leave(name, is_global_zero=leader)
        assert not asked.exists()

    def test_that_fails_is_told(
        self, asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "666")
        self.leave()
        assert capsys.readouterr().err == "WARNING: scontrol requeue 666 ended with code 1\n"

    def test_without_the_program_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.setenv("PATH", str(tmp_path))
        self.leave()
        assert capsys.readouterr().err.startswith("WARNING: job 17 was not queued again: ")


def test_a_system_without_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows knows no SIGUSR1."""
    monkeypatch.delattr(signal, "SIGUSR1")
    assert signals_module._numbers() == [signal.SIGTERM, signal.SIGINT]
