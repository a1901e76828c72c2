"""Several processes: the real program, started as a user starts it, and what must stay equal.

Every start of the program costs several seconds, so the tests share them.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from src.errors import UserError
from src.loop import fsdp
from src.models import SmallResNet
from src.train import main
from tests.cli.conftest import TINY, make_pictures, tree
from tests.cli.test_fit import assert_same_run, last
from tests.helpers import ROOT
from tests.slow import SECONDS

pytestmark = pytest.mark.slow

# Bytes agree for one thread count, and Lightning sets that of the processes it launches.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TRAIN = [
    *TINY,
    "--data.batch_size=4",
    "--model.net.dropout=0.3",
    "--model.optimizer.momentum=0.9",
    "--trainer.max_epochs=3",
    "--trainer.callbacks+=tests.slow.Slow",
]
SLOWLY = {SECONDS: "0.3"}
DDP = [f"--config={ROOT / 'configs/trainer/ddp.yaml'}", "--trainer.accelerator=cpu"]
# 200 of the tiny network's 1,406 weights: several parts of it are gathered one by one
SHARED = [
    f"--config={ROOT / 'configs/trainer/fsdp.yaml'}",
    "--trainer.strategy.min_parameters=200",
    "--trainer.accelerator=cpu",
]
SCORES = ("validate.json", "test.json", "predictions.csv")
SCORE = """
import sys
from src.train import main
run, new, *more = sys.argv[1:]
for command, data in (("validate", []), ("test", []), ("predict", [f"--data.root={new}"])):
    if code := main([command, f"--run_dir={run}", *data, *more]):
        sys.exit(code)
"""

MUON = """
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from src.muon import Muon

def trained(shares):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(180, 2))
    if shares:
        fully_shard(net, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
    optimizer = Muon(net.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    return [w.full_tensor() if shares else w for w in net.parameters()]

for ours, theirs in zip(trained(True), trained(False), strict=True):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
torch.distributed.destroy_process_group()
"""


def start(*words: object, inside: Sequence[str] = (), **env: str) -> subprocess.Popen[str]:
    """Start Python with these words, one thread each, at the head of a session of its own."""
    return subprocess.Popen(
        [*inside, sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | ONE_THREAD | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def program(*words: object, **env: str) -> subprocess.Popen[str]:
    """Start the program, which starts a second process of its own."""
    return start("-m", "src.train", *words, *DDP, **env)


def torchrun(processes: int, *words: object, **env: str) -> subprocess.Popen[str]:
    """Start processes side by side, which is quicker."""
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    return start(*launcher, *words, **env)


def end(started: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Wait for what was started and return what it printed."""
    try:
        out, err = started.communicate(timeout=120)
    finally:
        kill(started)
    assert started.returncode == code, out + err
    return out, err


def kill(*started: subprocess.Popen[str]) -> list[tuple[str, str]]:
    """End programs and all they have started by SIGKILL; return what they printed."""
    running = [one for one in started if one.poll() is None]
    for pid in [pid for one in running for pid in family(one.pid)]:
        with suppress(ProcessLookupError):
            os.killpg(os.getpgid(pid), signal.SIGKILL)
    return [one.communicate() for one in started]


def family(pid: int) -> list[int]:
    """Return a process and all below it; torchrun gives each of its own a session."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended in the meantime
            continue
    found = [pid]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found


def wait_until(holds: Callable[[], bool], *started: subprocess.Popen[str]) -> None:
    """Wait for something that programs do; end them and fail if one of them ends before."""
    deadline = time.monotonic() + 120
    while not holds():
        if time.monotonic() > deadline or any(one.poll() is not None for one in started):
            pytest.fail(str(kill(*started)))
        time.sleep(0.005)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """31 pictures to train on, 13 for validation and 13 for the test: 4 blocks of 4, uneven."""
    return odd_pictures(tmp_path_factory.mktemp("data"))


def odd_pictures(folder: Path) -> Path:
    root = make_pictures(folder, {"train": 16, "val": 7, "test": 7})
    for name in ("train/bug/15.png", "val/bug/6.png", "test/bug/6.png"):
        (root / name).unlink()
    return root


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of three epochs on two processes, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "two"
    return run, end(program("fit", *TRAIN, f"--data.root={root}", f"--run_dir={run}"))[0]


@pytest.fixture(scope="module")
def scored(
    one_thread: None,
    trained: tuple[Path, str],
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, Path]:
    """The run after validate, test and predict on one, two and three processes."""
    folder = tmp_path_factory.mktemp("scored")
    script = folder / "score.py"
    script.write_text(SCORE)
    runs = {n: Path(shutil.copytree(trained[0], folder / str(n))) for n in (1, 2, 3)}
    for n in (2, 3):
        words = (script, runs[n], root, *DDP, f"--trainer.devices={n}")
        out, _ = end(torchrun(n, *words, PYTHONPATH=str(ROOT)))
        assert out.count(f"{runs[n]}/") == len(SCORES)  # one process speaks
    assert main(["validate", f"--run_dir={runs[1]}"]) == 0
    assert main(["test", f"--run_dir={runs[1]}"]) == 0
    assert main(["predict", f"--run_dir={runs[1]}", f"--data.root={root}"]) == 0
    return runs


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_fit_on_two_processes_leaves_one_whole_run(trained: tuple[Path, str]) -> None:
    run, out = trained
    assert out.rstrip().splitlines()[-1] == str(run)
    assert out.splitlines().count(str(run)) == 1
    # 31 pictures, 8 a step: 3 steps and a rest of 7, which is enough for both
    assert [row["step"] for row in rows(run)] == ["4", "8", "12"]
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "samples.csv", "metrics.csv", "run.json", "summary.json"} <= names
    files = {path.name for path in (run / "checkpoints").iterdir()}
    assert {"best.ckpt", "last.ckpt"} <= files <= {"best.ckpt", "last.ckpt", "previous.ckpt"}


def test_training_scores_count_the_pictures_of_both(trained: tuple[Path, str]) -> None:
    """Of 31 pictures, that is: one process has 16 of them, the other 15."""
    right = float(rows(trained[0])[0]["train/accuracy"]) * 31
    assert right == pytest.approx(round(right), abs=1e-9)
    assert 0 < right < 31  # shares of 16 and 15 would pass at either end


def test_callbacks_that_look_on_show_the_pictures_of_both(
    trained: tuple[Path, str], root: Path, tmp_path: Path
) -> None:
    """They write once, see all 13 validation pictures, and leave the weights as they are."""
    run, config = tmp_path / "run", f"--config={ROOT / 'configs/callbacks/pictures.yaml'}"
    words = [config, *TRAIN, f"--data.root={root}", f"--run_dir={run}"]
    _, err = end(torchrun(2, "-m", "src.train", "fit", *words, *DDP))
    assert "WARNING: callbacks." not in err
    with (run / "tables/val-epoch-3.csv").open() as file:
        found = list(csv.DictReader(file))
    with (run / "samples.csv").open() as file:
        samples = [row["path"] for row in csv.DictReader(file) if row["split"] == "val"]
    assert [row["path"] for row in found] == samples and len(samples) == 13
    right = sum(row["label"] == row["predicted_class"] for row in found)
    assert right / 13 == last(run)["scores"]["val/accuracy"]
    assert json.loads((run / "tables/worst.json").read_text())["mistakes"] == 13 - right
    assert (run / "pictures/confusion-epoch-3.png").is_file()
    assert_same_run(run, trained[0])


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
    for score in ("loss", "accuracy", "accuracy_argmax", "f1", "auroc"):
        assert repr(found[score]) == row[f"val/{score}"], score


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("name", SCORES)
def test_scores_are_the_same_on_any_number_of_processes(
    scored: dict[int, Path], name: str, processes: int
) -> None:
    """13 pictures in 4 blocks, and 57 in 15: neither is a multiple of 2 or 3 processes."""
    one = (scored[1] / name).read_bytes()
    assert (scored[processes] / name).read_bytes() == one
    if name.endswith(".json"):
        assert json.loads(one)["n"] == 13
    else:
        assert len(one.splitlines()) == 1 + 31 + 13 + 13


def test_fewer_pictures_than_processes_is_one_message(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    two = make_pictures(tmp_path / "two", {"": 1})
    words = (f"--run_dir={run}", f"--data.root={two}", *DDP, "--trainer.devices=3")
    out, err = end(start("-m", "src.train", "predict", *words), code=2)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert lines == [
        "error: there are 2 pictures to score on 3 processes; each needs one. "
        "Lower --trainer.devices."
    ]
    assert "Traceback" not in out + err
    assert not (run / "predictions.csv").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
def test_killed_and_gone_on_with_is_the_whole_run(
    trained: tuple[Path, str], root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    words = [*TRAIN, f"--data.root={root}", f"--run_dir={run}", "--checkpoint_every_steps=1"]
    killed = program("fit", *words, **SLOWLY)
    wait_until((run / "checkpoints/last.ckpt").exists, killed)
    kill(killed)
    assert killed.returncode == -signal.SIGKILL
    assert last(run)["global_step"] < 12
    assert not (run / "summary.json").exists()
    end(program("fit", *words, "--ckpt_path=auto"))
    assert_same_run(trained[0], run)
    assert not [name for name in tree(run) if name.endswith(".tmp")]


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.campaign), 1])
def test_a_signal_to_one_process_stops_both_and_saves(
    rank: int, trained: tuple[Path, str], root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    words = [*TRAIN, f"--data.root={root}", f"--run_dir={run}", "--checkpoint_every_steps=1"]
    stopped = torchrun(2, "-m", "src.train", "fit", *words, *DDP, **SLOWLY)
    wait_until((run / "checkpoints/last.ckpt").exists, stopped)
    os.kill(process_of_rank(stopped.pid, rank), signal.SIGTERM)
    _, err = end(stopped, code=1)  # torchrun's own code
    assert "exitcode  : 143" in err
    assert "exitcode  : 1 " not in err
    assert err.count("stopped by SIGTERM after step") == 1
    assert 0 < last(run)["global_step"] < 12
    end(torchrun(2, "-m", "src.train", "fit", *words, *DDP, "--ckpt_path=auto"))
    assert_same_run(trained[0], run)


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
def test_a_signal_while_they_start_leaves_none_behind(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    started = program("fit", *TRAIN, f"--data.root={root}", f"--run_dir={run}", **SLOWLY)
    wait_until(lambda: len(family(started.pid)) > 1, started)
    others = family(started.pid)[1:]
    os.kill(started.pid, signal.SIGTERM)
    _, err = end(started, code=143)
    assert "stopped by SIGTERM" in err
    assert not [pid for pid in others if Path(f"/proc/{pid}/exe").exists()]


def process_of_rank(above: int, rank: int) -> int:
    """Return the process below torchrun that has a rank."""
    for pid in family(above)[1:]:
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
            return pid
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture(scope="module")
def shared(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `trained` with the network in shares."""
    run = tmp_path_factory.mktemp("shares") / "run"
    words = [*TRAIN, *SHARED, f"--data.root={root}", f"--run_dir={run}"]
    end(torchrun(2, "-m", "src.train", "fit", *words))
    return run


class TestShares:
    """Weights, gradients and optimizer state in shares (FSDP), on the CPU."""

    def test_the_checkpoint_is_one_whole_plain_file(
        self, shared: Path, trained: tuple[Path, str]
    ) -> None:
        with zipfile.ZipFile(shared / "checkpoints/last.ckpt") as archive:
            assert archive.comment.startswith(b"waggle")  # it went through AtomicCheckpointIO
        found, expected = last(shared), last(trained[0])
        assert shapes(found["state_dict"]) == shapes(expected["state_dict"])
        ours, theirs = (x["optimizer_states"][0] for x in (found, expected))
        assert ours["param_groups"] == theirs["param_groups"]
        assert {k: shapes(v) for k, v in ours["state"].items()} == {
            k: shapes(v) for k, v in theirs["state"].items()
        }

    def test_it_learns_what_ddp_learns(self, shared: Path, trained: tuple[Path, str]) -> None:
        assert_nearly_the_same_run(shared, trained[0])

    @pytest.mark.usefixtures("one_thread")
    def test_one_process_scores_it(self, shared: Path, tmp_path: Path) -> None:
        run = Path(shutil.copytree(shared, tmp_path / "run"))
        assert main(["validate", f"--run_dir={run}", "--ckpt_path=last"]) == 0
        found = json.loads((run / "validate.json").read_text())
        assert repr(found["loss"]) == rows(run)[-1]["val/loss"]

    def test_gone_on_with_is_the_whole_run(self, shared: Path, root: Path, tmp_path: Path) -> None:
        run = go_on_in_shares(shared, root, tmp_path / "run")
        assert_same_run(shared, run)

    def test_a_run_of_ddp_goes_on_in_shares(
        self, trained: tuple[Path, str], root: Path, tmp_path: Path
    ) -> None:
        """Its weights lie in channels_last memory, the shares in the plain order."""
        run = go_on_in_shares(trained[0], root, tmp_path / "run", "--allow_drift=true")
        assert_nearly_the_same_run(run, trained[0])

    def test_each_process_keeps_its_share_alone(self) -> None:
        net = SmallResNet(2, 4, (4, 8), (1, 1))
        with imagined_processes(2):
            mesh = fsdp.init_device_mesh("cpu", (2,))
            fsdp._share_out(net, mesh, 200)
            whole = sum(weight.numel() for weight in net.parameters())
            share = sum(weight.to_local().numel() for weight in net.parameters())  # type: ignore[operator]
        parts = [name for name, module in net.named_modules() if isinstance(module, FSDPModule)]
        # 4 * 4 * 9 + 4 * 4 * 9 + 16 + 24 is over 200; so are 8 * 4 * 9 and 8 * 8 * 9
        assert parts == ["", "stages.0.0", "stages.1.0.conv1", "stages.1.0.conv2"]
        assert (whole, share) == (1406, 703)

    def test_muon_makes_whole_kernels_orthogonal(self, tmp_path: Path) -> None:
        script = tmp_path / "muon.py"
        script.write_text(MUON)
        end(torchrun(2, script, PYTHONPATH=str(ROOT)))

    def test_a_size_out_of_range_is_refused(self) -> None:
        with pytest.raises(UserError, match=r"min_parameters is 0; allowed is 1 or more"):
            fsdp.FSDP(min_parameters=0)


def go_on_in_shares(whole: Path, root: Path, copy: Path, *more: str) -> Path:
    """Copy a run as it was before its last epoch, and go on with it."""
    run = Path(shutil.copytree(whole, copy))
    folder = run / "checkpoints"
    (folder / "previous.ckpt").replace(folder / "last.ckpt")
    assert last(run)["global_step"] < 12
    words = [*TRAIN, *SHARED, f"--data.root={root}", f"--run_dir={run}", "--ckpt_path=auto", *more]
    end(torchrun(2, "-m", "src.train", "fit", *words))
    return run


def assert_nearly_the_same_run(found: Path, expected: Path) -> None:
    """Compare weights and scores but for their last bits."""
    ours, theirs = last(found)["state_dict"], last(expected)["state_dict"]
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    for one, other in zip(rows(found), rows(expected), strict=True):
        assert float(one["val/loss"]) == pytest.approx(float(other["val/loss"]), rel=1e-4)


def shapes(tensors: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    return {name: (type(x), getattr(x, "shape", None)) for name, x in tensors.items()}


@contextmanager
def imagined_processes(number: int) -> Iterator[None]:
    """Make this process the first of several, whose messages lead nowhere."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=number)
    yield
    torch.distributed.destroy_process_group()
