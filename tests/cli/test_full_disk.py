"""A disk that is full for a while, or for good: the system refuses to let a file grow.

RLIMIT_FSIZE makes the kernel fail the very writes that a full disk fails, at a size chosen here.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

import src.cli
from tests.cli.conftest import Cli, Ended, tree
from tests.cli.test_fit import RECIPE, rows
from tests.cli.test_resume import assert_same

resource = pytest.importorskip("resource", reason="not on this system: resource limits")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="not on this system: RLIMIT_FSIZE")

WORDS = [*RECIPE, "--trainer.max_epochs=3", "--checkpoint_every_steps=2"]


class Disk(Callback):
    """Full from one step to another."""

    def __init__(self, full_from: int, free_from: int, room: int) -> None:
        self.full_from, self.free_from, self.room = full_from, free_from, room

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        full = self.full_from <= trainer.global_step < self.free_from
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        limit = self.room if full else hard
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


@pytest.fixture
def with_disk(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    inner = src.cli.loop_callbacks

    def run(disk: Disk, *words: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.setattr(src.cli, "loop_callbacks", lambda *a: [*inner(*a), disk])
            try:
                return cli(*words)
            finally:
                hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    return run


@pytest.fixture
def words(pictures: Path) -> list[str]:
    return ["fit", f"--data.root={pictures}", *WORDS]


@pytest.mark.parametrize("room", [3000, 10], ids=["no checkpoint fits", "nothing fits"])
def test_a_disk_that_is_full_for_a_while_costs_nothing(
    room: int, cli: Cli, with_disk: Callable[..., Ended], words: list[str]
) -> None:
    assert cli(*words, "--run_dir=whole").code == 0
    ended = with_disk(Disk(3, 12, room), *words, "--run_dir=run")
    assert ended.code == 0, ended.err
    # steps 4, 6, 8, 10 by number, 5 and 10 at ends of epochs, and a best one or two between
    told = [line for line in ended.err.splitlines() if "last.ckpt could not be written" in line]
    assert len(told) >= 5
    assert all("File too large" in line and "training goes on" in line for line in told)
    assert ("metrics.csv could not be written" in ended.err) == (room == 10)
    assert rows(Path("whole")) == rows(Path("run"))
    a, b = (torch.load(f"{r}/checkpoints/last.ckpt", weights_only=True) for r in ("whole", "run"))
    assert all(torch.equal(t, b["state_dict"][name]) for name, t in a["state_dict"].items())
    assert not [name for name in tree(Path("run")) if name.endswith(".tmp")]


def test_a_disk_that_stays_full_ends_in_an_error_and_nothing_is_harmed(
    cli: Cli, with_disk: Callable[..., Ended], words: list[str]
) -> None:
    assert cli(*words, "--run_dir=whole").code == 0
    ended = with_disk(Disk(7, 10**9, 3000), *words, "--run_dir=run")
    assert ended.code == 1
    assert "the training is over, and run/checkpoints/last.ckpt could not be written" in ended.err
    assert "Traceback" not in ended.err
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert content["global_step"] == 7  # 2, 4, the end of the epoch at 5, 7: then it was full
    assert cli(*words, "--run_dir=run", "--ckpt_path=auto").code == 0
    assert_same(Path("whole"), Path("run"))
