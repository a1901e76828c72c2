"""What an audit makes of copies, classes and measures; each expectation is worked out by hand."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from src.data.findings import (
    Copies,
    Findings,
    Group,
    Note,
    class_table,
    group_copies,
    sort_copies,
)
from src.data.looks import LOOK
from src.data.oddities import notes_of, outliers
from src.data.remembered import Scan

PATHS = tuple("abcdef")
LABELS = ("bee", "bee", "wasp", "bee", "bee", "wasp")
SPLITS = ("train", "train", "train", "test", "train", "test")


def exact(*members: int) -> Group:
    return Group(members, "exact")


def near(*members: int) -> Group:
    return Group(members, "near")


class TestGroups:
    def test_equal_pictures(self) -> None:
        assert group_copies(["x", "y", "x", "z", "y", "x"]) == [exact(0, 2, 5), exact(1, 4)]

    def test_near_ones_bring_their_equals_along(self) -> None:
        """0 and 2 are equal, 1 is near to 2: one near group of three, beside the exact one."""
        assert group_copies(["x", "y", "x", "z"], [(1, 2)]) == [exact(0, 2), near(0, 1, 2)]

    def test_near_ones_in_a_chain(self) -> None:
        assert group_copies(list("vwxyz"), [(0, 3), (3, 4)]) == [near(0, 3, 4)]

    def test_none(self) -> None:
        assert group_copies([]) == group_copies(["x", "y"]) == []


class TestSorted:
    @pytest.mark.parametrize(
        ("group", "where"),
        [
            (exact(0, 1), "duplicates"),
            (near(0, 2), "conflicts"),
            (near(1, 3), "leaks"),
            (exact(0, 5), "conflicts leaks"),
            (near(0, 1, 4), "duplicates"),
            (near(0, 1, 4, 3), "leaks"),
        ],
    )
    def test_by_labels_and_splits(self, group: Group, where: str) -> None:
        found = sort_copies([group], LABELS, SPLITS)
        lists = {name: getattr(found, name) for name in ("conflicts", "leaks", "duplicates")}
        assert {name for name, groups in lists.items() if groups == (group,)} == {*where.split()}
        assert sum(map(len, lists.values())) == len(where.split())

    def test_equal_ones_in_a_near_group_of_the_same_list_are_one_finding(self) -> None:
        """0 and 2 are equal and contradict each other, and 1 is near: one conflict, not two."""
        groups = [exact(0, 2), near(0, 1, 2)]
        assert sort_copies(groups, LABELS, SPLITS).conflicts == (near(0, 1, 2),)
        found = sort_copies([exact(0, 1), near(0, 1, 2)], LABELS, SPLITS)
        assert (found.conflicts, found.duplicates) == ((near(0, 1, 2),), (exact(0, 1),))

    def test_no_split_is_trained_on(self) -> None:
        """As `fit` reads a CSV in which some rows name no split."""
        assert sort_copies([exact(0, 1)], ["bee"] * 2, ["", "train"]).leaks == ()
        assert sort_copies([exact(0, 1)], ["bee"] * 2, ["", "test"]).leaks == (exact(0, 1),)

    def test_no_label_contradicts_none(self) -> None:
        assert sort_copies([exact(0, 1)], ["bee", ""], ["", ""]).duplicates == (exact(0, 1),)


class TestFindings:
    def findings(self, **more: object) -> Findings:
        return Findings(PATHS, LABELS, SPLITS, **more)  # type: ignore[arg-type]

    def test_what_falsifies_a_score(self) -> None:
        assert not self.findings().falsify
        assert not self.findings(copies=Copies(duplicates=(exact(0, 1),))).falsify
        assert not self.findings(notes=(Note("CMYK", ("a",)),)).falsify
        assert self.findings(copies=Copies(conflicts=(near(0, 2),))).falsify
        assert self.findings(copies=Copies(leaks=(near(0, 3),))).falsify
        assert self.findings(damaged=(("g", "empty file"),)).falsify

    def test_as_json(self) -> None:
        copies = Copies((near(0, 2),), (exact(1, 3),), (exact(0, 1, 4),))
        found = self.findings(
            damaged=(("g\n\udcff", "empty file"),),
            copies=copies,
            notes=(Note("CMYK", ("a", "b")), Note("test has no picture of ant")),
            classes={"bee": {"count": 4, "share": 2 / 3, "splits": {"train": 3}, "weight": None}},
        )
        assert json.loads(json.dumps(found.to_dict())) == {
            "n": 7,
            "damaged": [{"path": "g\n\udcff", "reason": "empty file"}],
            "conflicts": [{"paths": ["a", "c"], "labels": ["bee", "wasp"], "kind": "near"}],
            "leaks": [{"paths": ["b", "d"], "splits": ["train", "test"], "kind": "exact"}],
            "duplicates": [{"paths": ["a", "b", "e"], "kind": "exact"}],
            "notes": [
                {"note": "CMYK", "paths": ["a", "b"]},
                {"note": "test has no picture of ant", "paths": []},
            ],
            "classes": {
                "bee": {"count": 4, "share": 2 / 3, "splits": {"train": 3}, "weight": None}
            },
        }


class TestClasses:
    def test_weights_are_those_of_the_training(self) -> None:
        """3 bees and 1 wasp to train on: 4 / (2 * 3) and 4 / (2 * 1)."""
        assert class_table(LABELS, SPLITS) == {
            "bee": {
                "count": 4,
                "share": pytest.approx(4 / 6),
                "splits": {"train": 3, "test": 1},
                "weight": pytest.approx(2 / 3),
            },
            "wasp": {
                "count": 2,
                "share": pytest.approx(2 / 6),
                "splits": {"train": 1, "test": 1},
                "weight": pytest.approx(2.0),
            },
        }

    def test_without_splits(self) -> None:
        found = class_table(["b", "a", "b", ""], [""] * 4)
        assert list(found) == ["a", "b"]
        assert found["b"]["splits"] == {"all": 2}
        assert (found["a"]["weight"], found["b"]["weight"]) == (1.5, 0.75)

    def test_a_class_that_is_not_trained_on_has_no_weight(self) -> None:
        found = class_table(["a", "b"], ["train", "test"])
        assert (found["a"]["weight"], found["b"]["weight"]) == (1.0, None)

    def test_nothing(self) -> None:
        assert class_table([], []) == {}


def scans(*sizes: tuple[int, int], notes: Sequence[str] = ()) -> list[Scan]:
    return [Scan("00", width, height, "", tuple(notes)) for width, height in sizes]


def said(notes: Sequence[Note]) -> dict[str, tuple[str, ...]]:
    return {note.note: note.paths for note in notes}


class TestNotes:
    def test_of_files(self) -> None:
        found = notes_of(
            "abc", ["x", "y", "x"], [""] * 3, scans((31, 90), (33, 132), (32, 129), notes=["CMYK"])
        )
        assert said(found) == {
            "CMYK": ("a", "b", "c"),
            "tiny: a side below 32 pixels": ("a",),
            "extreme aspect: one side over 4 times the other": ("c",),
        }

    def test_of_imbalance(self) -> None:
        some = scans(*[(99, 99)] * 7)
        (note,) = notes_of("abcdefg", ["x"] * 5 + ["y"] * 2, [""] * 7, some)
        assert note == Note(
            "imbalance: 5 of x, 2 of y; model.class_weights balanced or data.sampling balanced "
            "evens that out"
        )
        assert notes_of("abcdef", ["x"] * 4 + ["y"] * 2, [""] * 6, some[:6]) == []

    def test_of_classes_that_a_split_lacks(self) -> None:
        found = notes_of("abc", ["x", "y", "z"], ["train", "test", "train"], scans(*[(9, 99)] * 3))
        assert [note.note for note in found[:2]] == [
            "test has no picture of x, z",
            "train has no picture of y",
        ]

    def test_no_split_is_that_of_training_where_others_are_named(self) -> None:
        found = notes_of("abc", ["x", "y", "x"], ["train", "", "test"], scans(*[(99, 99)] * 3))
        assert [note.note for note in found] == ["test has no picture of y"]
        found = notes_of("abc", ["x", "y", "x"], ["", "", "test"], scans(*[(99, 99)] * 3))
        assert [note.note for note in found] == ["test has no picture of y"]


class TestOutliers:
    """40 pictures of a class are alike, and one is not."""

    def found(self, column: str, usual: Sequence[float], odd: float) -> dict[str, tuple[str, ...]]:
        looks = np.zeros(41, LOOK)
        looks["brightness"], looks["sharpness"] = 128, 500
        looks[column] = [*usual, odd]
        paths = [str(i) for i in range(41)]
        return said(outliers(paths, ["bee"] * 41, looks, scans(*[(99, 99)] * 41)))

    # The median is 119.5 or so, and half of the values lie within 10 of it: 1.4826 * 10 * 5 is 74.
    USUAL = tuple(range(100, 140))

    def test_brightness(self) -> None:
        assert self.found("brightness", self.USUAL, 200) == {"unusually bright for bee": ("40",)}
        assert self.found("brightness", self.USUAL, 40) == {"unusually dark for bee": ("40",)}
        assert self.found("brightness", self.USUAL, 190) == {}

    def test_where_all_others_are_equal(self) -> None:
        """A deviation is then 5 grey levels, so 25 are allowed."""
        assert self.found("brightness", [128] * 40, 154) == {"unusually bright for bee": ("40",)}
        assert self.found("brightness", [128] * 40, 153) == {}

    def test_blur(self) -> None:
        usual = [500 * 1.01**i for i in range(40)]
        assert self.found("sharpness", usual, 5) == {"unusually blurred for bee": ("40",)}
        assert self.found("sharpness", usual, 1e6) == {}  # sharp is no fault

    def test_size(self) -> None:
        """The area counts: 1.2 ** 5 is 2.49 times as large."""
        looks = np.zeros(41, LOOK)
        some = scans(*[(100, 100)] * 40, (100, 250))
        assert said(outliers([str(i) for i in range(41)], ["bee"] * 41, looks, some)) == {
            "unusually large for bee": ("40",)
        }

    def test_few_pictures_have_nothing_usual(self) -> None:
        looks = np.zeros(19, LOOK)
        looks["brightness"] = [128] * 18 + [255]
        assert outliers([""] * 19, ["bee"] * 19, looks, scans(*[(9, 9)] * 19)) == []

    def test_a_hundredth_at_most_the_farthest_first(self) -> None:
        looks = np.zeros(250, LOOK)
        looks["brightness"] = [128] * 245 + [200, 255, 210, 240, 220]
        found = outliers([str(i) for i in range(250)], ["b"] * 250, looks, scans(*[(9, 9)] * 250))
        assert said(found) == {"unusually bright for b": ("246", "248")}

    def test_each_class_has_its_own_usual(self) -> None:
        looks = np.zeros(60, LOOK)
        looks["brightness"] = [30] * 30 + [220] * 30
        labels = ["night"] * 30 + ["day"] * 30
        assert outliers([""] * 60, labels, looks, scans(*[(9, 9)] * 60)) == []
