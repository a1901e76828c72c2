"""Which callbacks the options of fit switch on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from src.loop import loop_callbacks
from src.loop.checkpoints import Checkpoints
from src.loop.crash import CrashCheckpoint
from src.loop.metrics_csv import MetricsCsv
from src.loop.nonfinite import NonFiniteGuard
from src.loop.progress import EpochLines
from src.loop.signals import Signals
from src.loop.step_seed import StepSeed
from src.run import RunFolder


def options_of_fit(**changed: Any) -> Any:
    trainer = {"enable_progress_bar": None, "enable_checkpointing": None}
    options = {
        "seed_everything": 5, "stop_on_nonfinite": True, "progress": "lines",
        "monitor": "val/loss", "monitor_mode": "min", "checkpoint_every_steps": 7,
        "checkpoint_every_minutes": 2.5,
    }  # fmt: skip
    trainer |= {name: changed.pop(name) for name in list(changed) if name in trainer}
    return SimpleNamespace(**{**options, **changed}, trainer=SimpleNamespace(**trainer))


EVERY = [StepSeed, Signals, NonFiniteGuard, EpochLines, MetricsCsv, CrashCheckpoint, Checkpoints]


@pytest.mark.parametrize(
    ("changed", "lacks"),
    [
        ({}, ()),
        ({"stop_on_nonfinite": False}, (NonFiniteGuard,)),
        ({"progress": "off"}, (EpochLines,)),
        ({"enable_progress_bar": False}, (EpochLines,)),
        ({"enable_checkpointing": False}, (CrashCheckpoint, Checkpoints)),
    ],
)
def test_plain_options_switch_them(
    changed: dict[str, Any], lacks: tuple[type, ...], tmp_path: Path
) -> None:
    found = [type(c) for c in loop_callbacks(options_of_fit(**changed), RunFolder(tmp_path))]
    assert found == [kind for kind in EVERY if kind not in lacks]


@pytest.mark.parametrize("goes_on", [False, True])
def test_they_get_the_options(goes_on: bool, tmp_path: Path) -> None:
    found: Any = loop_callbacks(options_of_fit(), RunFolder(tmp_path), goes_on, "abc")
    seed, signals, _, _, table, crash, kept = found
    assert seed.seed == 5
    assert (kept.monitor, kept.mode) == ("val/loss", "min")
    assert (kept.every_steps, kept.every_minutes) == (7, 2.5)
    assert kept.signals is signals  # what asks the run to end is what the saving one listens to
    assert (kept.run_id, crash.run_id) == ("abc", "abc")
    assert (kept.goes_on, table.goes_on) == (goes_on, goes_on)
    assert crash.path == tmp_path / "checkpoints" / "crash.ckpt"
    assert table.path == tmp_path / "metrics.csv"


def test_a_signal_ends_a_run_by_itself_only_where_nothing_saves(tmp_path: Path) -> None:
    for changed, folder, leaves in (
        ({}, RunFolder(tmp_path), False),
        ({}, None, True),
        ({"enable_checkpointing": False}, RunFolder(tmp_path), True),
    ):
        found: Any = loop_callbacks(options_of_fit(**changed), folder)
        assert found[1].leaves is leaves


def test_a_dev_run_keeps_no_files() -> None:
    found = {type(c) for c in loop_callbacks(options_of_fit(), None)}
    assert found == {StepSeed, Signals, NonFiniteGuard, EpochLines}
