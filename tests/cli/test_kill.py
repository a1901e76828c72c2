"""A run killed at a moment nobody chose, and gone on with, is the run it would have been."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, tree
from tests.cli.test_fit import RECIPE, assert_same_run
from tests.helpers import ROOT


@pytest.mark.skipif(sys.platform == "win32", reason="not on this system: SIGKILL")
@pytest.mark.parametrize(
    "after", ["epoch 1/", pytest.param("epoch 3/", marks=pytest.mark.campaign)]
)
def test_killed_and_gone_on_with(after: str, cli: Cli, pictures: Path, tmp_path: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *RECIPE, "--trainer.max_epochs=5"]
    assert cli(*words, "--run_dir=whole").code == 0
    killed = tmp_path / "killed"
    program = [sys.executable, "-m", "src.train", *words, f"--run_dir={killed}"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith(after) for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "summary.json").exists()
    resumed = cli(*words, f"--run_dir={killed}", "--ckpt_path=auto")
    assert resumed.code == 0, resumed.err
    assert_same_run(Path("whole"), killed)
    assert not [name for name in tree(killed) if name.endswith(".tmp")]


@pytest.mark.parametrize("kept", [("config.yaml",), ("config.yaml", "samples.csv"), ()])
def test_auto_begins_what_was_killed_at_its_beginning(
    kept: tuple[str, ...], cli: Cli, pictures: Path
) -> None:
    """The files of a beginning are written in this order."""
    words = ["fit", f"--data.root={pictures}", *RECIPE, "--trainer.max_epochs=1", "--run_dir=run"]
    assert cli(*words).code == 0
    written = sorted(path for path in Path("run").iterdir() if path.is_file())
    order = sorted(written, key=lambda path: path.stat().st_mtime_ns)
    assert [path.name for path in order[:3]] == ["config.yaml", "samples.csv", "run.json"]
    shutil.rmtree("run/checkpoints")
    for path in written:
        if path.name not in kept:
            path.unlink()
    assert cli(*words, "--ckpt_path=auto").code == 0
    assert Path("run/summary.json").is_file()


@pytest.mark.parametrize("kept", ["best.ckpt", "last.unused.ckpt", "crash.ckpt"])
def test_auto_writes_over_no_weights(kept: str, cli: Cli, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *RECIPE, "--trainer.max_epochs=1", "--run_dir=run"]
    assert cli(*words).code == 0
    best = Path("run/checkpoints/best.ckpt").rename(f"run/checkpoints/{kept}")
    content = best.read_bytes()
    for name in ("last.ckpt", "previous.ckpt"):
        Path(f"run/checkpoints/{name}").unlink(missing_ok=True)
    ended = cli(*words, "--ckpt_path=auto")
    assert ended.code == 2
    assert f"{kept} lies there, and neither last.ckpt nor previous.ckpt to go on from" in ended.err
    assert best.read_bytes() == content
