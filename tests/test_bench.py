"""The benchmark: that it measures what it says, by counting; never how fast."""

import json
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src import bench, bench_report, startup
from src.bench import main
from src.bench_report import allowed_by_cores, ratio, spread, table
from src.busy import BusyGpu
from src.cases import Case
from src.data import trial
from src.measure import Bench, _Clock
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
    start = {"cold": 9.5, "warm": 4.0, "peak_gib": 0.75, "gpu_gib": None}
    start["workers_mib"] = [40.0, 42.4]
    monkeypatch.setattr(bench, "start_twice", lambda *_: start)
    words = ["--root", str(root), "--repeats", "2", "--steps", "2", "--json", str(tmp_path / "a")]
    assert main([*words, "--workers", "0"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"SmallResNet, 32 pixels, batches of 4: images a second\n", out)
    assert re.search(r"  trainer\.fit / bare loop: \d+\.\d{3}\n", out)
    assert re.search(r"  of trainer\.fit, augmented, waiting for data: \d+\.\d%\n", out)
    assert re.search(r"  trainer\.fit, augmented / what the cores allow: \d+\.\d{3}\n", out)
    found = json.loads((tmp_path / "a").read_text())
    net = found["nets"]["SmallResNet"]
    assert (net["image_size"], net["batch_size"], net["workers"]) == (32, 4, 0)
    turns = [*net["rates"].values(), *net["ratios"].values(), net["shares"][bench.WAITING]]
    assert {len(values) for values in turns} == {2}
    assert net["starts"] == [start] * 2
    assert re.search(r"    cold cache +9\.50 .*\n    warm cache +4\.00", out)
    assert "peak memory of its main process: 0.75 GiB" in out
    assert "private memory of its workers: 40, 42 MiB" in out
    assert found["machine"]["versions"]["torch"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--repeats", "0"], r"--repeats is 0; allowed is 1 or more"),
        (["--steps", "0"], r"--steps is 0; allowed is 1 or more"),
        (["--json", "missing/a.json"], r"--json missing/a\.json: give a file in a folder"),
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
    """16 pictures are shown in ten batches, and twelve are asked for."""
    measured = Bench(SMALL, root, augmented=name == "loader", steps=12)
    assert getattr(measured, name)() > 0
    assert getattr(measured, name)() > 0
    measured.close()


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
def test_a_whole_fit_from_its_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one with an empty cache of its own, the second with what that has left."""
    there: list[list[int]] = []
    real = startup.Sitting

    def watched(words: Any, folder: Any, log: Path, env: Any) -> Any:
        files = Path(env["XDG_CACHE_HOME"]).rglob("*.pixels")
        there.append([path.stat().st_mtime_ns for path in files])
        return real(words, folder, log, env)

    monkeypatch.setattr(startup, "Sitting", watched)
    monkeypatch.setattr(
        startup.tempfile, "TemporaryDirectory", lambda: nullcontext(str(root.parent))
    )
    began = time.time()
    found = start_twice(SMALL, root, 1, "32-true")
    assert found["warm"] > 0 and 0 < found["cold"] < time.time() - began
    assert 0.1 < found["peak_gib"] < 4
    assert (found["gpu_gib"] is None) == (not torch.cuda.is_available())
    (private,) = found["workers_mib"]
    assert 1 < private < 1000
    assert there[0] == [] and len(there[1]) == 1
    assert len(list((root.parent / "cache").rglob("*.pixels"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
def test_private_memory_is_what_a_process_writes_to() -> None:
    code = "import time; own = b'x' * (64 * 2**20); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = dict(zip(children(), private_memory(children()), strict=True))
        child.kill()
    assert 64 < found[child.pid] < 100


def test_few_pictures_make_ten_whole_batches(root: Path) -> None:
    """So that batches of 1,024 can be measured on the built-in pictures."""
    measured = Bench(Case("SmallResNet", 32, 40, SmallResNet), root)
    batches = trial.batches(measured.data)
    first, *others = [next(batches) for _ in range(10)]
    assert {len(batch["image"]) for batch in (first, *others)} == {40}
    seen = torch.cat([batch["index"] for batch in (first, *others)]).tolist()
    assert sorted(seen) == list(range(400))
    shown = measured.data.pictures("fit", "train", None)
    assert (shown.pixels(0, 3) == shown.pixels(0, 19)).all()  # of 16 pictures
    assert shown.index.paths[3] == shown.index.paths[19]


def test_what_the_workers_have_made_ahead_is_not_timed(root: Path) -> None:
    """Three workers have six batches ready when the first step is over."""
    measured = Bench(SMALL, root, workers=3, steps=2)
    calls: list[int] = []
    measured._timed(lambda: calls.append(1) or 4)
    assert (measured.left_out, len(calls)) == (7, 9)
    measured.close()


def test_what_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 10 ms and 4 ms of one core for the data: 12 ms on two cores, 11 on four.

    A GPU computes beside them: 10 ms, or 30 if the data take 60 on two cores.
    """
    for cores, seconds in ((2, 0.012), (4, 0.011)):
        monkeypatch.setattr(bench_report, "usable_cores", lambda cores=cores: cores)
        found = allowed_by_cores([1 / 0.010], [1 / 0.004], on_cpu=True)
        assert found == pytest.approx([1 / seconds])
    monkeypatch.setattr(bench_report, "usable_cores", lambda: 2)
    found = allowed_by_cores([100.0, 100.0], [1 / 0.004, 1 / 0.060], on_cpu=False)
    assert found == pytest.approx([100.0, 1 / 0.030])


@pytest.mark.skipif(sys.platform == "win32", reason="not on this system: shell scripts")
def test_a_gpu_is_looked_at_while_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for nvidia-smi, which prints until it is ended; without one, nobody says."""
    monkeypatch.setattr(
        "torch.cuda.get_device_properties", lambda device: SimpleNamespace(uuid="12-34")
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    blind = BusyGpu(torch.device("cuda"))
    blind.start()
    assert blind.stop() is None
    script = tmp_path / "nvidia-smi"
    script.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words\necho 80\necho "[N/A]"\necho 40\n'
        f": > {tmp_path}/told\nexec sleep 60\n"
    )
    script.chmod(0o755)
    gpu = BusyGpu(torch.device("cuda"))
    gpu.start()
    end = time.monotonic() + 30
    while not (tmp_path / "told").exists():
        assert time.monotonic() < end, "the program did not start"
        time.sleep(0.01)
    assert gpu.stop() == pytest.approx(0.6)
    assert "--id=GPU-12-34" in (tmp_path / "words").read_text()


@pytest.mark.parametrize(("threads", "made_by"), [(1, 1), (3, 3), (None, 2)])
def test_the_loader_is_timed_with_the_threads_that_were_asked_for(
    threads: int | None, made_by: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.data.workers.usable_cores", lambda: 2)
    measured = Bench(SMALL, root, augmented=True, steps=1, threads=threads)
    next(measured._batches())
    assert measured._loader.dataset.threads == made_by
    measured.close()


def test_a_fit_that_fails_leaves_no_program_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks at the GPU is ended, and only once."""
    calls: list[str] = []
    looks = SimpleNamespace(start=lambda: calls.append("start"), stop=lambda: calls.append("stop"))
    monkeypatch.setattr("src.measure.BusyGpu", lambda device: looks)
    monkeypatch.setattr("src.measure.wait_for", lambda device: None)
    clock = _Clock(1, torch.device("cuda"))
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    trainer = SimpleNamespace(global_step=1, max_steps=9, strategy=strategy)
    clock.on_train_batch_end(trainer, None, None, {"image": []}, 0)
    clock.on_exception(trainer, None, RuntimeError())
    assert calls == ["start", "stop"]


def test_a_share_that_nobody_knows_is_said() -> None:
    found = {"rates": {}, "shares": {"busy": [], "waiting": [0.25]}, "ratios": {}, "workers": 0}
    lines = table(SMALL, found)
    assert lines[1:] == ["  busy: not known: there is no nvidia-smi", "  waiting: 25.0%"]


def test_every_measurement_is_first_in_its_turn() -> None:
    turns = ["".join(bench.rotated("abc", turn)) for turn in range(4)]
    assert turns == ["abc", "bca", "cab", "abc"]


def test_ratios_are_of_the_same_turn() -> None:
    assert ratio([1.0, 20.0, 3.0], [2.0, 10.0, 3.0]) == 1.0
    assert spread([4.0]) == (4.0, 4.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)
