"""The benchmark: that it measures what it says, by counting; never how fast."""

import json
import re
from pathlib import Path

import pytest

from src import bench
from src.bench import main, ratio, spread
from src.measure import Bench, Case
from tests.cli.conftest import make_pictures

SMALL = Case("SmallResNet", 32, 4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), {"train": 8, "val": 2})


def test_the_command(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "CASES", (SMALL,))
    words = ["--root", str(root), "--repeats", "2", "--steps", "2", "--json", str(tmp_path / "a")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert re.search(r"SmallResNet, 32 pixels, batches of 4: images a second\n", out)
    assert re.search(r"  trainer\.fit / bare loop: \d+\.\d{3}\n", out)
    found = json.loads((tmp_path / "a").read_text())
    assert {len(values) for values in found["nets"]["SmallResNet"].values()} == {2}
    assert found["machine"]["versions"]["torch"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--repeats", "0"], r"--repeats is 0; allowed is 1 or more"),
        (["--steps", "1"], r"--steps is 1; allowed is 2 or more"),
        (["--workers", "-1"], r"--workers is -1; allowed is 0 or more"),
        (["--root", "nowhere"], r"nowhere"),
    ],
)
def test_mistakes(words: list[str], match: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert re.search(match, capsys.readouterr().err)


@pytest.mark.parametrize("name", ["loader", "ceiling", "bare_loop", "fit"])
def test_each_measurement_goes_on_over_the_end_of_an_epoch(name: str, root: Path) -> None:
    """16 pictures are four batches, and ten are asked for."""
    measured = Bench(SMALL, root, augmented=name == "loader", steps=10)
    assert getattr(measured, name)() > 0
    assert getattr(measured, name)() > 0
    measured.close()


def test_ratios_are_of_the_same_turn() -> None:
    assert ratio([1.0, 20.0, 3.0], [2.0, 10.0, 3.0]) == 1.0
    assert spread([4.0]) == (4.0, 4.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
