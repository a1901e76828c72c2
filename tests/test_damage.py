"""Checkpoint files damaged in any way: each is found, none is loaded, nothing whole is lost.

200 damages are tried by `make campaign`, 25 of them in the ordinary tests; a few go through the
real program and end in the bytes of the run that nothing happened to. Which damage comes is drawn
from a fixed seed, so a failure comes again.
"""

import itertools
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src.checkpoint import read_checkpoint
from src.errors import UserError
from src.loop.checkpoint_io import AtomicCheckpointIO
from src.resume import set_aside
from src.run import RunFolder
from src.run_rules import plan_command
from src.sameness import compare_runs
from src.train import main
from tests.cli.conftest import make_pictures
from tests.cli.test_fit import RECIPE

NUM_CAMPAIGN, NUM_BOUNDED = 200, 25
FILES = ("last.ckpt", "previous.ckpt", "best.ckpt")


@dataclass(frozen=True)
class Runs:
    """Run folders of two epochs; tests must not write into them."""

    run: Path
    other: Path  # the same but for its seed
    whole: Path  # the same with a third epoch
    words: list[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    above = tmp_path_factory.mktemp("damage")
    root = make_pictures(above / "pictures", {"train": 20})
    words = ["fit", f"--data.root={root}", *RECIPE, "--checkpoint_every_steps=3"]
    made = Runs(above / "run", above / "other", above / "whole", words)
    # 5 steps an epoch: last.ckpt after 3, 5, 8 and 10, so that previous.ckpt lies in an epoch
    for path, more in (
        (made.run, ["--trainer.max_epochs=2"]),
        (made.other, ["--trainer.max_epochs=2", "--seed_everything=1"]),
        (made.whole, ["--trainer.max_epochs=3"]),
    ):
        assert main([*words, f"--run_dir={path}", *more]) == 0
    steps = {
        name: read_checkpoint(made.run / "checkpoints" / name)["global_step"] for name in FILES
    }
    assert (steps["last.ckpt"], steps["previous.ckpt"]) == (10, 8)
    return made


# ---------------------------------------------------------------------------------------------
# The damages: from the bytes of a file to other bytes

Rng = random.Random
Change = Callable[[Rng, bytes], bytes]


def cut(rng: Rng, content: bytes) -> bytes:
    return content[: rng.randrange(1, len(content))]


def empty(rng: Rng, content: bytes) -> bytes:
    return b""


def flip(rng: Rng, content: bytes) -> bytes:
    """Turn one to eight bits round, each at another place."""
    found = bytearray(content)
    for place in rng.sample(range(len(content)), rng.randint(1, 8)):
        found[place] ^= 1 << rng.randrange(8)
    return bytes(found)


def hole(rng: Rng, content: bytes) -> bytes:
    """Put zeros where a block was, as a file system does after a power cut."""
    size = rng.choice([16, 512, 4096])
    starts = [s for s in range(0, len(content), size) if any(content[s : s + size])]
    start = rng.choice(starts)
    zeros = bytes(min(size, len(content) - start))
    return content[:start] + zeros + content[start + size :]


def exchange(rng: Rng, content: bytes) -> bytes:
    """Exchange two blocks that differ, at any places."""
    size = rng.choice([1, 4, 64, 512, 4096])
    while True:
        one, two = sorted(rng.sample(range(len(content) // size), 2))
        a, b = content[one * size :][:size], content[two * size :][:size]
        if a != b:
            between = content[(one + 1) * size : two * size]
            return content[: one * size] + b + between + a + content[(two + 1) * size :]


def noise(rng: Rng, content: bytes) -> bytes:
    return rng.randbytes(len(content))


CHANGES: dict[str, Change] = {
    "cut": cut, "empty": empty, "flip": flip, "hole": hole, "exchange": exchange, "noise": noise,
}  # fmt: skip
SWAPS = (
    *("other's last", "other's previous", "other's best"),
    *("best over last", "missing", "last and previous exchanged"),
)
# Bits and blocks come more often: there is only one way to be empty.
KINDS = (*CHANGES, *SWAPS, "cut", "flip", "flip", "hole", "exchange")


def damage(kind: str, rng: Rng, checkpoints: Path, runs: Runs, name: str = "last.ckpt") -> None:
    """Damage a file of a copied run."""
    target = checkpoints / name
    if kind in CHANGES:
        whole = target.read_bytes()
        target.write_bytes(CHANGES[kind](rng, whole))
        assert target.read_bytes() != whole
    elif kind.startswith("other's"):
        shutil.copy(runs.other / "checkpoints" / f"{kind.split()[1]}.ckpt", target)
    elif kind == "best over last":
        shutil.copy(checkpoints / "best.ckpt", target)
    elif kind == "missing":
        target.unlink()
    else:
        aside = checkpoints / "aside"
        target.rename(aside)
        (checkpoints / "previous.ckpt").rename(target)
        aside.rename(checkpoints / "previous.ckpt")


def copied(runs: Runs, folder: Path) -> RunFolder:
    """Return a copy of what a resume reads of the run."""
    shutil.copytree(runs.run, folder)
    return RunFolder(folder)


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.checkpoints.iterdir()}


def plan(folder: RunFolder, name: str = "last") -> Any:
    options = SimpleNamespace(
        run_dir=str(folder.path), ckpt_path=name, trainer=SimpleNamespace(fast_dev_run=False)
    )
    return plan_command("fit", options, {})


# ---------------------------------------------------------------------------------------------
# In process


def try_one(number: int, runs: Runs, folder: RunFolder, loaded: list[str]) -> str:
    """Damage last.ckpt in the n-th way; return its kind."""
    rng = random.Random(f"damage {number}")
    kind = KINDS[number % len(KINDS)]
    damage(kind, rng, folder.checkpoints, runs)
    before = contents(folder)
    loaded.clear()
    found = plan(folder, rng.choice(["last", "auto"]))
    # found, and told with the name of the file
    assert found.resumes
    assert found.checkpoint == folder.previous
    assert len(found.damage) == 1
    assert str(folder.last) in found.damage[0]
    # the newest that is whole, and no byte of what is damaged was unpickled
    newest = 10 if "exchanged" in kind else 8
    assert read_checkpoint(found.checkpoint)["global_step"] == newest
    if kind in CHANGES:
        assert "last.ckpt" not in loaded
    # planning changes nothing; what is set aside is all there
    assert contents(folder) == before
    set_aside(folder, found.checkpoint)
    after = contents(folder)
    if "last.ckpt" in before:
        before["last.unused.ckpt"] = before.pop("last.ckpt")
    before["last.ckpt"] = before["previous.ckpt"]
    assert after == before
    # and stays there when the run saves again
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, folder.last)
    assert {**contents(folder), "last.ckpt": b""} == {**before, "last.ckpt": b""}
    return kind


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that torch.load was given."""
    names: list[str] = []
    load = torch.load

    def noting(path: Path, *args: Any, **options: Any) -> Any:
        names.append(Path(path).name)
        return load(path, *args, **options)

    monkeypatch.setattr(torch, "load", noting)
    return names


def try_many(numbers: range, runs: Runs, tmp_path: Path, loaded: list[str]) -> None:
    tried = set()
    for number in numbers:
        folder = copied(runs, tmp_path / str(number))
        try:
            tried.add(try_one(number, runs, folder, loaded))
        except AssertionError as error:
            raise AssertionError(f"damage {number}, {KINDS[number % len(KINDS)]}") from error
        shutil.rmtree(folder.path)
    assert tried == set(KINDS)


def test_a_whole_run_has_no_damage(runs: Runs, tmp_path: Path, loaded: list[str]) -> None:
    found = plan(copied(runs, tmp_path / "run"))
    assert (found.checkpoint.name, found.damage) == ("last.ckpt", ())
    assert loaded == ["last.ckpt", "previous.ckpt"]


def test_damages(runs: Runs, tmp_path: Path, loaded: list[str]) -> None:
    try_many(range(NUM_BOUNDED), runs, tmp_path, loaded)


@pytest.mark.campaign
def test_many_damages(runs: Runs, tmp_path: Path, loaded: list[str]) -> None:
    try_many(range(NUM_CAMPAIGN), runs, tmp_path, loaded)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_damaged_previous_is_passed_over(kind: str, runs: Runs, tmp_path: Path) -> None:
    folder = copied(runs, tmp_path / "run")
    damage(kind, random.Random(kind), folder.checkpoints, runs, "previous.ckpt")
    before = contents(folder)
    found = plan(folder)
    assert (found.checkpoint, found.damage) == (folder.last, ())
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.combinations(["cut", "empty", "flip", "other's last"], 2))
)
def test_where_both_are_damaged_both_are_named(
    one: str, other: str, runs: Runs, tmp_path: Path
) -> None:
    folder = copied(runs, tmp_path / "run")
    rng = random.Random(f"{one} {other}")
    damage(one, rng, folder.checkpoints, runs)
    damage(other, rng, folder.checkpoints, runs, "previous.ckpt")
    before = contents(folder)
    with pytest.raises(UserError, match=r"(?s)last\.ckpt .* bytes\) .*previous\.ckpt .* bytes\) "):
        plan(folder)
    assert contents(folder) == before


# ---------------------------------------------------------------------------------------------
# Through the real program


def go_on(kind: str, runs: Runs, folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Damage last.ckpt, go on with a third epoch, and compare with the run of three epochs."""
    damage(kind, random.Random(kind), folder.checkpoints, runs)
    before = contents(folder)
    words = [*runs.words, f"--run_dir={folder.path}", "--ckpt_path=last", "--trainer.max_epochs=3"]
    capsys.readouterr()
    code = main(words)
    err = capsys.readouterr().err
    assert code == 0, err
    assert f"WARNING: {folder.last} " in err
    assert "Going on from previous.ckpt." in err
    aside = folder.checkpoints / "last.unused.ckpt"
    assert (aside.read_bytes() if aside.exists() else None) == before.get("last.ckpt")
    assert compare_runs(RunFolder(runs.whole), folder).different == ()
    assert set(contents(folder)) == {*FILES, *([aside.name] if "last.ckpt" in before else [])}
    assert read_checkpoint(folder.previous)["global_step"] < 15  # whole, and the one before


@pytest.mark.parametrize("kind", ["flip", "other's last", "last and previous exchanged"])
def test_the_program_goes_on_from_the_one_before(
    kind: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on(kind, runs, copied(runs, tmp_path / "run"), capsys)


@pytest.mark.campaign
@pytest.mark.parametrize("kind", dict.fromkeys(KINDS))
def test_the_program_goes_on_after_every_kind(
    kind: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on(kind, runs, copied(runs, tmp_path / "run"), capsys)


def test_the_program_refuses_where_both_are_damaged(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(runs, tmp_path / "run")
    for name in ("last.ckpt", "previous.ckpt"):
        damage("flip", random.Random(name), folder.checkpoints, runs, name)
    before = {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()}
    for name in ("last", "auto"):  # auto starts no new run over one that is there
        code = main([*runs.words, f"--run_dir={folder.path}", f"--ckpt_path={name}"])
        err = capsys.readouterr().err
        assert (code, "Traceback" in err) == (2, False), err
        assert f"--init_from {folder.best}" in err
    assert {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()} == before
