"""What fit says of pictures under two labels or in two splits, and what an audit adds to it."""

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src import audit
from src.data.insects import draw
from tests.cli.conftest import TINY, Cli, Ended, tree
from tests.test_ddp import DDP, end, kill, start

EPOCH = [*TINY, "--trainer.max_epochs=1"]


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    """A root with 8 pictures of each class to train on and 2 to test."""
    for split, count in (("train", 8), ("test", 2)):
        for name in ("bee", "wasp"):
            folder = tmp_path / "my data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels, _ = draw(77, split, name, number + 1, 64)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "my data"


def fit(cli: Cli, root: Path, *words: str) -> Ended:
    return cli("fit", "--data.root", root, "--run_dir=run", *EPOCH, *words)


def darker(source: Path, target: Path, levels: int) -> None:
    """Save a near copy, of which no other test has told the cache."""
    pixels = np.asarray(Image.open(source).convert("RGB"), np.int16) - levels
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target)


class TestKnownAtOnce:
    def test_a_leak_is_told(self, cli: Cli, insects: Path) -> None:
        shutil.copy(insects / "train/bee/0.png", insects / "test/bee/again.png")
        ended = fit(cli, insects)
        assert ended.code == 0
        (line,) = (line for line in ended.err.splitlines() if line.startswith("WARNING: 1 gro"))
        assert line == (
            "WARNING: 1 group of copies (2 pictures) lies in several splits of this run, so that a "
            "score counts pictures trained on: test/bee/again.png, train/bee/0.png. "
            f'See those of the data: python -m src.audit --data.root "{insects}"'
        )

    def test_a_leak_is_refused(self, cli: Cli, insects: Path) -> None:
        shutil.copy(insects / "train/bee/0.png", insects / "test/bee/again.png")
        shutil.copy(insects / "train/bee/1.png", insects / "train/wasp/again.png")
        for name in ("too.png", "three.png"):
            shutil.copy(insects / "train/bee/2.png", insects / "train/wasp" / name)
        ended = fit(cli, insects, "--data.on_leak=error")
        assert ended.code == 2
        assert ended.err.startswith(
            "error: 2 groups of copies (5 pictures) lie under several labels: train/bee/1.png, "
            "train/wasp/again.png for one. 1 group of copies (2 pictures) lies in several splits"
        )
        assert ended.err.rstrip().endswith(
            "and leave them out by its --fix, or train all the same with --data.on_leak warn."
        )
        assert not Path("run").exists()

    def test_duplicates_are_no_fault(self, cli: Cli, insects: Path) -> None:
        shutil.copy(insects / "train/bee/0.png", insects / "train/bee/again.png")
        assert fit(cli, insects, "--data.on_leak=error").code == 0

    def test_what_is_allowed(self, cli: Cli, insects: Path) -> None:
        ended = fit(cli, insects, "--data.on_leak=eror")
        assert ended.code == 2
        assert ended.err.rstrip().endswith("--data.on_leak is 'eror'; expected is 'error', 'warn'")


@pytest.mark.slow
def test_a_leak_ends_each_of_several_processes(insects: Path, tmp_path: Path) -> None:
    """Without a launcher, which would end the others when one has failed."""
    shutil.copy(insects / "train/bee/0.png", insects / "test/bee/again.png")
    words = [f"--data.root={insects}", f"--run_dir={tmp_path / 'run'}", *EPOCH, *DDP]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    both = [
        start("-m", "src.train", "fit", *words, "--data.on_leak=error", **shared, **ranks)
        for ranks in ({"RANK": "0", "LOCAL_RANK": "0"}, {"RANK": "1", "LOCAL_RANK": "1"})
    ]
    try:
        errors = [end(started, code=2)[1] for started in both]
    finally:
        kill(*both)
    for err in errors:
        (line,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert "lies in several splits" in line
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


class TestKnownAfterAnAudit:
    def test_near_copies(self, cli: Cli, insects: Path) -> None:
        darker(insects / "train/bee/0.png", insects / "test/bee/darker.png", levels=7)
        ended = fit(cli, insects, "--data.on_leak=error")
        assert ended.code == 0
        assert "several splits" not in ended.err
        assert audit.main(["--data.root", str(insects), "--fix", "left.csv"]) == 1
        shutil.rmtree("run")
        refused = fit(cli, insects, "--data.on_leak=error")
        assert refused.code == 2
        assert "test/bee/darker.png, train/bee/0.png" in refused.err
        assert fit(cli, Path("left.csv"), "--data.on_leak=error").code == 0
        assert audit.main(["--data.root", "left.csv"]) == 0

    def test_the_audit_leaves_the_data_alone(self, cli: Cli, insects: Path) -> None:
        before = tree(insects)
        assert audit.main(["--data.root", str(insects)]) == 0
        assert tree(insects) == before
