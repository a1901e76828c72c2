"""A signal that asks the program to end: the batch is finished, the run is saved, the rest is told.

Most of them are sent by the program to itself, at a moment that the test chooses; the signal and
its handler are real. Those that end the process or meet its workers go to a program of their own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import Dataset

import src.cli
import src.data.loader
import src.loop
from src.data.loader import make_loader
from src.data.sampler import TrainBatches
from src.data.workers import start_worker
from src.errors import STOP_SIGNALS
from tests.cli.conftest import TINY, Cli, Ended
from tests.cli.test_fit import RECIPE, rows
from tests.cli.test_resume import assert_same
from tests.helpers import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not on this system: kill")
WORDS = [*RECIPE, "--trainer.max_epochs=2"]
Send = Callable[..., Ended]


class SendAt(Callback):
    """Sends signals to its own process at the n-th call of a hook."""

    def __init__(self, hook: str, number: int, signals: tuple[int, ...]) -> None:
        self.left, self.signals = number, signals
        setattr(self, hook, self.moment)

    def moment(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            for number in self.signals:
                os.kill(os.getpid(), number)


@pytest.fixture
def send(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Run a fit that gets a signal in a hook."""
    inner = src.cli.loop_callbacks

    def run(words: list[str], hook: str, number: int, *signals: int) -> Ended:
        with monkeypatch.context() as patch:
            extra = SendAt(hook, number, signals)
            patch.setattr(src.cli, "loop_callbacks", lambda *a: [*inner(*a), extra])
            return cli(*words)

    return run


def last(folder: str) -> dict[str, Any]:
    return torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("hook", "number", "step"),
    [
        ("on_train_batch_start", 3, 3),  # the batch is finished
        ("on_before_optimizer_step", 7, 7),
        ("on_train_batch_end", 5, 5),  # the last of the epoch: its validation is still to come
        ("on_validation_start", 2, 5),  # the first is the look before the training
        ("on_validation_batch_start", 2, 5),
        ("on_validation_end", 2, 5),
        ("on_train_epoch_end", 1, 5),
    ],
)
def test_the_run_is_saved_and_goes_on_to_the_same_end(
    hook: str, number: int, step: int, cli: Cli, send: Send, pictures: Path
) -> None:
    words = ["fit", f"--data.root={pictures}", *WORDS]
    assert cli(*words, "--run_dir=whole").code == 0
    ended = send([*words, "--run_dir=parts"], hook, number, signal.SIGTERM)
    assert ended.code == 143
    assert f"stopped by SIGTERM after step {step}" in ended.err
    assert "fit --run_dir parts --ckpt_path last" in ended.err
    assert "Traceback" not in ended.err
    assert last("parts")["global_step"] == step
    assert not Path("parts/summary.json").exists()
    assert cli("fit", "--run_dir=parts", "--ckpt_path=last").code == 0
    assert_same(Path("whole"), Path("parts"))


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGUSR1, 143, "SIGUSR1")],
)
def test_each_has_its_code(number: int, code: int, name: str, send: Send, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *WORDS, "--run_dir=run"]
    ended = send(words, "on_train_batch_start", 2, number)
    assert ended.code == code
    assert f"stopped by {name} after step 2" in ended.err


def test_under_slurm_the_job_is_queued_again(
    send: Send, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our own last.ckpt; Lightning's hpc_ckpt files, which load themselves, are not written."""
    asked = tmp_path / "asked"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> "{asked}"\n')
    scontrol.chmod(0o755)
    slurm = {"JOB_ID": "77", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_NODEID", "0")
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    words = ["fit", f"--data.root={pictures}", *WORDS, "--run_dir=run"]
    ended = send(words, "on_train_batch_start", 2, signal.SIGUSR1)
    assert ended.code == 143, ended.err
    assert asked.read_text() == "requeue 77\n"
    assert last("run")["global_step"] == 2
    assert not list(tmp_path.rglob("hpc_ckpt*"))


def test_inside_an_accumulation_the_step_is_finished(cli: Cli, send: Send, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *WORDS, "--trainer.accumulate_grad_batches=3"]
    assert cli(*words, "--run_dir=whole").code == 0
    ended = send([*words, "--run_dir=parts"], "on_train_batch_start", 1, signal.SIGTERM)
    assert ended.code == 143
    assert last("parts")["global_step"] == 1  # three batches
    assert cli("fit", "--run_dir=parts", "--ckpt_path=last").code == 0
    assert_same(Path("whole"), Path("parts"))


def test_before_the_first_step_nothing_is_kept(send: Send, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *WORDS, "--run_dir=run"]
    ended = send(words, "on_validation_batch_start", 1, signal.SIGTERM)  # the look before
    assert ended.code == 143
    assert "Nothing was saved" in ended.err
    assert not Path("run").exists()


def test_a_dev_run_is_left_too(send: Send, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *WORDS, "--trainer.fast_dev_run=3"]
    ended = send(words, "on_train_batch_start", 1, signal.SIGINT)
    assert ended.code == 130
    assert not Path("runs").exists()


def test_handlers_are_those_of_before_at_the_end(send: Send, cli: Cli, pictures: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    words = ["fit", f"--data.root={pictures}", *WORDS]
    assert cli(*words, "--run_dir=run").code == 0
    assert send([*words, "--run_dir=cut"], "on_train_batch_start", 2, signal.SIGTERM).code == 143
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("command", ["test", "predict", "validate"])
def test_scoring_ends_after_the_batch(
    command: str, cli: Cli, trained: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = SendAt(f"on_{command}_batch_start".replace("validate", "validation"), 1,
                   (signal.SIGTERM,))  # fmt: skip
    monkeypatch.setattr(
        src.cli, "scoring_callbacks", lambda: [*src.loop.scoring_callbacks(), extra]
    )
    words = [command, f"--run_dir={trained}", "--data.eval_batch_size=4"]
    if command == "predict":
        words.append(f"--data.root={pictures}")
    ended = cli(*words)
    assert ended.code == 143
    assert "stopped by SIGTERM" in ended.err


def start(words: list[str], code: str | None = None) -> subprocess.Popen[str]:
    program = ["-c", code] if code else ["-m", "src.train"]
    return subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


SLOW_STEP = """
import sys, time
import src.loop.step_seed as module
inner = module.StepSeed.on_train_batch_start
def slow(*args):
    print("a step", flush=True)
    time.sleep({seconds})
    inner(*args)
module.StepSeed.on_train_batch_start = slow
from src.train import main
sys.exit(main(sys.argv[1:]))
"""


def test_workers_outlive_a_signal_to_the_whole_group(
    cli: Cli, pictures: Path, tmp_path: Path
) -> None:
    """As SLURM, torchrun and a terminal send it; a dead worker would end the run with an error."""
    words = ["fit", f"--data.root={pictures}", *WORDS, "--data.num_workers=2"]
    assert cli(*words, "--run_dir=whole").code == 0
    run = tmp_path / "parts"
    with start([*words, f"--run_dir={run}"], SLOW_STEP.format(seconds=0.4)) as program:
        assert program.stdout is not None
        assert any(line == "a step\n" for line in program.stdout)
        os.killpg(program.pid, signal.SIGTERM)
        _, err = program.communicate(timeout=120)
    assert program.returncode == 143, err
    assert "stopped by SIGTERM after step" in err
    assert "DataLoader worker" not in err
    assert cli("fit", f"--run_dir={run}", "--ckpt_path=last").code == 0
    assert_same(Path("whole"), run)


class Numbers(Dataset[Any]):
    """Item n is n."""

    def __getitems__(self, keys: list[Any]) -> list[int]:
        return [index for _, index, _ in keys]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are ended by SIGTERM")
@pytest.mark.parametrize("name", STOP_SIGNALS)
def test_a_signal_at_the_birth_of_a_worker_leaves_it_alive(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has come to what makes it deaf; a worker that dies there ends the run."""

    def hit_first(worker_id: int) -> None:
        os.kill(os.getpid(), getattr(signal, name))
        start_worker(worker_id)

    monkeypatch.setattr(src.data.loader, "start_worker", hit_first)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    batches = TrainBatches(num_samples=6, batch_size=2, seed=0, rank=0, world_size=1)
    loader = make_loader(Numbers(), batches, workers=2, device=torch.device("cpu"))
    assert sorted(index for batch in loader for index in batch) == [*range(6)]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == held


def test_a_second_signal_ends_at_once(pictures: Path, tmp_path: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *WORDS, f"--run_dir={tmp_path / 'run'}"]
    with start(words, SLOW_STEP.format(seconds=600)) as program:
        assert program.stdout is not None and program.stderr is not None
        assert any(line == "a step\n" for line in program.stdout)
        program.send_signal(signal.SIGTERM)
        assert any("a second signal ends at once" in line for line in program.stderr)
        began = time.monotonic()
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=60) == 143
    assert time.monotonic() - began < 60
    assert not (tmp_path / "run/checkpoints/last.ckpt").exists()


def test_a_killed_run_has_the_rows_of_its_checkpoint(send: Send, cli: Cli, pictures: Path) -> None:
    """A row that was written after the checkpoint is written once in the end."""
    words = ["fit", f"--data.root={pictures}", *TINY, "--trainer.max_epochs=2", "--run_dir=run"]
    assert send(words, "on_train_batch_start", 7, signal.SIGTERM).code == 143
    assert [row["step"] for row in rows(Path("run"))] == ["5"]
    assert cli("fit", "--run_dir=run", "--ckpt_path=last").code == 0
    assert [row["step"] for row in rows(Path("run"))] == ["5", "10"]


@pytest.mark.parametrize(
    ("number", "code", "shown"),
    [(signal.SIGUSR1, 143, "SIGUSR1"), (signal.SIGINT, 130, "Ctrl-C")],
)
def test_before_the_training_it_ends_tidily(
    number: int, code: int, shown: str, tmp_path: Path, pictures: Path
) -> None:
    """The program imports for seconds; the signal comes when it is about to look at its options."""
    wait = "import os, sys; from src import run_rules; from src.train import main\n"
    wait += f"run_rules.with_stored_config = lambda *_: os.kill(os.getpid(), {int(number)})\n"
    wait += "sys.exit(main(sys.argv[1:]))"
    words = ["fit", f"--data.root={pictures}", *WORDS, f"--run_dir={tmp_path / 'run'}"]
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", wait, *words], cwd=ROOT, capture_output=True, text=True,
        check=False, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == f"stopped by {shown}"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("tmp")]
