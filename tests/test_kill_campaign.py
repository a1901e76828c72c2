"""The real program, killed by SIGKILL with all its processes, ends as the run that nobody killed.

Random kills come from outside; aimed ones from inside: this file, started as a program, changes
one function of the child so that it kills its own process group at a chosen moment. A few stand in
the ordinary tests, 40 more in `make campaign`. Breaks without a real kill are in
tests/cli/test_resume.py, which is quick and has many more cases.
"""

import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from src.run import RunFolder
from src.sameness import compare_runs
from src.sitting import Sitting
from src.train import main
from tests.cli.conftest import make_pictures, tree
from tests.cli.test_fit import RECIPE
from tests.helpers import ROOT

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="not on this system: SIGKILL"),
]

Moment = tuple[str, int]  # a name of AIMS, at its n-th call in a sitting; or RANDOM, in ms at most
RANDOM = "at random"


def die() -> NoReturn:
    """Kill this process, its workers and its ranks."""
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


def before(owner: Any, name: str, number: int, counts: Callable[..., bool] | None = None) -> None:
    """Die before the n-th call of a function, of those calls that count."""
    real, calls = getattr(owner, name), count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        if (counts is None or counts(*args)) and next(calls) == number:
            die()
        return real(*args, **kwargs)

    setattr(owner, name, call)


def after(owner: Any, name: str, number: int, counts: Callable[..., bool] | None = None) -> None:
    """Die after the n-th call of a function, of those calls that count."""
    real, calls = getattr(owner, name), count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        if (counts is None or counts(*args)) and next(calls) == number:
            die()
        return result

    setattr(owner, name, call)


def aim(what: str, number: int) -> None:
    """Change a function of this process so that it dies at a moment."""
    from lightning.pytorch import LightningModule

    from src.classifier import Classifier
    from src.loop import Checkpoints

    def to(name: str) -> tuple[Any, str, int, Callable[..., bool]]:
        return Path, "replace", number, lambda _, target: Path(target).name == name

    def second(_: Any, batch: Any, batch_idx: int) -> bool:
        return batch_idx % 2 == 1

    def in_fit(module: Any, *_: Any) -> bool:
        return not module.trainer.sanity_checking

    {
        "in a step": lambda: before(Classifier, "training_step", number),
        "between gradients and step": lambda: before(
            LightningModule, "on_before_optimizer_step", number
        ),
        "in an accumulation": lambda: before(Classifier, "training_step", number, second),
        "after a step": lambda: before(Checkpoints, "on_train_batch_end", number),
        "in a validation": lambda: before(Classifier, "validation_step", number, in_fit),
        "after a validation": lambda: after(Checkpoints, "on_validation_end", number),
        "before an epoch ends": lambda: before(Checkpoints, "on_train_epoch_end", number),
        "after an epoch ended": lambda: after(Checkpoints, "on_train_epoch_end", number),
        "in half a checkpoint": lambda: write_half(number),
        "before a sync": lambda: before(os, "fsync", number),
        "before previous.ckpt": lambda: before(*to("previous.ckpt")),
        "between the renames": lambda: before(*to("last.ckpt")),
        "after the renames": lambda: after(*to("last.ckpt")),
        "before best.ckpt": lambda: before(*to("best.ckpt")),
        "before metrics.csv": lambda: before(*to("metrics.csv")),
        "after metrics.csv": lambda: after(*to("metrics.csv")),
        "before config.yaml": lambda: before(*to("config.yaml")),
        "before summary.json": lambda: before(*to("summary.json")),
    }[what]()


def write_half(number: int) -> None:
    """Die when half of the n-th checkpoint has been written."""
    real, calls = torch.save, count(1)

    def save(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if next(calls) == number:
            whole = io.BytesIO()
            real(content, whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            die()
        real(content, file, *args, **kwargs)

    torch.save = save


def same_file(folder: RunFolder) -> bool:
    return folder.last.samefile(folder.previous)


# What a kill must have left behind, where that can be seen.
TRACES: dict[str, Callable[[RunFolder], bool]] = {
    "in half a checkpoint": lambda folder: any(folder.checkpoints.glob("*.ckpt.*.tmp")),
    "between the renames": same_file,
    "before previous.ckpt": lambda folder: any(folder.checkpoints.glob("previous.ckpt.*.tmp")),
    "before metrics.csv": lambda folder: folder.path.joinpath("metrics.csv.tmp").is_file(),
    "before config.yaml": lambda folder: not folder.config.exists(),
    "before summary.json": lambda folder: not folder.summary.exists() and folder.last.is_file(),
}


@dataclass(frozen=True)
class Chain:
    """A run, and the kills that it goes through one after another."""

    workers: int
    words: tuple[str, ...]
    kills: tuple[Moment, ...]
    epochs: int = 4  # of 5 batches each, or of the demo's 27
    demo: bool = False  # the demo itself, instead of tiny pictures


QUICK = {
    "two workers, validation inside the epoch": Chain(
        2,
        ("--trainer.val_check_interval=2",),
        (
            ("before config.yaml", 1), (RANDOM, 200), ("in a validation", 2),
            ("in half a checkpoint", 2),
        ),
        epochs=40,
    ),
    "one worker, accumulation": Chain(
        1,
        ("--trainer.accumulate_grad_batches=2",),
        (("in an accumulation", 2), ("between the renames", 2), ("before an epoch ends", 1)),
    ),
}  # fmt: skip

CAMPAIGN = {
    "no worker": Chain(
        0,
        (),
        (
            ("before config.yaml", 1), (RANDOM, 2000), ("in a step", 9), (RANDOM, 2000),
            ("in half a checkpoint", 1), (RANDOM, 2000), ("between the renames", 3), (RANDOM, 500),
        ),
        epochs=8,
        demo=True,
    ),
    "one worker": Chain(
        1,
        (),
        (
            ("before metrics.csv", 1), ("before a sync", 1), ("before a sync", 4),
            ("after a step", 2),
            ("between gradients and step", 3), ("before best.ckpt", 1), ("after the renames", 2),
            ("before summary.json", 1),
        ),
    ),
    "two workers": Chain(
        2,
        (),
        (
            (RANDOM, 2000), ("in a step", 4), (RANDOM, 2000), ("before previous.ckpt", 2),
            (RANDOM, 2000), ("after an epoch ended", 1), (RANDOM, 500), ("in a validation", 1),
        ),
        epochs=8,
        demo=True,
    ),
    "accumulation over the end of an epoch": Chain(
        2,
        ("--trainer.accumulate_grad_batches=3",),
        (
            ("in an accumulation", 1), ("in an accumulation", 2), (RANDOM, 200),
            ("before an epoch ends", 1), ("in an accumulation", 2), (RANDOM, 200),
            ("after an epoch ended", 1), ("in half a checkpoint", 2),
        ),
        epochs=40,
    ),
    "validation inside an epoch": Chain(
        1,
        ("--trainer.val_check_interval=2",),
        (
            ("in a validation", 1), (RANDOM, 200), ("in a validation", 2), ("before best.ckpt", 1),
            ("after a validation", 1), ("before metrics.csv", 2), (RANDOM, 200),
            ("after metrics.csv", 2),
        ),
        epochs=40,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), {"train": 20, "test": 7})


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process and every one that it starts split no sum among threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def killed(moment: Moment, words: list[str], folder: RunFolder, draw: random.Random) -> None:
    """Start the program, or go on, and have it killed at a moment."""
    what, number = moment
    log = folder.path.with_suffix(".log")
    if what == RANDOM:
        with Sitting(words, folder, log, {}) as sitting:
            assert sitting.trains(), log.read_text()
            assert not sitting.ends_within(draw.uniform(0, number / 1000)), "too short a run"
        return
    program = [sys.executable, "-m", "tests.test_kill_campaign", what, str(number), "fit", *words]
    with log.open("wb") as file:
        done = subprocess.run(
            program, cwd=ROOT, stdout=file, stderr=file, start_new_session=True, check=False
        )
    assert done.returncode == -signal.SIGKILL, f"{moment}: {log.read_text()}"
    assert TRACES.get(what, lambda _: True)(folder), f"{moment} left no trace"


def killed_run(chain: Chain, pictures: Path, place: Path) -> None:
    data = [f"--data.root={pictures}", *RECIPE]
    demo = [f"--config={ROOT / 'configs/demo.yaml'}", "--trainer.logger=false"]
    words = [*(demo if chain.demo else data), *chain.words]
    words += [f"--trainer.max_epochs={chain.epochs}", "--trainer.num_sanity_val_steps=1"]
    whole, parts = RunFolder(place / "whole"), RunFolder(place / "parts")
    assert main(["fit", *words, f"--run_dir={whole.path}"]) == 0
    words += [f"--data.num_workers={chain.workers}", "--checkpoint_every_steps=1"]
    words += [f"--run_dir={parts.path}", "--ckpt_path=auto"]
    draw = random.Random(repr(chain))
    for moment in chain.kills:
        killed(moment, words, parts, draw)
    assert not parts.summary.exists()
    assert main(["fit", *words]) == 0
    found = compare_runs(whole, parts)
    assert not found.different, "\n".join(found.different)
    assert found.rows >= chain.epochs and found.tensors > 60
    assert not [name for name in tree(parts.path) if name.endswith(".tmp")]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_killed_run_ends_in_the_same_bytes(name: str, pictures: Path, tmp_path: Path) -> None:
    killed_run(QUICK[name], pictures, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("name", CAMPAIGN)
def test_campaign(name: str, pictures: Path, tmp_path: Path) -> None:
    killed_run(CAMPAIGN[name], pictures, tmp_path)


def test_the_campaign_is_as_long_as_it_says() -> None:
    assert sum(len(chain.kills) for chain in CAMPAIGN.values()) == 40


if __name__ == "__main__":
    aim(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
