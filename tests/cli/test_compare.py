"""test and validate leave what runs are compared by: a real run, its best and its last weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from src import compare
from src.scored import read_scored
from tests.cli.conftest import Cli, make_pictures


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> list[Path]:
    """The run, and a copy of it."""
    return [Path(shutil.copytree(trained, tmp_path / name)) for name in ("one", "other")]


def test_best_and_last_of_a_run(cli: Cli, runs: list[Path], pictures: Path) -> None:
    assert cli("test", "--run_dir", runs[0]).code == 0
    assert cli("test", "--run_dir", runs[1], "--ckpt_path=last").code == 0
    found = read_scored(runs[0], "test")
    expected = sorted(p.relative_to(pictures).as_posix() for p in pictures.glob("test/*/*"))
    assert list(found.paths) == expected
    assert list(found.labels) == [Path(path).parent.name for path in expected]
    scores = json.loads((runs[0] / "test.json").read_text())
    assert found.right.mean() == scores["accuracy"]
    after = -np.log(found.probabilities[np.arange(14), [0] * 7 + [1] * 7]).mean()
    assert after == pytest.approx(scores["calibration"]["after"]["loss"], rel=1e-9)
    assert read_scored(runs[1], "test").checkpoint == "last.ckpt"
    assert compare.main([str(run) for run in runs]) == 0


def test_validation(cli: Cli, runs: list[Path]) -> None:
    for run in runs:
        assert cli("validate", "--run_dir", run).code == 0
    with (runs[0] / "samples.csv").open() as file:
        samples = [line.split(",")[0] for line in file if ",val," in line]
    assert list(read_scored(runs[0], "val").paths) == samples
    assert (runs[0] / "validate.csv").read_bytes() == (runs[1] / "validate.csv").read_bytes()
    assert compare.main([*map(str, runs), "--split", "val"]) == 0


def test_another_test_folder_is_refused(
    cli: Cli, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_pictures(tmp_path / "more", {"test": 3})
    assert cli("test", "--run_dir", runs[0]).code == 0
    assert cli("test", "--run_dir", runs[1], "--data.root", root).code == 0
    assert compare.main([str(run) for run in runs]) == 2
    assert "there are 14 and 6" in capsys.readouterr().err
