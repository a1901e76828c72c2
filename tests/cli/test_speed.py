"""What makes a run fast changes no byte of it: sizes in the cache, the number of workers."""

import re
from pathlib import Path

import pytest

from src import hardware, pace, settling
from src.data.datamodule import DataModule
from src.pace import Pace
from tests.cli.conftest import TINY, Cli
from tests.cli.test_fit import RECIPE, assert_same_run

LINE = (
    r"data\.num_workers: (\d+), since 8 pictures take .* [\d.]+ ms to make and [\d.]+ ms to learn"
)


def test_a_run_with_sizes_of_its_own(cli: Cli, pictures: Path) -> None:
    """The cache, the number of workers and a resume change no byte of it."""
    words = [
        "fit",
        f"--data.root={pictures}",
        *RECIPE,
        "--data.resize=crop",
        "--data.cache_size=40",
    ]
    crop = "{class_path: albumentations.RandomCrop, init_args: {height: 32, width: 32}}"
    words += [f"--data.augment=[{crop}]"]
    assert cli(*words, "--run_dir=a", "--trainer.max_epochs=2").code == 0
    assert cli(*words, "--run_dir=b", "--trainer.max_epochs=2", "--data.cache=false").code == 0
    assert_same_run(Path("a"), Path("b"))
    more = ("--checkpoint_every_steps=3", "--trainer.max_epochs=1", "--data.num_workers=2")
    assert cli(*words, "--run_dir=c", *more).code == 0
    ended = cli(*words, "--run_dir=c", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    assert_same_run(Path("a"), Path("c"))
    refused = cli(*words, "--run_dir=a", "--ckpt_path=last", "--data.cache_size=48")
    assert refused.code == 2
    assert "cache_size" in refused.err
    assert cli("test", "--run_dir=a").code == 0


def test_freed_memory_is_kept_when_the_pictures_have_been_looked_at(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that, the threads that decode would keep theirs through the whole training."""
    done: list[str] = []
    look = DataModule.prepare

    def noted(self: DataModule, command: str) -> None:
        look(self, command)
        done.append(command)

    monkeypatch.setattr(DataModule, "prepare", noted)
    for module in ("cli", "scoring"):
        monkeypatch.setattr(f"src.{module}.keep_freed_memory", lambda: done.append("kept"))
    assert cli("fit", f"--data.root={pictures}", *TINY, "--run_dir=run").code == 0
    assert done[:2] == ["fit", "kept"]
    done.clear()
    assert cli("test", "--run_dir=run").code == 0
    assert done[:2] == ["test", "kept"]


class TestWorkers:
    def test_auto_measures_and_says_so(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pace, "SECONDS", 0.01)
        words = ["fit", f"--data.root={pictures}", *TINY, "--trainer.max_epochs=1"]
        words += ["--data.augment=[{class_path: albumentations.HorizontalFlip}]"]
        ended = cli(*words, "--run_dir=run", "--data.num_workers=auto")
        assert ended.code == 0
        assert re.search(LINE, ended.out)
        assert "num_workers: auto" in Path("run/config.yaml").read_text()
        assert cli("test", "--run_dir=run").code == 0

    def test_what_was_measured_is_what_is_used(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        monkeypatch.setattr(settling, "measure", lambda *_: Pace(0.8, 1.0, True, worker=1.5))
        monkeypatch.setattr(settling, "own_cores", lambda _: 2)
        monkeypatch.setattr("src.data.loader.start_method", lambda: asked.append(1) or "fork")
        words = ["fit", f"--data.root={pictures}", *TINY, "--trainer.max_epochs=1"]
        flip = "[{class_path: albumentations.HorizontalFlip}]"
        ended = cli(*words, "--run_dir=run", "--data.num_workers=auto", f"--data.augment={flip}")
        assert ended.code == 0
        said = "data.num_workers: 2, since 8 pictures take one worker 1500.0 ms to make"
        assert said in ended.out
        assert len(asked) == 1  # the training's loader alone: the others decode nothing
        assert cli(*words, "--run_dir=none", f"--data.augment={flip}").code == 0
        assert_same_run(Path("run"), Path("none"))

    def test_nothing_to_do_is_not_measured(
        self, cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(settling, "measure", lambda *_: pytest.fail("it was measured"))
        words = ["fit", f"--data.root={pictures}", *TINY, "--trainer.max_epochs=1"]
        ended = cli(*words, "--run_dir=run", "--data.num_workers=auto")
        assert ended.code == 0
        assert "data.num_workers: 0, since nothing is decoded or augmented" in ended.out

    def test_a_trial_run_does_not_measure(self, cli: Cli, pictures: Path) -> None:
        words = ["fit", f"--data.root={pictures}", *TINY, "--trainer.fast_dev_run=true"]
        ended = cli(*words, "--data.num_workers=auto")
        assert ended.code == 0
        assert "num_workers" not in ended.out

    def test_another_word(self, cli: Cli, pictures: Path) -> None:
        ended = cli("fit", f"--data.root={pictures}", *TINY, "--data.num_workers=many")
        assert ended.code == 2
        assert re.search(r"data\.num_workers.*'?auto'?", ended.err, re.S)


@pytest.mark.parametrize(("precision", "told"), [("bf16-mixed", True), ("32-true", False)])
def test_a_precision_that_this_processor_emulates_is_told(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch, precision: str, told: bool
) -> None:
    monkeypatch.setattr(hardware, "has_avx512", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    words = ["fit", f"--data.root={pictures}", *TINY, "--trainer.fast_dev_run=true"]
    ended = cli(*words, f"--trainer.precision={precision}")
    assert ended.code == 0, ended.err
    match = "WARNING: --trainer.precision bf16-mixed: this processor has no AVX-512"
    assert (match in ended.err) == told
