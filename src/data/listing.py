"""What the data says: folders or a CSV -> paths, labels, splits, groups. Nothing is opened here.

Two layouts of folders, `root/{train,val,test}/<class>/**/*` and `root/<class>/**/*`, and a CSV with
the columns path,label and optional split,group.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from src.data import folders, tables
from src.errors import UserError, nearest

SPLITS = ("train", "val", "test")


class _Samples(Protocol):
    """What `Listing.of` needs of an index, which itself is made from a listing."""

    @property
    def root(self) -> Path: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def paths(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> npt.NDArray[np.int64]: ...
    @property
    def splits(self) -> npt.NDArray[np.str_]: ...


@dataclass(frozen=True)
class Listing:
    """Samples as the data names them, in an order that no file system decides.

    Attributes:
        root: the folder that relative paths start from.
        paths: posix, relative to root where the file lies inside it, else absolute.
        labels: the class's name; "" where the data gives none.
        splits: "train", "val" or "test"; "" where the data says nothing.
        groups: samples of one group stay in one split; "" is no group.
        passed_over: how many files and folders of operating systems were ignored.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[str, ...]
    passed_over: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def of(cls, index: _Samples) -> "Listing":
        """List the samples of an index again, for instance to scan their files once more."""
        names = (*index.classes, "")  # label -1 finds the last one
        return cls(
            index.root,
            index.paths,
            tuple(names[i] for i in index.labels.tolist()),
            tuple(index.splits.tolist()),
            ("",) * len(index.paths),
        )

    def has_split(self, name: str) -> bool:
        """Return whether the data itself puts any sample into this split."""
        return name in self.splits

    def take(self, positions: Sequence[int]) -> "Listing":
        """Return the samples at these positions, in this order."""
        return replace(
            self,
            paths=tuple(self.paths[i] for i in positions),
            labels=tuple(self.labels[i] for i in positions),
            splits=tuple(self.splits[i] for i in positions),
            groups=tuple(self.groups[i] for i in positions),
        )

    def training_labels(self) -> set[str]:
        """Return the labels a network can learn: those of train, or all where nothing is split.

        Where a CSV names splits for some rows alone, the others are for training.
        """
        if not any(self.splits):
            return set(self.labels)
        pairs = zip(self.labels, self.splits, strict=True)
        return {label for label, split in pairs if split in ("train", "")}


def list_data(root: str | Path) -> Listing:
    """List labelled pictures for training.

    Raises:
        UserError: whatever keeps the data from being trained on, with the folder or line named.
    """
    path = _existing(root)
    listing = _listed(path, strict=True)
    _check_for_training(listing, path)
    return listing


def list_found(root: str | Path) -> tuple[Listing, str]:
    """List labelled pictures as they lie there, and say what keeps them from being trained on.

    Returns:
        The listing, and the message of `list_data`; "" if it has none.

    Raises:
        UserError: there are no labelled pictures, or what they are can't be told.
    """
    try:
        return list_data(root), ""
    except UserError as error:
        listing = _listed(_existing(root), strict=False)
        if not len(listing):
            raise
        return listing, str(error)


def list_pictures(root: str | Path) -> Listing:
    """List pictures to predict: a folder with all below it, one file, or a CSV with `path`.

    Labels are ignored. A CSV keeps its order and may name files that aren't there, which then get
    an error each instead of a prediction.

    Raises:
        UserError: there is nothing to predict.
    """
    path = _existing(root)
    passed_over = 0
    if path.is_dir():
        names, passed_over = folders.files_below(path)
        paths = sorted(names)
    elif path.suffix.lower() == ".csv":
        named = tables.read_table(path, ["path"])
        paths = [tables.resolve(path.parent, name)[0] for (name,) in named]
    else:
        paths = [path.name]
    if not paths:
        raise UserError(f"{path} holds no files. Give a folder of pictures, a picture or a CSV.")
    blank = ("",) * len(paths)
    folder = path if path.is_dir() else path.parent
    return Listing(folder, tuple(paths), blank, blank, blank, passed_over)


def list_labelled(root: str | Path, split: str) -> Listing:
    """List labelled pictures to score: those of `split` where the data has it, else all of them.

    One class is enough here, and a class may be empty.

    Raises:
        UserError: there are no labelled pictures.
    """
    path = _existing(root)
    listing = _listed(path, strict=False)
    if listing.has_split(split):
        return listing.take([i for i, name in enumerate(listing.splits) if name == split])
    # Never fall back on other splits where the one asked for is there and merely empty.
    if not len(listing) or (any(listing.splits) and (path / split).is_dir()):
        raise UserError(
            f"{path} holds no labelled pictures to score. Looked for {split}/<class>/* and "
            "<class>/* in it."
        )
    return listing


def settle_classes(listing: Listing, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes in the order of the network's outputs.

    Args:
        listing: what the data says.
        given: an order that rules, from `data.classes`; None sorts the names found.

    Raises:
        UserError: fewer than two classes, one without pictures, or a label outside `given`.
    """
    found = listing.training_labels()
    classes = tuple(sorted(found)) if given is None else tuple(given)
    if len(classes) < 2:
        raise UserError(
            f"Found {_names(classes)} as the only class; a classifier needs at least two. "
            "Give each class a folder, or more than one label in the CSV."
        )
    if given is None:
        return classes
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise UserError(f"data.classes names {_names(twice)} more than once.")
    for name in classes:
        if name not in found:
            raise UserError(
                f"data.classes names '{name}', of which {listing.root} has no pictures to train "
                f"on. Found: {_names(sorted(found))}. {nearest(name, found)}"
            )
    _check_known(listing, classes)
    return classes


def _check_known(listing: Listing, classes: Sequence[str]) -> None:
    outside = Counter(listing.labels)
    for name in classes:
        del outside[name]
    if outside:
        name, count = outside.most_common(1)[0]
        raise UserError(
            f"{count:,} pictures of {listing.root} are labelled '{name}', which data.classes does "
            f"not name. Named: {_names(classes)}. {nearest(name, classes)}"
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"


def _existing(root: str | Path) -> Path:
    path = Path(root).expanduser().absolute()
    if not path.exists():
        beside = [entry.name for entry in path.parent.glob("*")]
        raise UserError(
            f"There is no folder or file {path}. {nearest(path.name, beside)}\n"
            "--data.root takes a folder with a folder per class, or a CSV with path,label."
        )
    return path


def _listed(path: Path, *, strict: bool) -> Listing:
    return _from_csv(path) if path.is_file() else _from_folders(path, strict=strict)


def _from_folders(root: Path, *, strict: bool) -> Listing:
    found = folders.labelled_files(root, SPLITS, strict=strict)
    samples = sorted(found.samples)
    return Listing(
        root,
        tuple(path for path, _, _ in samples),
        tuple(label for _, label, _ in samples),
        tuple(split for _, _, split in samples),
        ("",) * len(samples),
        found.passed_over,
    )


def _from_csv(path: Path) -> Listing:
    if path.suffix.lower() != ".csv":
        raise UserError(
            f"{path} is a file and no CSV. --data.root takes a folder with a folder per class, "
            "or a .csv file with the columns path,label."
        )
    samples = sorted(tables.labelled_rows(path, SPLITS))
    paths, labels, splits, groups = (tuple(sample[at] for sample in samples) for at in range(4))
    return Listing(path.parent, paths, labels, splits, groups)


def _check_for_training(listing: Listing, path: Path) -> None:
    labels = listing.training_labels()
    if not labels:
        raise UserError(f"{path} has no pictures in the split 'train'; nothing to train on.")
    for split in ("val", "test"):
        pairs = zip(listing.labels, listing.splits, strict=True)
        extra = sorted({label for label, name in pairs if name == split} - labels)
        if extra:
            where = f"The split '{split}' of {path}" if path.is_file() else str(path / split)
            raise UserError(
                f"{where} has the class {_names(extra)}, which train lacks. "
                f"Classes of train: {_names(sorted(labels))}. {nearest(extra[0], labels)}"
            )
    if len(labels) < 2:
        raise UserError(
            f"{path} has one class only, {_names(sorted(labels))}; a classifier needs two or more."
        )
