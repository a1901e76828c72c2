"""Two processes: the real program, started as a user starts it, and the scores of one process.

Three starts of the program, each of two processes, under a minute in all.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from src.train import main
from tests.cli.conftest import TINY, make_pictures
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

TWO = ["--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.accelerator=cpu"]


def start(*words: str) -> subprocess.Popen[str]:
    """Start the program on two processes, one thread each."""
    return subprocess.Popen(
        [sys.executable, "-m", "src.train", *words, *TWO],
        cwd=ROOT,
        # Bytes agree for one thread count, and Lightning sets that of the processes it launches.
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(program: subprocess.Popen[str]) -> str:
    """Wait for the program and return what it printed."""
    try:
        out, err = program.communicate(timeout=120)
    finally:
        program.kill()
    assert program.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """31 pictures to train on, 13 for validation and 13 for the test: 4 blocks of 4, uneven."""
    root = make_pictures(tmp_path_factory.mktemp("data"), {"train": 16, "val": 7, "test": 7})
    for name in ("train/bug/15.png", "val/bug/6.png", "test/bug/6.png"):
        (root / name).unlink()
    return root


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two epochs on two processes, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "two"
    words = [f"--data.root={root}", f"--run_dir={run}", *TINY, "--trainer.max_epochs=2"]
    return run, end(start("fit", *words, "--data.batch_size=4"))


@pytest.fixture(scope="module")
def scored(
    trained: tuple[Path, str], root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The run tested and used for prediction: on one process, and on two."""
    folder = tmp_path_factory.mktemp("scored")
    one, two = (Path(shutil.copytree(trained[0], folder / name)) for name in ("one", "two"))
    test = start("test", f"--run_dir={two}")
    predict = start("predict", f"--run_dir={two}", f"--data.root={root}")
    printed = end(test), end(predict)
    assert [out.count(f"{two}/") for out in printed] == [1, 1]  # one process speaks
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(["test", f"--run_dir={one}"]) == 0
        assert main(["predict", f"--run_dir={one}", f"--data.root={root}"]) == 0
    finally:
        torch.set_num_threads(threads)
    return one, two


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_fit_on_two_processes_leaves_one_whole_run(trained: tuple[Path, str]) -> None:
    run, out = trained
    assert out.rstrip().splitlines()[-1] == str(run)
    assert out.splitlines().count(str(run)) == 1
    # 31 pictures, 8 a step: 3 steps and a rest of 7, which is enough for both
    assert [row["step"] for row in rows(run)] == ["4", "8"]
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "samples.csv", "metrics.csv", "run.json", "summary.json"} <= names
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]


def test_training_scores_count_the_pictures_of_both(trained: tuple[Path, str]) -> None:
    """Of 31 pictures, that is: one process has 16 of them, the other 15."""
    right = float(rows(trained[0])[0]["train/accuracy"]) * 31
    assert right == pytest.approx(round(right), abs=1e-9)
    assert 0 < right < 31  # shares of 16 and 15 would pass at either end


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["best", "last"])
def test_one_process_scores_its_checkpoints_to_the_byte_alike(
    trained: tuple[Path, str], tmp_path: Path, name: str
) -> None:
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    assert main(["validate", f"--run_dir={run}", f"--ckpt_path={name}"]) == 0
    found = json.loads((run / "validate.json").read_text())
    step = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
    (row,) = [row for row in rows(run) if row["step"] == str(step)]
    assert found["n"] == 13
    for score in ("loss", "accuracy", "f1", "auroc"):
        assert repr(found[score]) == row[f"val/{score}"], score


def test_the_test_is_the_same_on_one_and_two_processes(scored: tuple[Path, Path]) -> None:
    one, two = ((run / "test.json").read_bytes() for run in scored)
    assert one == two
    assert json.loads(one)["n"] == 13


def test_predictions_are_the_same_on_one_and_two_processes(scored: tuple[Path, Path]) -> None:
    one, two = ((run / "predictions.csv").read_bytes() for run in scored)
    assert one == two
    assert len(one.splitlines()) == 1 + 31 + 13 + 13
