"""A small data set, a tiny network, and the real program called in process."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.train import main
from tests.helpers import require_module

# Lightning's log handler keeps the stream of the first test, which is closed in the next.
logging.raiseExceptions = False

SIZE = 32
TINY = [
    "--model.net=src.models.SmallResNet",
    "--model.net.widths=[4,8]",
    "--model.net.blocks=[1,1]",
    "--model.net.stem_width=4",
    f"--data.image_size={SIZE}",
    "--data.batch_size=8",
    "--model.optimizer.lr=0.05",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
]


def draw(path: Path, hue: int, seed: int) -> None:
    """Write a noisy picture in which one channel is bright."""
    pixels = np.random.default_rng(seed).integers(0, 120, (SIZE, SIZE, 3)).astype(np.uint8)
    pixels[..., hue] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_pictures(
    root: Path, parts: dict[str, int], classes: tuple[str, ...] = ("ant", "bug")
) -> Path:
    """Write `parts[part]` pictures of each class under root/part/class (part "" is the root)."""
    for number, (part, count) in enumerate(parts.items()):
        for hue, name in enumerate(classes):
            for i in range(count):
                draw(root / part / name / f"{i}.png", hue, 10_000 * number + 100 * hue + i)
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cli")


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.rstrip().splitlines()[-1]


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the program in an empty folder of its own and return how it ended."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with train and test folders, 20 and 7 pictures a class."""
    return make_pictures(tmp_path_factory.mktemp("pictures"), {"train": 20, "test": 7})


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of two epochs; tests must not write into it."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    words = ["fit", f"--data.root={pictures}", f"--run_dir={folder}", *TINY]
    assert main([*words, "--trainer.max_epochs=2"]) == 0
    return folder


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of that run with all its models; tests must not write into it."""
    from src.export import main as export

    for name in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
        require_module(name)
    out = tmp_path_factory.mktemp("bundles") / "a bundle"
    assert export([str(trained), f"--out={out}", "--fp16", "--int8"]) == 0
    return out


def tree(folder: Path) -> set[str]:
    """Return the paths of all files below a folder."""
    return {
        os.path.relpath(os.path.join(above, name), folder)
        for above, _, names in os.walk(folder)
        for name in names
    }
