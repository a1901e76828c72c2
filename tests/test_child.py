"""A command in a process of its own: signals, exit codes, the lock that outlives its owner."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src import child
from src.child import Ended, require_well, run_child, sole_use
from src.errors import RunFailureError, UserError

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="not on this system: kill")

# Sends its parent a signal, and ends with 100 and the number of those that come back.
ECHO = """
import os, signal, sys, time
got = []
signal.signal(signal.{name}, lambda number, frame: got.append(number))
os.kill(os.getppid(), signal.{name})
for _ in range(2000):
    if got:
        break
    time.sleep(0.01)
time.sleep(0.1)
sys.exit(100 + len(got))
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def become(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a script be the program."""
    monkeypatch.setattr(child, "command_line", lambda words: [sys.executable, "-c", script, *words])


class TestRunChild:
    def test_words_output_and_code(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        become("import sys; print(sys.argv[1:], flush=True); sys.exit(3)", monkeypatch)
        assert run_child(["fit", "--x", "a b"], log) == Ended(3, None)
        assert run_child(["test"], log) == Ended(3, None)
        lines = log.read_text().splitlines()
        assert lines == [
            '$ python -m src.train fit --x "a b"',
            "['fit', '--x', 'a b']",
            "$ python -m src.train test",
            "['test']",
        ]

    def test_it_finds_the_src_of_this_process(
        self, log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        become("import src; print(src.__file__)", monkeypatch)
        assert run_child([], log).code == 0
        assert log.read_text().splitlines()[1] == child.src.__file__

    @needs_signals
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
    def test_a_signal_goes_on_once(
        self, name: str, log: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = signal.getsignal(getattr(signal, name))
        become(ECHO.format(name=name), monkeypatch)
        assert run_child([], log) == Ended(101, name)
        assert signal.getsignal(getattr(signal, name)) == before

    @needs_signals
    def test_a_signal_that_came_too_early_goes_on_too(
        self, log: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = subprocess.Popen

        def slow_start(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            return start(*args, **kwargs)

        monkeypatch.setattr(subprocess, "Popen", slow_start)
        become("import time; time.sleep(60)", monkeypatch)
        assert run_child([], log) == Ended(128 + signal.SIGTERM, "SIGTERM")

    @needs_signals
    def test_one_that_is_killed(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        become("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", monkeypatch)
        assert run_child([], log) == Ended(137, None)

    @needs_signals
    def test_what_a_killed_one_leaves_behind_is_killed(
        self, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its worker holds a pipe, which is at its end when the worker is gone."""
        ours, theirs = os.pipe()
        script = (
            "import os, signal, subprocess, sys\n"
            f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
            f"pass_fds=[{theirs}])\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        become(script, monkeypatch)
        assert run_child([], log, keep=[theirs]).code == 137
        os.close(theirs)
        ready, _, _ = select.select([ours], [], [], 30)
        assert ready and os.read(ours, 1) == b""
        os.close(ours)


class TestRequireWell:
    def test_shows_the_end_of_the_log(self, log: Path) -> None:
        log.write_text("".join(f"line {number}.\n" for number in range(40)))
        with pytest.raises(RunFailureError, match=r"^fit ended by .* code 1; .*\n  line 25\.\n"):
            require_well(1, log, "fit")

    def test_shows_nothing_of_the_command_before(self, log: Path) -> None:
        log.write_text("$ python -m src.train fit\ntrained\n$ python -m src.train test\nno\n")
        with pytest.raises(RunFailureError, match=r"it said last:\n  no$"):
            require_well(1, log, "test")

    def test_a_mistake_of_the_user(self, log: Path) -> None:
        log.write_text("error: no such root\n")
        with pytest.raises(UserError, match=r"^seed 3: test ended .* code 2; .*\n  error: no such"):
            require_well(2, log, "seed 3: test")

    def test_a_good_one(self, log: Path) -> None:
        require_well(0, log, "fit")


class TestSoleUse:
    def test_one_at_a_time(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        with sole_use(lock) as held:
            assert isinstance(held, tuple)
            with pytest.raises(UserError, match="another process is at work there"), sole_use(lock):
                raise AssertionError
        with sole_use(lock):
            pass

    @needs_signals
    def test_lasts_as_long_as_a_child(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        with sole_use(lock) as held:
            words = [sys.executable, "-c", "input()"]
            orphan = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=held)
        with pytest.raises(UserError, match="at work"), sole_use(lock):
            raise AssertionError
        orphan.communicate(b"\n")
        with sole_use(lock):
            pass
