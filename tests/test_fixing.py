"""Which pictures an audit leaves, and the CSV that names them."""

import os
from pathlib import Path

import pytest

from src.data.findings import Copies, Findings, Group
from src.data.fixing import left_over, write_fixed
from src.data.index import list_data
from src.errors import UserError

LABELS = ("bee", "bee", "bee", "wasp", "bee", "wasp")
SPLITS = ("train", "train", "test", "train", "val", "test")
SIZES = ((10, 10), (30, 20), (5, 5), (9, 9), (9, 9), (9, 9))


def findings(**groups: list[tuple[int, ...]]) -> Findings:
    copies = {name: tuple(Group(m, "near") for m in found) for name, found in groups.items()}
    return Findings(tuple("abcdef"), LABELS, SPLITS, copies=Copies(**copies))


class TestLeftOver:
    @pytest.mark.parametrize(
        ("groups", "gone"),
        [
            ({}, []),
            ({"conflicts": [(0, 3)]}, [0, 3]),  # which label is right, nobody knows
            ({"duplicates": [(0, 1)]}, [0]),  # the larger one stays
            ({"duplicates": [(3, 5)]}, [3]),  # by split first
            ({"leaks": [(0, 1, 2)]}, [0, 1]),  # what is not trained on stays
            ({"leaks": [(1, 4)]}, [1]),
            ({"leaks": [(2, 4)]}, [4]),
            ({"conflicts": [(0, 3)], "duplicates": [(0, 1)]}, [0, 3]),  # 1 may stay
            ({"conflicts": [(2, 3)], "leaks": [(0, 1, 2)]}, [0, 2, 3]),
            ({"leaks": [(0, 1, 2)], "duplicates": [(0, 1)]}, [0, 1]),
            ({"conflicts": [(0, 1, 2, 3)], "leaks": [(0, 1, 2, 3)]}, [0, 1, 2, 3]),
        ],
    )
    def test_positions(self, groups: dict[str, list[tuple[int, ...]]], gone: list[int]) -> None:
        kept = left_over(findings(**groups), SIZES, lambda i: i)
        assert kept == [i for i in range(6) if i not in gone]

    def test_equal_sizes_the_first_stays(self) -> None:
        found = Findings(
            ("a", "b"), ("x", "x"), ("", ""), copies=Copies((), (), (Group((0, 1), "exact"),))
        )
        assert left_over(found, [(4, 4), (4, 4)], lambda i: 9) == [0]

    def test_a_copy_stored_with_less_goes(self, tmp_path: Path) -> None:
        """Of as many pixels; of a picture that is gone by now nothing is known."""
        (tmp_path / "a").write_bytes(b"poor")
        (tmp_path / "b").write_bytes(b"the original")
        found = Findings(
            tuple("abc"),
            tuple("xxx"),
            ("",) * 3,
            copies=Copies((), (), (Group((0, 1, 2), "near"),)),
        )
        assert write_fixed(tmp_path / "l.csv", tmp_path, found, [(4, 4)] * 3) == [1]


class TestWritten:
    def tree(self, root: Path, *names: str) -> Findings:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"a picture")
        return Findings(names, tuple(name.split("/")[0] for name in names), ("",) * len(names))

    def test_is_read_back(self, tmp_path: Path) -> None:
        names = ('x/a,"b".png', "x/line\nbreak\r.png", "y/ blank .png", "y/é.png")
        found = self.tree(tmp_path, *names)
        kept = write_fixed(tmp_path / "left.csv", tmp_path, found, [(1, 1)] * 4)
        assert kept == [0, 1, 2, 3]
        listing = list_data(tmp_path / "left.csv")
        assert sorted(listing.paths) == sorted(names)
        assert {*zip(listing.paths, listing.labels, strict=True)} == {(n, n[0]) for n in names}
        assert {*listing.splits, *listing.groups} == {""}

    def test_paths_from_a_folder_elsewhere_are_absolute(self, tmp_path: Path) -> None:
        found = self.tree(tmp_path / "data", "x/a.png", "y/b.png")
        write_fixed(tmp_path / "new" / "left.csv", tmp_path / "data", found, [(1, 1)] * 2)
        text = (tmp_path / "new" / "left.csv").read_text("utf-8")
        root = tmp_path.as_posix()
        assert text == f"path,label\n{root}/data/x/a.png,x\n{root}/data/y/b.png,y\n"

    def test_paths_above_the_data_are_relative(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        found = self.tree(tmp_path / "data", "x/a.png", "y/b.png")
        write_fixed(Path("left.csv"), Path("data"), found, [(1, 1)] * 2)
        assert Path("left.csv").read_text("utf-8") == "path,label\ndata/x/a.png,x\ndata/y/b.png,y\n"

    def test_splits_and_groups_stay(self, tmp_path: Path) -> None:
        found = self.tree(tmp_path, "x/a.png", "x/b.png", "y/c.png")
        found = Findings(found.paths, found.labels, ("train", "test", ""))
        write_fixed(tmp_path / "l.csv", tmp_path, found, [(1, 1)] * 3, ("house-1", "", ""))
        assert (tmp_path / "l.csv").read_text("utf-8") == (
            "path,label,split,group\nx/a.png,x,train,house-1\nx/b.png,x,test,\ny/c.png,y,,\n"
        )

    def test_a_name_that_no_csv_can_hold(self, tmp_path: Path) -> None:
        found = self.tree(tmp_path, os.fsdecode(b"x/caf\xe9.png"), "y/b.png")
        with pytest.raises(
            UserError, match=r"1 of the files have names that are no UTF-8, b'x/caf"
        ):
            write_fixed(tmp_path / "left.csv", tmp_path, found, [(1, 1)] * 2)
        assert not (tmp_path / "left.csv").exists()
