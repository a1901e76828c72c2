"""Which checkpoint a run goes on from, whatever has become of the files."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from src.checkpoint import check_belongs, check_goes_on, inside_epoch, read_checkpoint
from src.errors import UserError
from src.loop.checkpoint_io import AtomicCheckpointIO
from src.resume import newest_whole, set_aside
from src.run import RunFolder, write_json


def write(path: Path, step: int, run_id: str = "abc", written_as: str | None = None) -> None:
    """Write a checkpoint as a run does, over nothing."""
    name = written_as or ("last" if path.stem == "previous" else path.stem)
    path.unlink(missing_ok=True)
    content = {
        "state_dict": {"weight": torch.full((4,), float(step))},
        "global_step": step, "run_id": run_id, "written_as": name, "loops": {},
    }  # fmt: skip
    AtomicCheckpointIO().save_checkpoint(content, path)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with last.ckpt after step 20, previous.ckpt after step 10, best.ckpt after step 10."""
    found = RunFolder(tmp_path / "run")
    found.checkpoints.mkdir(parents=True)
    write_json(found.record, {"wandb_id": "abc"})
    for path, step in ((found.last, 20), (found.previous, 10), (found.best, 10)):
        write(path, step)
    return found


def used(folder: RunFolder) -> tuple[str, str]:
    """Return the name of the file that is gone on from, and what is told."""
    path, lines = newest_whole(folder)
    assert path.parent == folder.checkpoints
    assert len(lines) <= 1
    return path.name, " ".join(lines)


class TestNewestWhole:
    def test_is_last_where_nothing_is_wrong(self, folder: RunFolder) -> None:
        assert used(folder) == ("last.ckpt", "")

    def test_is_last_where_it_is_alone(self, folder: RunFolder) -> None:
        folder.previous.unlink()
        assert used(folder) == ("last.ckpt", "")

    def test_is_last_where_both_are_of_one_step(self, folder: RunFolder) -> None:
        write(folder.previous, 20)
        assert used(folder) == ("last.ckpt", "")

    def test_a_damaged_last(self, folder: RunFolder) -> None:
        damage(folder.last)
        size = folder.last.stat().st_size
        assert used(folder) == (
            "previous.ckpt",
            f"{folder.last} ({size:,} bytes) can't be used: its bytes are not those that were "
            "written (checksum).",
        )

    @pytest.mark.parametrize(
        ("length", "reason"), [(0, "it is empty"), (500, "it is not a whole zip archive")]
    )
    def test_a_cut_last(self, folder: RunFolder, length: int, reason: str) -> None:
        folder.last.write_bytes(folder.last.read_bytes()[:length])
        told = f"{folder.last} ({length} bytes) can't be used: {reason}."
        assert used(folder) == ("previous.ckpt", told)

    def test_a_missing_last(self, folder: RunFolder) -> None:
        folder.last.unlink()
        assert used(folder) == ("previous.ckpt", f"{folder.last} is missing.")

    def test_a_damaged_previous_harms_nobody(self, folder: RunFolder) -> None:
        damage(folder.previous)
        assert used(folder) == ("last.ckpt", "")

    @pytest.mark.parametrize("best", [True, False])
    def test_both_damaged(self, folder: RunFolder, best: bool) -> None:
        damage(folder.last)
        folder.previous.write_bytes(b"")
        if not best:
            folder.best.unlink()
        with pytest.raises(UserError) as raised:
            newest_whole(folder)
        size = folder.last.stat().st_size
        text = str(raised.value)
        assert f"{folder.last} ({size:,} bytes) can't be used: its bytes are not those" in text
        assert f"{folder.previous} (0 bytes) can't be used: it is empty." in text
        assert "No checkpoint is left to go on from" in text
        assert "Take another checkpoint with" not in text  # there is none
        assert (f"--init_from {folder.best}" in text) is best

    def test_both_of_another_run(self, folder: RunFolder) -> None:
        write(folder.last, 20, "other")
        write(folder.previous, 10, "other")
        with pytest.raises(UserError, match=r"last\.ckpt .*another run wrote it.*previous\.ckpt"):
            newest_whole(folder)

    @pytest.mark.parametrize("step", [5, 20, 99])
    def test_last_of_another_run(self, folder: RunFolder, step: int) -> None:
        write(folder.last, step, "other")
        name, told = used(folder)
        assert name == "previous.ckpt"
        assert told.endswith("can't be used: another run wrote it.")

    @pytest.mark.parametrize("step", [10, 99])
    def test_best_copied_over_last(self, folder: RunFolder, step: int) -> None:
        write(folder.best, step)
        shutil.copy(folder.best, folder.last)
        name, told = used(folder)
        assert name == "previous.ckpt"
        assert told.endswith("can't be used: it was written as best.ckpt.")

    def test_best_copied_over_previous(self, folder: RunFolder) -> None:
        shutil.copy(folder.best, folder.previous)
        damage(folder.last)
        with pytest.raises(UserError, match=r"previous\.ckpt .* it was written as best\.ckpt"):
            newest_whole(folder)

    def test_a_crash_copied_over_last(self, folder: RunFolder) -> None:
        write(folder.last, 30, written_as="crash")
        name, told = used(folder)
        assert name == "previous.ckpt"
        assert told.endswith("it was written as crash.ckpt.")

    def test_last_and_previous_exchanged(self, folder: RunFolder) -> None:
        aside = folder.path / "aside"
        folder.last.rename(aside)
        folder.previous.rename(folder.last)
        aside.rename(folder.previous)
        assert used(folder) == (
            "previous.ckpt",
            f"{folder.last} is older (step 10) than previous.ckpt (step 20): they were exchanged.",
        )

    def test_previous_copied_over_last(self, folder: RunFolder) -> None:
        """Two equal ones, the newer is gone: the run goes on earlier, and nothing is wrong."""
        shutil.copy(folder.previous, folder.last)
        assert used(folder) == ("last.ckpt", "")

    def test_a_previous_that_is_newer(self, folder: RunFolder) -> None:
        write(folder.previous, 30)
        name, told = used(folder)
        assert name == "previous.ckpt"
        assert "is older (step 20) than previous.ckpt (step 30)" in told

    def test_files_that_name_no_run_are_taken(self, folder: RunFolder) -> None:
        """Written before a checkpoint carried its run, or in a folder without a record."""
        torch.save({"state_dict": {}, "global_step": 40}, folder.last)
        assert used(folder) == ("last.ckpt", "")
        folder.record.unlink()
        write(folder.last, 41, "any")
        assert used(folder) == ("last.ckpt", "")

    def test_objects_are_never_loaded(self, folder: RunFolder, tmp_path: Path) -> None:
        torch.save({"state_dict": {}, "global_step": 40, "x": tmp_path}, folder.last)
        name, told = used(folder)
        assert name == "previous.ckpt"
        assert "more than plain tensors" in told


class TestSetAside:
    def test_a_last_that_can_not_be_used_is_kept_under_another_name(
        self, folder: RunFolder
    ) -> None:
        damage(folder.last)
        content = folder.last.read_bytes()
        set_aside(folder, folder.previous)
        assert (folder.checkpoints / "last.unused.ckpt").read_bytes() == content
        assert folder.last.read_bytes() == folder.previous.read_bytes()
        write(folder.last, 15)  # the next save leaves the whole one alone
        assert read_checkpoint(folder.previous)["global_step"] == 10

    def test_without_hard_links(self, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        damage(folder.last)
        monkeypatch.setattr(os, "link", refused)
        set_aside(folder, folder.previous)
        assert folder.last.read_bytes() == folder.previous.read_bytes()

    def test_a_last_that_is_used_stays(self, folder: RunFolder) -> None:
        before = sorted(folder.checkpoints.iterdir())
        set_aside(folder, folder.last)
        assert sorted(folder.checkpoints.iterdir()) == before

    def test_a_last_that_is_missing_is_no_mistake(self, folder: RunFolder) -> None:
        folder.last.unlink()
        set_aside(folder, folder.previous)
        assert not (folder.checkpoints / "last.unused.ckpt").exists()
        assert folder.last.read_bytes() == folder.previous.read_bytes()


def refused(*_: Any) -> None:
    raise OSError("not supported")


class TestAFolderInTheirPlace:
    @pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt"])
    def test_is_named(self, name: str, folder: RunFolder) -> None:
        (folder.checkpoints / name).unlink()
        (folder.checkpoints / name).mkdir()
        with pytest.raises(UserError, match=rf"{name} is a folder, where a checkpoint belongs"):
            newest_whole(folder)


class TestWhatACheckpointIs:
    def test_belongs_is_asked_of_the_names_that_a_run_gives(self, folder: RunFolder) -> None:
        content = read_checkpoint(folder.last)
        for path in (folder.last, folder.previous, folder.checkpoints / "epoch-3.ckpt"):
            check_belongs(path, content, "abc")
        with pytest.raises(UserError, match=r"best\.ckpt .*: it was written as last\.ckpt"):
            check_belongs(folder.best, content, "abc")

    @pytest.mark.parametrize(
        "content", [{"state_dict": {}}, {"state_dict": {}, "loops": {}, "written_as": "crash"}]
    )
    def test_without_the_state_of_the_loops_no_run_goes_on(self, content: dict[str, Any]) -> None:
        with pytest.raises(UserError, match=r"a\.ckpt holds no state .*--init_from a\.ckpt"):
            check_goes_on(Path("a.ckpt"), content)
        check_goes_on(Path("a.ckpt"), {"loops": {}, "written_as": "best"})

    @pytest.mark.parametrize(("ready", "processed", "inside"), [(3, 2, True), (3, 3, False)])
    def test_inside_an_epoch(self, ready: int, processed: int, inside: bool) -> None:
        current = {"ready": ready, "processed": processed}
        content = {"loops": {"fit_loop": {"epoch_progress": {"current": current}}}}
        assert inside_epoch(content) is inside
