"""The development photographs, where they are: real files with real faults."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, Cli
from tests.helpers import ROOT


@pytest.fixture
def run(cli: Cli, bee_wasp_root: Path) -> Path:
    """Two steps on the photographs, validated on a few blocks."""
    ended = cli(
        "fit", f"--data.root={bee_wasp_root}", "--run_dir=run", *TINY, "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return Path("run")


def test_every_photograph_is_decoded_and_split(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())["data"]
    assert record["skipped"] == 0
    assert record["counts"]["test"] == {"bee": 296, "wasp": 255}
    # 15 % of 1,680 and 1,446, halves rounded up
    assert record["counts"]["val"] == {"bee": 252, "wasp": 217}
    assert sum(sum(part.values()) for part in record["counts"].values()) == 3677


def test_copies_are_not_split_between_train_and_val(run: Path) -> None:
    where = defaultdict(set)
    with (run / "samples.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            where[row["hash"]].add(row["split"])
    assert len(where) == 3673  # four photographs are there twice
    assert not [splits for splits in where.values() if {"train", "val"} <= splits]


@pytest.mark.parametrize("recipe", ["bee_wasp", "seed"])
def test_recipe_runs_on_photographs(recipe: str, cli: Cli, bee_wasp_root: Path) -> None:
    ended = cli(
        "fit", "--config", ROOT / f"configs/{recipe}.yaml", f"--data.root={bee_wasp_root}",
        "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--data.num_workers=0",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "notes: 2 suffix says JPEG, content is PNG, 1 CMYK" in ended.out
