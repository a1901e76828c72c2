"""Checkpoint files are whole or not there."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from src import seal
from src.errors import UserError
from src.loop.checkpoint_io import AtomicCheckpointIO
from src.loop.checkpoints import Checkpoints
from tests.loop.helpers import KilledError, StubTrainer, module


def save(path: Path, value: int) -> None:
    content = {"state_dict": {}, "value": torch.tensor(value)}
    AtomicCheckpointIO().save_checkpoint(content, path)


def value_of(path: Path) -> int:
    """Return what `save` was given; the file must be whole."""
    assert seal.fault(path) is None
    return int(AtomicCheckpointIO().load_checkpoint(path)["value"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestAtomicCheckpointIO:
    def test_round_trip(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "best.ckpt"
        for value in (1, 2):
            save(path, value)
            assert value_of(path) == value
        assert names(path.parent) == ["best.ckpt"]

    def test_the_last_before_is_kept(self, tmp_path: Path) -> None:
        for value in (1, 2, 3):
            save(tmp_path / "last.ckpt", value)
        assert value_of(tmp_path / "last.ckpt") == 3
        assert value_of(tmp_path / "previous.ckpt") == 2
        assert names(tmp_path) == ["last.ckpt", "previous.ckpt"]

    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
    def test_without_hard_links_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        asked = []

        def link(source: Path, target: Path) -> None:
            asked.append(source)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", link)
        self.test_the_last_before_is_kept(tmp_path)
        assert len(asked) == 2

    def test_only_plain_data_come_back(self, tmp_path: Path) -> None:
        torch.save({"state_dict": tmp_path}, tmp_path / "a.ckpt")
        for weights_only in (None, True, False):
            with pytest.raises(UserError, match="more than plain tensors"):
                AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt", None, weights_only)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with last.ckpt (2) and previous.ckpt (1)."""
    for value in (1, 2):
        save(tmp_path / "last.ckpt", value)
    return tmp_path


class TestAFailedWrite:
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KilledError()])
    def test_in_the_middle_leaves_the_old_files(
        self, two: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        before = {path.name: path.read_bytes() for path in two.iterdir()}

        def half(content: Any, file: Any) -> None:
            file.write(b"half of it")
            file.flush()
            assert (two / "last.ckpt").read_bytes() == before["last.ckpt"]  # never half written
            raise error

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(type(error)):
            save(two / "last.ckpt", 3)
        assert {path.name: path.read_bytes() for path in two.iterdir()} == before

    def test_before_the_first_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(content: Any, file: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path / "last.ckpt", 1)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("behind", [False, True], ids=["no reason", "a full disk"])
    def test_that_torch_reports_in_its_own_way_is_an_oserror(
        self, two: Path, monkeypatch: pytest.MonkeyPatch, behind: bool
    ) -> None:
        def fail(content: Any, file: Any) -> None:
            try:
                raise OSError(28, "No space left on device") if behind else KeyError
            except (OSError, KeyError):
                raise RuntimeError("PytorchStreamWriter failed writing file data/0")  # noqa: B904

        monkeypatch.setattr(torch, "save", fail)
        match = "No space left on device" if behind else "torch can't write it: PytorchStreamWriter"
        with pytest.raises(OSError, match=match):
            save(two / "last.ckpt", 3)
        assert (value_of(two / "last.ckpt"), names(two)) == (2, ["last.ckpt", "previous.ckpt"])

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="not on this system: /dev/full")
    def test_on_a_disk_that_is_really_full(
        self, two: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """torch's own writer meets the error, in the middle of the tensors."""
        big = {"state_dict": {}, "value": torch.zeros(1 << 20)}
        opened = Path.open
        monkeypatch.setattr(
            Path,
            "open",
            lambda self, *a: opened(Path("/dev/full") if self.name.endswith(".tmp") else self, *a),
        )
        with pytest.raises(OSError, match=r"No space left|torch can't write it"):
            AtomicCheckpointIO().save_checkpoint(big, two / "last.ckpt")
        monkeypatch.undo()
        assert (value_of(two / "last.ckpt"), names(two)) == (2, ["last.ckpt", "previous.ckpt"])


def die_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> list[str]:
    """Let the process be killed before the n-th change of a name; nothing is tidied up then.

    Returns:
        The changes that were made.
    """
    made: list[str] = []

    def guarded(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if name == "unlink" and len(made) >= moment:
                return None  # a process that is gone removes nothing
            if name != "unlink":
                if len(made) >= moment:
                    raise KilledError
                made.append(f"{name} {Path(args[1]).name}")
            return function(*args, **options)

        return call

    monkeypatch.setattr(os, "link", guarded("link", os.link))
    monkeypatch.setattr(Path, "replace", guarded("replace", Path.replace))
    monkeypatch.setattr(Path, "unlink", guarded("unlink", Path.unlink))
    return made


class TestAKillBetweenTheRenames:
    @pytest.mark.parametrize(
        ("moment", "last", "previous"), [(0, 2, 1), (1, 2, 1), (2, 2, 2), (3, 3, 2)]
    )
    def test_leaves_two_that_are_whole(
        self, two: Path, monkeypatch: pytest.MonkeyPatch, moment: int, last: int, previous: int
    ) -> None:
        """A link beside previous.ckpt, the link takes its name, the new file takes that of last."""
        with monkeypatch.context() as patch:
            made = die_at(patch, moment)
            if moment < 3:
                with pytest.raises(KilledError):
                    save(two / "last.ckpt", 3)
            else:
                save(two / "last.ckpt", 3)
        kinds = ["link", "replace previous.ckpt", "replace last.ckpt"]
        assert len(made) == moment
        assert all(one.startswith(kind) for one, kind in zip(made, kinds, strict=False))
        assert value_of(two / "last.ckpt") == last
        assert value_of(two / "previous.ckpt") == previous

    def test_leaves_the_one_before_where_there_are_no_hard_links(
        self, two: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def link(*_: Any) -> None:
            raise OSError(errno.EPERM, "no hard links")

        with monkeypatch.context() as patch:
            made = die_at(patch, 1)
            patch.setattr(os, "link", link)
            with pytest.raises(KilledError):
                save(two / "last.ckpt", 3)
        assert made == ["replace previous.ckpt"]
        assert not (two / "last.ckpt").exists()
        assert value_of(two / "previous.ckpt") == 2

    @pytest.mark.parametrize("moment", [0, 1, 2])
    def test_its_rest_is_swept_at_the_next_start(
        self, two: Path, monkeypatch: pytest.MonkeyPatch, moment: int
    ) -> None:
        with monkeypatch.context() as patch:
            die_at(patch, moment)
            with pytest.raises(KilledError):
                save(two / "last.ckpt", 3)
        assert [name for name in names(two) if name.endswith(".tmp")]
        trainer: Any = StubTrainer()
        Checkpoints(two).on_train_start(trainer, module())
        assert names(two) == ["last.ckpt", "previous.ckpt"]


class TestTheNewName:
    def test_a_file_takes_it_when_it_is_whole_and_sealed(
        self, two: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def crash(source: Path, target: Path) -> None:
            assert source.parent == target.parent  # so that the rename is one step
            if target.name == "last.ckpt":
                assert value_of(source) == 3
                assert seal._MARK in source.read_bytes()
                raise KilledError
            replace(source, target)

        replace = Path.replace
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", crash)
            with pytest.raises(KilledError):
                save(two / "last.ckpt", 3)
        assert value_of(two / "last.ckpt") == 2

    @pytest.mark.skipif(os.name != "posix", reason="not on this system: folders can't be synced")
    def test_a_file_is_on_the_disk_before_it_takes_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, sync = tmp_path / "last.ckpt", os.fsync
        synced: list[bool] = []

        def note(handle: int) -> None:
            synced.append(path.exists())
            sync(handle)

        monkeypatch.setattr(os, "fsync", note)
        save(path, 1)
        assert synced == [False, True]  # the file, then the folder with its new name
