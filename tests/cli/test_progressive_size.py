"""Pictures that grow over a training: their sizes by hand, and what the network then sees."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from callbacks import ProgressiveSize
from callbacks.progressive_size import shrunk
from src.errors import UserError
from tests.cli.conftest import TINY, Cli
from tests.cli.test_fit import assert_same_run
from tests.cli.test_resume import Break, Broken
from tests.test_callbacks import fit


def test_sides_by_hand() -> None:
    grows = ProgressiveSize(start=64, full_from=0.5)
    found = [grows.side(128, epoch, 10) for epoch in range(10)]
    # 64, 76.8, 89.6, 102.4, 115.2 to the nearest of 64, 96 and 128
    assert found == [64, 64, 96, 96, 128, 128, 128, 128, 128, 128]


@pytest.mark.parametrize("full", [64, 100, 129])
def test_the_end_is_the_full_size_and_none_is_larger(full: int) -> None:
    grows = ProgressiveSize(start=96, full_from=0.7)
    found = [grows.side(full, epoch, 7) for epoch in range(7)]
    assert max(found) <= full and found == sorted(found)
    assert found[5:] == [full, full]


def test_shrunk_pixels_are_means() -> None:
    pixels = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    pixels[:, :, ::2] = 200
    small = shrunk(pixels, 2, 3)
    assert (small.dtype, tuple(small.shape)) == (torch.uint8, (2, 2, 3, 3))
    # A triangle of two pixels' width: weights 1, 3, 3, 1 of 8, and inside 200 and 0 take turns.
    assert small[0, :, 1].tolist() == [[100] * 3] * 2
    flat = torch.full((1, 9, 9, 3), 77, dtype=torch.uint8)
    assert shrunk(flat, 4, 4).unique().tolist() == [77]


class Seen(nn.Module):
    """A network that notes the sides it was shown, and in which mode."""

    sides: ClassVar[list[tuple[bool, int]]] = []

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        self.sides.append((self.training, image.shape[1]))
        return self.head(image.float().mean((1, 2)) / 255)


def test_training_pictures_alone_are_shrunk(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_callbacks.Linear", Seen)
    monkeypatch.setattr(Seen, "sides", [])
    monkeypatch.setattr("callbacks.progressive_size._STEP", 8)
    monkeypatch.setattr(ProgressiveSize, "__init__", _small)
    fit(pictures, tmp_path, ProgressiveSize(), max_epochs=4)
    trained = [side for training, side in Seen.sides if training]
    per_epoch = len(trained) // 4
    assert trained[::per_epoch] == [16, 24, 32, 32]  # 16, 24, then all of 32
    assert {side for training, side in Seen.sides if not training} == {32}


def _small(self: Any) -> None:
    self.start, self.full_from = 16, 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 31}, "start of callbacks.ProgressiveSize is 31; allowed is 32 up"),
        ({"full_from": 0.0}, "full_from of callbacks.ProgressiveSize is 0.0; allowed is above 0"),
        ({"full_from": 1.1}, "is 1.1; allowed is above 0 up to 1"),
    ],
)
def test_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ProgressiveSize(**arguments)


@pytest.mark.cli
def test_pictures_that_can_not_grow(cli: Cli, pictures: Path) -> None:
    words = ["--trainer.callbacks+=callbacks.ProgressiveSize", "--trainer.callbacks.start=64"]
    ended = cli("fit", f"--data.root={pictures}", *TINY, *words, "--run_dir=run")
    assert ended.code == 2
    assert "start of callbacks.ProgressiveSize is 64 and the training pictures have 32" in ended.err
    assert not Path("run").exists()


GROWING = [
    "--data.image_size=48",
    "--trainer.callbacks+=callbacks.ProgressiveSize",
    "--trainer.callbacks.start=32",
]


@pytest.mark.cli
@pytest.mark.campaign  # tests/cli/test_resume.py breaks a growing run at more moments
def test_a_resume_goes_on_the_same(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import src.cli

    words = ["fit", f"--data.root={pictures}", *TINY, *GROWING, "--trainer.max_epochs=3"]
    assert cli(*words, "--run_dir=whole").code == 0
    inner = src.cli.loop_callbacks
    with monkeypatch.context() as patch, pytest.raises(Broken):
        patch.setattr(src.cli, "loop_callbacks", lambda *a: [*inner(*a), Break(35)])
        cli(*words, "--run_dir=broken")
    ended = cli(*words, "--run_dir=broken", "--ckpt_path=auto")
    assert ended.code == 0, ended.err
    assert_same_run(Path("whole"), Path("broken"))


@pytest.mark.cli
def test_a_run_does_not_become_longer(cli: Cli, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *TINY, *GROWING, "--run_dir=run"]
    assert cli(*words, "--trainer.max_epochs=1").code == 0
    longer = cli(*words, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert longer.code == 2
    assert "callbacks.ProgressiveSize depends on the number of steps" in longer.err


@pytest.mark.cli
def test_a_run_without_an_end(cli: Cli, pictures: Path) -> None:
    words = ["fit", f"--data.root={pictures}", *TINY, *GROWING, "--trainer.max_steps=3"]
    ended = cli(*words)
    assert ended.code == 2
    assert "needs to know how many epochs there will be" in ended.err
