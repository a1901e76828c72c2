"""Class weights in the program: counted anew in each sitting, and in no checkpoint."""

from pathlib import Path

import pytest
import torch

from tests.cli.conftest import TINY, Cli, make_pictures
from tests.cli.test_resume import assert_same


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six ants and two bugs to train on, one of each to validate on and to test."""
    parts = {"train": 6, "val": 1, "test": 1}
    root = make_pictures(tmp_path_factory.mktemp("uneven"), parts)
    for number in range(2, 6):
        (root / f"train/bug/{number}.png").unlink()
    return root


def test_a_checkpoint_holds_no_weights_and_a_run_goes_on_with_the_same(
    cli: Cli, uneven: Path
) -> None:
    words = ["fit", f"--data.root={uneven}", *TINY, "--model.class_weights=balanced"]
    words += ["--model.optimizer.momentum=0.9", "--data.batch_size=2"]
    assert cli(*words, "--run_dir=whole", "--trainer.max_epochs=2").code == 0
    assert cli(*words, "--run_dir=parts", "--trainer.max_epochs=1").code == 0
    goes_on = ("--ckpt_path=last", "--trainer.max_epochs=2")
    assert cli("fit", "--run_dir=parts", *goes_on).code == 0
    assert_same(Path("whole"), Path("parts"))
    content = torch.load("whole/checkpoints/best.ckpt", weights_only=True)
    assert not [name for name in content["state_dict"] if name.startswith("loss")]
    assert cli("test", "--run_dir=whole").code == 0
    changed = cli("fit", "--run_dir=parts", *goes_on, "--model.class_weights=[1.5, 2.5]")
    assert changed.code == 2
    assert "model.class_weights is [1.5, 2.5] and was 'balanced'" in changed.err


def test_weights_and_sampling_at_once(cli: Cli, uneven: Path) -> None:
    words = [f"--data.root={uneven}", *TINY, "--model.class_weights=balanced"]
    ended = cli("fit", *words, "--run_dir=run", "--data.sampling=balanced")
    assert ended.code == 2
    assert "model.class_weights and data.sampling are both balanced" in ended.err
    assert not Path("run").exists()
