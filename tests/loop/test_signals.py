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
import torch
from lightning.pytorch import Trainer

from src.errors import STOP_SIGNALS, StoppedRun, stop_signals
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
    signals.setup(trainer, None, "fit")  # type: ignore[arg-type]
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

    def test_the_handlers_before_come_back(self) -> None:
        before = [signal.getsignal(n) for n in stop_signals()]
        signals, trainer = installed()
        signals.setup(trainer, None, "fit")  # type: ignore[arg-type]
        assert [signal.getsignal(n) for n in stop_signals()] != before
        signals.teardown(trainer, None, "fit")  # type: ignore[arg-type]
        assert [signal.getsignal(n) for n in stop_signals()] == before

    def test_lightning_sets_none_of_its_own(self) -> None:
        trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1)
        signals = Signals()
        signals.setup(trainer, None, "fit")  # type: ignore[arg-type]
        trainer._signal_connector.register_signal_handlers()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (signals.received, trainer.received_sigterm) == ("SIGTERM", False)

    def test_outside_the_main_thread_there_are_no_handlers(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=installed)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize(
        ("names", "agreed"),
        [
            ((None, "SIGTERM"), "SIGTERM"),
            (("SIGTERM", "SIGUSR1"), "SIGUSR1"),
            (("SIGUSR1", "SIGINT"), "SIGINT"),
        ],
    )
    def test_all_processes_agree_on_one(self, names: tuple[str | None, ...], agreed: str) -> None:
        """What each of them asks the others is answered by what any of them has received."""
        left = [self.left_among(names, rank) for rank in range(len(names))]
        assert [end.name for end in left] == [agreed] * len(names)
        assert len({end.code for end in left}) == 1

    def left_among(self, names: tuple[str | None, ...], rank: int) -> StoppedRun:
        signals, trainer = installed()
        signals.received = names[rank]
        signal_names = iter((None, *STOP_SIGNALS))  # asked in this order

        def answer(decision: bool, all: bool) -> bool:
            asked_for = next(signal_names)
            return any(name == asked_for if asked_for else name is not None for name in names)

        trainer.strategy.reduce_boolean_decision = answer
        assert signals.asked(trainer)
        with pytest.raises(StoppedRun) as raised:
            signals.leave(trainer, None)
        return raised.value


class TestTheSecond:
    SCRIPT = """
import atexit, os, signal, sys, time
from src.loop.signals import Signals
from tests.loop.helpers import StubTrainer
atexit.register(print, "tidied up")
Signals().setup(StubTrainer(), None, "fit")
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
        assert found.together
        assert found.message == (
            f"stopped by {shown} after step 17. Go on: python -m src.train fit --run_dir runs/a "
            "--ckpt_path last"
        )
        assert self.left(name).message == f"stopped by {shown} after step 17. Nothing was saved."

    def test_scoring_has_no_steps(self) -> None:
        found = self.left("SIGTERM", state=SimpleNamespace(fn="test"))
        assert (found.code, found.message) == (143, "stopped by SIGTERM")

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

    @pytest.mark.parametrize(
        ("device", "processes", "asks"), [("cuda", 2, 2), ("cpu", 2, 32), ("cuda", 1, 32)]
    )
    def test_a_gpu_is_seldom_waited_for(self, device: str, processes: int, asks: int) -> None:
        """Of 32 batches; what several processes agree on has to come back from their GPUs."""
        trainer: Any = StubTrainer(world_size=processes)
        trainer.strategy.root_device = torch.device(device)
        asked: list[bool] = []
        trainer.strategy.reduce_boolean_decision = lambda mine, all: bool(asked.append(mine))
        signals = Signals()
        for number in range(32):
            signals.on_train_batch_end(trainer, None, None, None, number)
        assert len(asked) == asks

    def test_in_the_sanity_check(self) -> None:
        signals = Signals(leaves=False)
        signals.received = "SIGTERM"
        trainer: Any = StubTrainer(sanity_checking=True)
        with pytest.raises(StoppedRun):
            signals.on_validation_batch_end(trainer)


class TestWhileAllLeave:
    def test_the_launchers_signal_is_passed_over(self) -> None:
        """torchrun sends it to the others as soon as the first process has ended."""
        signals, trainer = installed()
        signals.received = "SIGUSR1"
        with pytest.raises(StoppedRun):
            signals.leave(trainer, None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


class TestAnError:
    @pytest.mark.parametrize(
        ("error", "ends"),
        [
            (ValueError("x"), True),
            (StoppedRun("SIGTERM"), True),  # before the processes listened to one another
            (StoppedRun("SIGTERM", together=True), False),
        ],
    )
    def test_ends_the_others_unless_all_leave(self, error: BaseException, ends: bool) -> None:
        ended: list[int] = []
        trainer: Any = StubTrainer()
        trainer.strategy.launcher = SimpleNamespace(kill=ended.append)
        Signals().on_exception(trainer, None, error)  # type: ignore[arg-type]
        assert bool(ended) == ends


def test_a_system_without_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows knows no SIGUSR1."""
    monkeypatch.delattr(signal, "SIGUSR1")
    assert stop_signals() == [signal.SIGINT, signal.SIGTERM]
