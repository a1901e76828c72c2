"""Which picture goes into train, val or test: counts worked out by hand, and what always holds."""

import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.deal import make_units
from src.data.index import Index, Listing
from src.data.split import make_index, wanted_fractions
from src.errors import UserError

CLASSES = ("bee", "wasp")


def listing_of(labels, splits=None, groups=None, paths=None) -> Listing:
    blank = ("",) * len(labels)
    paths = paths or [f"{i:05}.jpg" for i in range(len(labels))]
    return Listing(
        Path("/data"), tuple(paths), tuple(labels), tuple(splits or blank), tuple(groups or blank)
    )


def cut(labels, hashes=None, *, splits=None, groups=None, classes=None, paths=None, **options):
    """Make an index; every picture is its own unit unless hashes or groups say otherwise."""
    hashes = hashes or [f"h{i}" for i in range(len(labels))]
    defaults = {"val_fraction": None, "test_fraction": None, "split_seed": 0}
    return make_index(
        listing_of(labels, splits, groups, paths),
        classes or tuple(sorted(set(labels))),
        hashes,
        **(defaults | options),
    )


def numbers(index: Index, name: str) -> list[int]:
    """Return how many pictures of a class lie in train, val and test."""
    counts = index.counts()
    return [counts.get(split, {}).get(name, 0) for split in ("train", "val", "test")]


# By hand: 0.15 of each class, halves up, at least one

THREE_WAYS = {  # pictures of a class -> train, val, test
    2: [1, 1, 0],
    3: [1, 1, 1],
    4: [2, 1, 1],
    10: [6, 2, 2],  # 1.5 rounds up
    13: [9, 2, 2],  # 1.95
    20: [14, 3, 3],
    30: [20, 5, 5],  # 4.5 rounds up
    100: [70, 15, 15],
}


@pytest.mark.parametrize(("pictures", "expected"), THREE_WAYS.items())
def test_cut_three_ways(pictures, expected):
    index = cut(["bee"] * pictures + ["wasp"] * 20)
    assert numbers(index, "bee") == expected
    assert numbers(index, "wasp") == [14, 3, 3]


@pytest.mark.parametrize(
    ("pictures", "fraction", "expected"),
    [
        (2, None, [1, 1, 0]),
        (7, None, [6, 1, 0]),  # 1.05
        (10, 0.0, [10, 0, 0]),
        (10, 0.25, [7, 3, 0]),  # 2.5 rounds up
        (90, 0.35, [58, 32, 0]),  # 31.5, which is 31.499999999999996 in floating point
        (10, 0.99, [1, 9, 0]),  # 9.9 would leave nothing
        (1446, 0.15, [1229, 217, 0]),  # 216.9: the wasps of bee-wasp
    ],
)
def test_val_is_cut_from_train_and_a_missing_test_stays_missing(pictures, fraction, expected):
    labels = ["bee"] * pictures + ["wasp"] * 30
    index = cut(labels, splits=["train"] * len(labels), val_fraction=fraction)
    assert numbers(index, "bee") == expected


def test_a_test_split_of_the_data_stays():
    labels = ["bee", "wasp"] * 20
    splits = ["test"] * 8 + ["train"] * 32
    index = cut(labels, splits=splits)
    assert index.splits[:8].tolist() == ["test"] * 8
    assert numbers(index, "bee") == [14, 2, 4]  # 0.15 of 16 is 2.4


def test_a_val_split_of_the_data_wins():
    labels = ["bee", "wasp"] * 20
    splits = ["val"] * 8 + ["train"] * 32
    assert numbers(cut(labels, splits=splits), "bee") == [16, 4, 0]


def test_a_test_fraction_that_is_asked_for_is_cut_from_train():
    labels = ["bee", "wasp"] * 20
    splits = ["val"] * 8 + ["train"] * 32
    assert numbers(cut(labels, splits=splits, test_fraction=0.25), "bee") == [12, 4, 4]


def test_rows_without_a_split_are_for_training_where_others_have_one():
    labels = ["bee", "wasp"] * 20
    index = cut(labels, splits=["test"] * 4 + [""] * 36, val_fraction=0.5)
    assert numbers(index, "bee") == [9, 9, 2]


def test_no_fraction_no_split():
    index = cut(["bee"] * 9 + ["wasp"] * 9, val_fraction=0.0, test_fraction=0.0)
    assert numbers(index, "bee") == [9, 0, 0]
    index = cut(["bee"] * 2 + ["wasp"] * 2, val_fraction=0.0)
    assert numbers(index, "bee") == [1, 0, 1]


def test_large_fractions_leave_a_picture_in_train():
    index = cut(["bee"] * 3 + ["wasp"] * 40, val_fraction=0.5, test_fraction=0.49)
    assert numbers(index, "bee") == [1, 1, 1]
    assert numbers(index, "wasp") == [1, 19, 20]  # 20 and 19.6 leave none; val gives one back


# Duplicates and groups


def test_units_join_over_hashes_and_groups_in_a_chain():
    #          0    1    2    3    4    5    6
    hashes = ["a", "a", "b", "c", "d", "", ""]
    groups = ["", "g", "g", "", "", "h", ""]
    units = make_units(range(7), np.array([0, 0, 1, 0, 1, 1, 1]), hashes, groups)
    assert sorted(sorted(unit.members) for unit in units) == [[0, 1, 2], [3], [4], [5], [6]]
    assert next(unit.counts for unit in units if len(unit) == 3) == {0: 2, 1: 1}


def test_large_units_count_with_all_their_pictures():
    # Ten groups of ten wasps: 15 for val is one group or two; one and a half rounds to two.
    labels = ["bee"] * 100 + ["wasp"] * 100
    groups = [""] * 100 + [f"g{i // 10}" for i in range(100)]
    index = cut(labels, groups=groups)
    assert numbers(index, "bee") == [70, 15, 15]
    assert numbers(index, "wasp") == [60, 20, 20]


def test_one_giant_group_stays_in_train():
    labels = ["bee"] * 100 + ["wasp"] * 100
    groups = [""] * 100 + ["giant"] * 96 + [""] * 4
    assert numbers(cut(labels, groups=groups), "wasp") == [96, 2, 2]


def test_two_pictures_that_are_one_cannot_be_split():
    labels = ["bee"] * 4 + ["wasp"] * 2
    index = cut(labels, ["b0", "b1", "b2", "b3", "w", "w"])
    assert numbers(index, "wasp") == [2, 0, 0]
    assert numbers(index, "bee") == [2, 1, 1]


def test_nothing_to_validate_on():
    with pytest.raises(UserError, match=r"single distinct picture or group.*nothing to validate"):
        cut(["bee", "bee", "wasp"], ["b", "b", "w"])
    assert numbers(cut(["bee", "wasp"], val_fraction=0.0), "bee") == [1, 0, 0]


def test_a_duplicate_that_the_data_puts_on_two_sides_stays_there():
    labels = ["bee", "wasp"] * 10
    splits = ["test", "test"] + ["train"] * 18
    hashes = [f"h{i}" for i in range(20)]
    hashes[2] = hashes[0]  # a bee of train that is in test as well
    for seed in range(5):
        index = cut(labels, hashes, splits=splits, split_seed=seed, val_fraction=0.4)
        assert index.splits[:2].tolist() == ["test", "test"]
        assert index.splits[2] in ("train", "val")


# Purity


def test_the_split_follows_the_contents_and_not_names_or_order():
    labels = ["bee"] * 40 + ["wasp"] * 60
    hashes = [f"h{i}" for i in range(100)]
    index = cut(labels, hashes)
    expected = dict(zip(index.hashes, index.splits.tolist(), strict=True))
    order = random.Random(1).sample(range(100), 100)
    shuffled = cut([labels[i] for i in order], [hashes[i] for i in order])
    assert dict(zip(shuffled.hashes, shuffled.splits.tolist(), strict=True)) == expected


def test_the_split_is_the_same_on_every_machine():
    index = cut(["bee"] * 10 + ["wasp"] * 10)
    assert "".join(split[1] for split in index.splits.tolist()) == "earrrarrereerrarrrra"


def test_another_seed_cuts_another_split_and_global_generators_none():
    labels = ["bee", "wasp"] * 50
    np.random.seed(1)
    random.seed(1)
    first = cut(labels).splits.tolist()
    np.random.seed(2)
    random.seed(2)
    assert cut(labels).splits.tolist() == first
    assert cut(labels, split_seed=1).splits.tolist() != first


@st.composite
def tables(draw):
    size = draw(st.integers(2, 40))
    labels = draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size))
    # Few contents and groups, so that chains are common; one class each, as folders have it.
    contents = draw(st.lists(st.integers(0, 25), min_size=size, max_size=size))
    groups = draw(st.lists(st.integers(0, 12), min_size=size, max_size=size))
    mixed = draw(st.booleans())
    prefix = ["" if mixed else label for label in labels]
    hashes = [f"{p}{c}" for p, c in zip(prefix, contents, strict=True)]
    names = [f"{p}g{g}" if g < 6 else "" for p, g in zip(prefix, groups, strict=True)]
    return labels, hashes, names, mixed


def units_of(labels, hashes, groups):
    codes = np.array([ord(label) for label in labels])
    return [unit.members for unit in make_units(range(len(labels)), codes, hashes, groups)]


@given(
    tables(),
    st.integers(0, 3),
    st.sampled_from([None, 0.0, 0.1, 0.5]),
    st.sampled_from([None, 0.0, 0.3]),
)
def test_property_units_stay_whole_and_every_class_is_served(table, seed, val, test):
    labels, hashes, groups, mixed = table
    options = {"groups": groups, "split_seed": seed, "val_fraction": val, "test_fraction": test}
    try:
        index = cut(labels, hashes, **options)
    except UserError as error:
        assert "nothing to validate on" in str(error)
        return
    units = units_of(labels, hashes, groups)
    per_class = defaultdict(int)
    for members in units:
        assert len({index.splits[i] for i in members}) == 1
        for name in {labels[i] for i in members}:
            per_class[name] += 1
    for name, units_there in per_class.items():
        train, in_val, in_test = numbers(index, name)
        assert train >= 1
        if not mixed and val != 0.0 and units_there >= 2:
            assert in_val >= 1
        if not mixed and test != 0.0 and units_there >= 3:
            assert in_test >= 1
    order = random.Random(seed).sample(range(len(labels)), len(labels))
    again = cut(
        [labels[i] for i in order],
        [hashes[i] for i in order],
        **(options | {"groups": [groups[i] for i in order]}),
    )
    assert again.splits.tolist() == [index.splits[i] for i in order]


@given(st.integers(2, 400), st.integers(0, 5), st.floats(0.01, 0.95))
def test_property_the_share_of_single_pictures_is_exact(pictures, seed, fraction):
    labels = ["bee"] * pictures + ["wasp"] * 5
    index = cut(labels, splits=["train"] * len(labels), split_seed=seed, val_fraction=fraction)
    in_val = numbers(index, "bee")[1]
    assert in_val == pytest.approx(min(max(pictures * fraction, 1), pictures - 1), abs=0.5 + 1e-6)


def test_a_hundred_thousand_samples_take_no_quadratic_step():
    labels = [f"c{i % 50}" for i in range(100_000)]
    groups = ["one" if i < 30_000 else "" for i in range(100_000)]
    index = cut(labels, [f"h{i // 2}" for i in range(100_000)], groups=groups)
    assert sum(index.counts()["val"].values()) == pytest.approx(15_000, rel=0.1)


# What is refused


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["val", "test"])
def test_fractions_out_of_range(name, fraction):
    with pytest.raises(UserError, match=rf"data.{name}_fraction is .*at least 0 and below 1"):
        cut(["bee", "wasp"] * 4, **{f"{name}_fraction": fraction})


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0.9, None), (None, 0.85)])
def test_fractions_that_leave_nothing_to_train_on(val, test):
    with pytest.raises(UserError, match="leave nothing to train on; together they must be below 1"):
        cut(["bee", "wasp"] * 4, val_fraction=val, test_fraction=test)


@pytest.mark.parametrize("name", ["val", "test"])
@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_a_fraction_beside_a_split_of_the_data(name, fraction):
    with pytest.raises(UserError, match=f"the data has a split '{name}' already"):
        cut(
            ["bee", "wasp"] * 4,
            splits=[name] * 2 + ["train"] * 6,
            **{f"{name}_fraction": fraction},
        )


def test_validate_on_test_cuts_nothing():
    labels, splits = ["bee", "wasp"] * 10, ["test"] * 4 + ["train"] * 16
    index = cut(labels, splits=splits, validate_on_test=True)
    assert index.splits.tolist() == splits


def test_validate_on_test_needs_a_test_split_and_no_val_fraction():
    with pytest.raises(UserError, match="needs a split 'test' in the data"):
        cut(["bee", "wasp"] * 4, splits=["train"] * 8, validate_on_test=True)
    with pytest.raises(UserError, match=r"val_fraction is 0.2 beside data.validate_on_test"):
        cut(
            ["bee", "wasp"] * 4,
            splits=["test"] * 4 + ["train"] * 4,
            validate_on_test=True,
            val_fraction=0.2,
        )


def test_validate_on_test_of_data_without_any_split_cuts_a_test() -> None:
    said = [""] * 4
    assert wanted_fractions(said, None, None, validate_on_test=True) == {"test": 0.15}
    assert wanted_fractions(said, None, 0.5, validate_on_test=True) == {"test": 0.5}
    assert wanted_fractions(["train", "test"], None, None, validate_on_test=True) == {}
    assert wanted_fractions(["train"], None, 0.25, validate_on_test=True) == {"test": 0.25}
