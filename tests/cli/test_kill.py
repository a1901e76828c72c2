"""A run killed at a moment nobody chose, and gone on with, is the run it would have been."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, tree
from tests.cli.test_fit import RECIPE, assert_same_run
from tests.helpers import ROOT


@pytest.mark.skipif(sys.platform == "win32", reason="not on this system: SIGKILL")
@pytest.mark.parametrize("after", ["epoch 1/", "epoch 3/"])
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
