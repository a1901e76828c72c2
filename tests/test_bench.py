"""The benchmark: that it measures what it says, by counting; never how fast."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src import bench
from src.bench import allowed_by_cores, main, ratio, spread
from src.measure import Bench, Case
from src.models import SmallResNet
from src.startup import children, private_memory, start_twice
from tests.cli.conftest import make_pictures

SMALL = Case("SmallResNet", 32, 4, SmallResNet)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), {"train": 8, "val": 2})


def test_the_command(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "CASES", (SMALL,))
    start = {"cold": 9.5, "warm": 4.0, "peak_gib": 0.75, "workers_mib": [40.0, 42.4]}
    monkeypatch.setattr(bench, "start_twice", lambda *_: start)
    words = ["--root", str(root), "--repeats", "2", "--steps", "2", "--json", str(tmp_path / "a")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert re.search(r"SmallResNet, 32 pixels, batches of 4: images a second\n", out)
    assert re.search(r"  trainer\.fit / bare loop: \d+\.\d{3}\n", out)
    assert re.search(r"  of trainer\.fit, augmented, waiting for data: \d+\.\d%\n", out)
    assert re.search(r"  trainer\.fit, augmented / what \d+ cores allow: \d+\.\d{3}\n", out)
    found = json.loads((tmp_path / "a").read_text())
    assert {len(values) for values in found["nets"]["SmallResNet"]["rates"].values()} == {2}
    assert found["nets"]["SmallResNet"]["starts"] == [start] * 2
    assert re.search(r"    cold cache +9\.50 .*\n    warm cache +4\.00", out)
    assert "peak memory of its main process: 0.75 GiB" in out
    assert "private memory of its workers: 40, 42 MiB" in out
    assert found["machine"]["versions"]["torch"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--repeats", "0"], r"--repeats is 0; allowed is 1 or more"),
        (["--steps", "1"], r"--steps is 1; allowed is 2 or more"),
        (["--workers", "-1"], r"--workers is -1; allowed is 0 or more"),
        (["--batch_size", "1"], r"--batch_size is 1; allowed is 2 or more"),
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


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
def test_a_whole_fit_from_its_start(root: Path) -> None:
    began = time.time()
    found = start_twice(SMALL, root, 1, "32-true")
    assert found["warm"] > 0 and 0 < found["cold"] < time.time() - began
    assert 0.1 < found["peak_gib"] < 4
    (private,) = found["workers_mib"]
    assert 1 < private < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
def test_private_memory_is_what_a_process_writes_to() -> None:
    code = "import time; own = b'x' * (64 * 2**20); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = dict(zip(children(), private_memory(children()), strict=True))
        child.kill()
    assert 64 < found[child.pid] < 100


def test_too_few_pictures_for_a_batch(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(root)]) == 2
    assert "has 16 training pictures, and SeedCNN is measured with batches of 20" in (
        capsys.readouterr().err
    )


def test_what_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 10 ms and 4 ms of one core for the data: 12 ms on two cores, 11 on four."""
    for cores, seconds in ((2, 0.012), (4, 0.011)):
        monkeypatch.setattr(bench, "usable_cores", lambda cores=cores: cores)
        assert allowed_by_cores([1 / 0.010], [1 / 0.004]) == pytest.approx([1 / seconds])


def test_ratios_are_of_the_same_turn() -> None:
    assert ratio([1.0, 20.0, 3.0], [2.0, 10.0, 3.0]) == 1.0
    assert spread([4.0]) == (4.0, 4.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
