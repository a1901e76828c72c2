"""Which sample goes into which split: a pure function of the contents and a seed.

What the data says wins; what is missing is cut from train, the same share of each class, whole
units at a time (src/data/deal.py).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from src.data.deal import deal, make_units
from src.data.index import Index, Listing
from src.errors import UserError

DEFAULT_FRACTION = 0.15


def make_index(
    listing: Listing,
    classes: Sequence[str],
    hashes: Sequence[str],
    *,
    val_fraction: float | None,
    test_fraction: float | None,
    split_seed: int,
    validate_on_test: bool = False,
) -> Index:
    """Settle the split of every sample.

    Splits that the data has stay as they are, also where one picture lies in two of them. A
    missing val is cut from train; without any split the data is cut three ways.

    Args:
        listing: what the data says, without the damaged files.
        classes: from `settle_classes`.
        hashes: content hashes of the listing's files, in its order.
        val_fraction: of each class, from 0 to below 1; None is 0.15 where val is to be cut.
        test_fraction: the same for test.
        split_seed: another seed cuts another split; apart from the run's own seed.
        validate_on_test: the test split serves as val, and nothing is cut from train.

    Raises:
        UserError: fractions that are out of range or beside an existing split, no test split to
            validate on, or nothing left to validate on.
    """
    fractions = wanted_fractions(
        listing.splits, val_fraction, test_fraction, validate_on_test=validate_on_test
    )
    index = Index.of(listing, classes, hashes)
    splits = assign_splits(
        index.labels, index.hashes, listing.groups, listing.splits, fractions, split_seed
    )
    if "val" in fractions and "val" not in splits:
        raise UserError(
            f"Every class of {listing.root} has a single distinct picture or group in train, so "
            "there is nothing to validate on. Add pictures, or a val folder, or set "
            "--data.val_fraction 0."
        )
    return index.with_splits(splits)


def wanted_fractions(
    said: Iterable[str],
    val_fraction: float | None,
    test_fraction: float | None,
    *,
    validate_on_test: bool,
) -> dict[str, float]:
    """Return which splits are to be cut from the training samples, and how much of each class.

    A split that the data itself has wins. Where the data has any, a missing test stays missing
    unless a fraction is given. None means 0.15.

    Raises:
        UserError: a fraction out of range, or given beside a split that is there already.
    """
    there = set(said) - {""}
    given = {"val": val_fraction, "test": test_fraction}
    for name, fraction in given.items():
        if fraction is not None and not 0 <= fraction < 1:  # NaN, too
            raise UserError(
                f"data.{name}_fraction is {fraction}; it must be at least 0 and below 1."
            )
        if fraction is not None and name in there:
            raise UserError(
                f"data.{name}_fraction is {fraction}, but the data has a split '{name}' already. "
                f"Leave the option out, or remove that split from the data."
            )
    if validate_on_test:
        _check_validate_on_test(there, val_fraction, test_fraction)
        given.pop("val")
    cut = {name: f for name, f in given.items() if name not in there}
    if there and test_fraction is None:
        cut.pop("test", None)
    fractions = {name: DEFAULT_FRACTION if f is None else f for name, f in cut.items()}
    if sum(fractions.values()) >= 1:
        raise UserError(
            f"{' and '.join(f'data.{name}_fraction {f}' for name, f in fractions.items())} "
            "leave nothing to train on; together they must be below 1."
        )
    return {name: fraction for name, fraction in fractions.items() if fraction > 0}


def _check_validate_on_test(
    there: set[str], val_fraction: float | None, test_fraction: float | None
) -> None:
    if there and "test" not in there and test_fraction is None:
        raise UserError(
            "data.validate_on_test needs a split 'test' in the data, and there is none. "
            "Add test/<class>/ folders or a split column, set data.test_fraction to cut one from "
            "train, or leave the option out."
        )
    if val_fraction is not None:
        raise UserError(
            f"data.val_fraction is {val_fraction} beside data.validate_on_test, which cuts nothing "
            "from train. Leave one of the two out."
        )


def assign_splits(
    labels: npt.NDArray[np.int64],
    hashes: Sequence[str],
    groups: Sequence[str],
    said: Sequence[str],
    fractions: dict[str, float],
    split_seed: int,
) -> npt.NDArray[np.str_]:
    """Return the split of every sample [N].

    Samples that the data puts into a split stay there; those it says nothing about are training
    samples. `fractions` of these, rounded per class, halves up, go to "val" and "test". Every class
    keeps a unit in train; with two units it gets one in val, with three one in test.

    Args:
        labels: the class of every sample [N].
        hashes: content hashes; equal ones are one picture, "" is unknown.
        groups: "" is no group.
        said: the split that the data names, or "".
        fractions: from `wanted_fractions`.
        split_seed: another seed deals another split.
    """
    splits = [split or "train" for split in said]
    pool = [i for i, split in enumerate(said) if split in ("", "train")]
    if fractions:
        for unit in deal(make_units(pool, labels, hashes, groups), fractions, split_seed, hashes):
            for i in unit.members:
                splits[i] = unit.split
    return np.array(splits, dtype="<U5")
