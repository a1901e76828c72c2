"""A run broken off at every kind of moment and gone on with ends as the unbroken one, bit by bit.

The moments are chosen, not drawn: a callback of the test ends the program in the middle of a
sitting, as a kill would, and the next sitting goes on, until the run is over. Real kills are in
test_kill.py.
"""

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

import src.cli
from src.sameness import differences
from tests.cli.conftest import Cli
from tests.cli.test_fit import RECIPE, rows

SMALL = [*RECIPE, "--trainer.num_sanity_val_steps=1", "--checkpoint_every_steps=1"]


class Broken(BaseException):
    """The end of a sitting; no part of the program knows it."""


class Break(Callback):
    """Ends the program at the n-th moment of a sitting."""

    def __init__(self, moments: int) -> None:
        self.left = moments

    def moment(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Broken

    on_train_epoch_start = on_train_batch_start = on_before_optimizer_step = moment
    on_validation_start = on_validation_batch_start = on_validation_batch_end = moment
    on_validation_end = on_train_epoch_end = on_train_end = moment


def broken_run(cli: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], most: int = 60) -> int:
    """Run to the end, broken off again and again; return the number of sittings."""
    inner = src.cli.loop_callbacks
    for sitting, moments in enumerate(cycle([2, 7, 3, 12, 5, 4, 16, 6]), start=1):
        assert sitting <= most, "the run makes no progress"
        with monkeypatch.context() as patch:
            patch.setattr(
                src.cli,
                "loop_callbacks",
                lambda *a: [*inner(*a), Break(moments)],  # noqa: B023
            )
            try:
                ended = cli(*words, "--ckpt_path=auto")
            except Broken:
                continue
        assert ended.code == 0, ended.err
        return sitting
    raise AssertionError


def assert_same(one: Path, other: Path) -> None:
    assert not differences(rows(one), rows(other), "row")
    for name in ("last", "best"):
        if name == "best" and not (one / "checkpoints/best.ckpt").is_file():
            continue
        a, b = (torch.load(r / f"checkpoints/{name}.ckpt", weights_only=True) for r in (one, other))
        found = differences(a, b)
        assert not found, "\n".join(found)


SCHEDULE = ["--model.scheduler=src.schedules.OneCycle"]
PLATEAU = [
    "--model.scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
    "--model.scheduler.monitor=val/loss", "--model.scheduler.patience=0",
    "--model.scheduler.threshold=10.0",
]  # fmt: skip
STOP_EARLY = [
    "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",
    "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.patience=1",
    "--trainer.callbacks.min_delta=1e9",
]  # fmt: skip
NO_STEP_LR = [word for word in SMALL if "scheduler" not in word]
BY_THE_CLOCK = [*(w for w in SMALL if "every_steps" not in w), "--checkpoint_every_minutes=1e-9"]

# 40 training pictures less 6 for validation: 5 batches of 8, 8, 8, 8 and 2 an epoch.
CASES = {
    "plain": [*SMALL, "--trainer.max_epochs=2"],
    "one rate a step": [*NO_STEP_LR, *SCHEDULE, "--trainer.max_epochs=2"],
    "blended and growing pictures": [
        *NO_STEP_LR, *SCHEDULE, "--trainer.max_epochs=3", "--trainer.callbacks+=callbacks.Mix",
        "--trainer.callbacks+=callbacks.ProgressiveSize", "--trainer.callbacks.start=32",
        "--data.image_size=64",
    ],
    "persistent workers": [*SMALL, "--trainer.max_epochs=2", "--data.num_workers=2"],
    "saved by the clock": [*BY_THE_CLOCK, "--trainer.max_epochs=2"],
    "plateau": [*NO_STEP_LR, *PLATEAU, "--trainer.max_epochs=3"],
    "plateau, validation every other epoch": [
        *NO_STEP_LR, *PLATEAU, "--trainer.max_epochs=4", "--trainer.check_val_every_n_epoch=2",
    ],
    "accumulation": [*SMALL, "--trainer.max_epochs=2", "--trainer.accumulate_grad_batches=2"],
    "accumulation over the end of an epoch": [
        *SMALL, "--trainer.max_epochs=2", "--trainer.accumulate_grad_batches=3",
    ],
    "validation inside an accumulation": [
        *BY_THE_CLOCK, "--trainer.max_epochs=2", "--trainer.accumulate_grad_batches=3",
        "--trainer.val_check_interval=2",
    ],
    "max_steps and a schedule of all steps": [
        *NO_STEP_LR, *SCHEDULE, "--trainer.max_steps=10",
    ],
    "max_steps inside an epoch": [*SMALL, "--trainer.max_steps=8"],
    "max_steps at the end of an epoch": [*SMALL, "--trainer.max_steps=10"],
    "max_steps after more epochs": [*SMALL, "--trainer.max_steps=17"],
    "limited batches": [*SMALL, "--trainer.max_epochs=3", "--trainer.limit_train_batches=3"],
    "limited validation": [*SMALL, "--trainer.max_epochs=2", "--trainer.limit_val_batches=1"],
    "validation inside an epoch": [
        *SMALL, "--trainer.max_epochs=2", "--trainer.val_check_interval=2",
    ],
    "validation by steps alone": [
        *SMALL, "--trainer.max_epochs=3", "--trainer.val_check_interval=4",
        "--trainer.check_val_every_n_epoch=null",
    ],
    "validation inside an epoch, with max_steps": [
        *SMALL, "--trainer.max_steps=9", "--trainer.val_check_interval=2",
    ],
    "no validation": [*SMALL, "--trainer.max_epochs=2", "--data.val_fraction=0"],
    "stops early": [*SMALL, "--trainer.max_epochs=5", *STOP_EARLY],
    "stops early inside an epoch": [
        *SMALL, "--trainer.max_epochs=5", *STOP_EARLY, "--trainer.val_check_interval=2",
    ],
    "balanced": [*SMALL, "--trainer.max_epochs=2", "--data.sampling=balanced"],
    "averaged weights, validation inside an epoch": [
        *SMALL, "--trainer.max_epochs=2", "--trainer.val_check_interval=2",
        "--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=0.9",
    ],
    "the head first": [
        *SMALL, "--trainer.max_epochs=3", "--trainer.callbacks+=callbacks.FreezeSchedule",
        "--trainer.callbacks.epochs=1",
    ],
    "one batch an epoch": [*SMALL, "--trainer.max_epochs=3", "--trainer.limit_train_batches=1"],
}  # fmt: skip


# Those of which another case, or a real kill in tests/test_kill_campaign.py, has most: `make
# campaign` runs them.
IN_THE_CAMPAIGN = {
    "one rate a step", "persistent workers", "saved by the clock", "plateau", "accumulation",
    "max_steps at the end of an epoch", "max_steps inside an epoch", "max_steps after more epochs",
    "limited batches", "limited validation",
    "validation inside an epoch", "stops early", "validation inside an epoch, with max_steps",
    "one batch an epoch",
}  # fmt: skip
assert CASES.keys() >= IN_THE_CAMPAIGN


def cases() -> list[Any]:
    marks = {name: [pytest.mark.campaign] if name in IN_THE_CAMPAIGN else [] for name in CASES}
    return [pytest.param(name, marks=marks[name]) for name in CASES]


@pytest.mark.parametrize("name", cases())
def test_a_run_that_is_broken_off_anywhere_ends_the_same(
    name: str, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fit", f"--data.root={pictures}", *CASES[name]]
    assert cli(*words, "--run_dir=whole").code == 0
    assert broken_run(cli, monkeypatch, [*words, "--run_dir=parts"]) > 2
    assert_same(Path("whole"), Path("parts"))
