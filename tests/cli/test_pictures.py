"""The callbacks that show a validation, in the program: they look and change nothing."""

import csv
import json
from pathlib import Path

import pytest
import torch

from src.train import main
from tests.cli.conftest import Cli, tree
from tests.cli.test_fit import RECIPE, assert_same_run, last
from tests.cli.test_resume import assert_same
from tests.helpers import ROOT, require_module

PICTURES = f"--config={ROOT / 'configs/callbacks/pictures.yaml'}"
WORDS = [*RECIPE, "--trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def shown(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with all four callbacks; tests must not write into it."""
    folder = tmp_path_factory.mktemp("shown") / "run"
    assert main(["fit", PICTURES, f"--data.root={pictures}", f"--run_dir={folder}", *WORDS]) == 0
    return folder


def test_what_they_leave(shown: Path) -> None:
    found = {name for name in tree(shown) if name.startswith(("pictures", "tables"))}
    assert found - {"pictures/worst-epoch-1.png", "pictures/worst-epoch-2.png"} == {
        "pictures/confusion-epoch-1.png", "pictures/confusion-epoch-2.png",
        "pictures/train-epoch-1.png", "tables/worst.json",
        "tables/val-epoch-1.csv", "tables/val-epoch-2.csv",
    }  # fmt: skip


def test_the_table_is_the_one_that_was_scored(shown: Path) -> None:
    with (shown / "tables/val-epoch-2.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (shown / "samples.csv").open() as file:
        samples = [row for row in csv.DictReader(file) if row["split"] == "val"]
    assert [(r["path"], r["label"]) for r in rows] == [(s["path"], s["label"]) for s in samples]
    right = sum(row["label"] == row["predicted_class"] for row in rows)
    scores = last(shown)["scores"]
    assert right / len(rows) == scores["val/accuracy"]
    assert json.loads((shown / "tables/worst.json").read_text())["mistakes"] == len(rows) - right


def test_looking_on_does_not_change_a_byte(shown: Path, cli: Cli, pictures: Path) -> None:
    assert cli("fit", f"--data.root={pictures}", "--run_dir=blind", *WORDS).code == 0
    blind = Path("blind")
    assert_same_run(blind, shown)
    for name in ("last", "best"):
        one, other = (
            torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
            for run in (blind, shown)
        )
        # The config says what was named; nothing else in a checkpoint may tell the two apart.
        assert one["callbacks"].keys() == other["callbacks"].keys()
        assert (one["decision"], one["scores"]) == (other["decision"], other["scores"])


def test_a_resume_ends_in_the_same_bytes(shown: Path, cli: Cli, pictures: Path) -> None:
    words = [PICTURES, f"--data.root={pictures}", *RECIPE, "--run_dir=parts"]
    assert cli("fit", *words, "--trainer.max_epochs=1").code == 0
    ended = cli("fit", "--run_dir=parts", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    assert_same(shown, Path("parts"))
    for name in ("tables/val-epoch-2.csv", "tables/worst.json"):
        assert (shown / name).read_bytes() == Path("parts", name).read_bytes()


def test_a_dev_run_keeps_nothing(cli: Cli, pictures: Path) -> None:
    ended = cli("fit", PICTURES, f"--data.root={pictures}", *WORDS, "--trainer.fast_dev_run=true")
    assert (ended.code, list(Path().iterdir())) == (0, []), ended.err


def test_a_value_out_of_range_is_told(cli: Cli, pictures: Path) -> None:
    words = ["--trainer.callbacks+=callbacks.PredictionTable", "--trainer.callbacks.keep=0"]
    ended = cli("fit", f"--data.root={pictures}", "--run_dir=run", *WORDS, *words)
    assert (ended.code, Path("run").exists()) == (2, False)
    assert "keep of callbacks.PredictionTable is 0; allowed is 1 or more." in ended.err


def test_loggers_get_them(cli: Cli, pictures: Path) -> None:
    require_module("tensorboard")
    board = ROOT / "configs/logger/tensorboard.yaml"
    words = [w for w in WORDS if "logger" not in w]
    ended = cli(
        "fit", f"--config={board}", PICTURES, f"--data.root={pictures}", "--run_dir=run", *words
    )
    assert ended.code == 0, ended.err
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator("run/tensorboard")
    found.Reload()
    tags = set(found.Tags()["images"])
    assert tags - {"pictures/worst"} == {"pictures/confusion", "pictures/train"}
    steps = [event.step for event in found.Scalars("val/loss")]
    assert [event.step for event in found.Images("pictures/confusion")] == steps


def test_wandb_gets_them(cli: Cli, pictures: Path) -> None:
    words = [w for w in WORDS if "logger" not in w]
    ended = cli("fit", PICTURES, f"--data.root={pictures}", "--run_dir=run", *words)
    assert ended.code == 0, ended.err
    media = {path.name.split("_")[0] for path in Path("run/wandb").rglob("media/**/*.*")}
    assert media >= {"confusion", "train", "predictions"}
