"""The table of samples that everything else works from, and `samples.csv`, which keeps it.

Folders or a CSV -> `Listing` (listing.py) -> content hashes (audit.py) -> `Index` (split.py).
N samples.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.listing import (
    SPLITS,
    Listing,
    list_data,
    list_found,
    list_labelled,
    list_pictures,
    settle_classes,
)
from src.data.tables import read_table, write_table
from src.errors import UserError, nearest

__all__ = [
    "SPLITS",
    "Index",
    "Listing",
    "list_data",
    "list_found",
    "list_labelled",
    "list_pictures",
    "settle_classes",
]

SKIPPED = "skipped"  # the split of damaged files in samples.csv
SPLIT_NAMES = {"test": "test", "val": "validation", "train": "training"}  # for people
_COLUMNS = ("path", "label", "split", "hash")


@dataclass(frozen=True, eq=False)
class Index:
    """Samples with class, split and content hash.

    Attributes:
        root: the folder that relative paths start from.
        classes: names in the order of the network's outputs.
        paths: posix, relative to root where the file lies inside it, else absolute.
        labels: position in `classes`, int64 [N]; -1 where there is no label.
        splits: "train", "val", "test", or "" where nothing is split, [N].
        hashes: of the decoded pixels; equal hashes are the same picture.
    """

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    hashes: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.paths), len(self.labels), len(self.splits), len(self.hashes)}
        if len(lengths) > 1:
            raise ValueError(f"the columns of an index must be equally long, found {lengths}")

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def of(
        cls,
        listing: Listing,
        classes: Sequence[str],
        hashes: Sequence[str],
        split: str | None = None,
    ) -> "Index":
        """Make an index of a listing.

        Args:
            listing: the samples; those without a label get -1.
            classes: names in the order of the network's outputs.
            hashes: content hashes, in the listing's order.
            split: the split that all samples get; None keeps what the listing says.

        Raises:
            UserError: a label that is none of the classes.
        """
        positions = {name: i for i, name in enumerate(classes)} | {"": -1}
        for name in dict.fromkeys(listing.labels):
            if name not in positions:
                raise UserError(
                    f"{listing.root} has pictures labelled '{name}', which is none of the classes "
                    f"{', '.join(classes)}. {nearest(name, classes)}"
                )
        return cls(
            listing.root,
            tuple(classes),
            listing.paths,
            np.array([positions[name] for name in listing.labels], dtype=np.int64),
            np.array(listing.splits if split is None else [split] * len(listing), dtype=np.str_),
            tuple(hashes),
        )

    def with_splits(self, splits: npt.NDArray[np.str_]) -> "Index":
        """Return the same samples in other splits."""
        return replace(self, splits=splits)

    def path(self, i: int) -> Path:
        """Return where sample i lies."""
        return self.root / self.paths[i]

    def subset(self, split: str) -> "Index":
        """Return the samples of one split, in the same order."""
        return self.take(np.flatnonzero(self.splits == split))

    def take(self, positions: npt.NDArray[np.int64]) -> "Index":
        """Return the samples at these positions, in this order, as often as they are named."""
        names = positions.tolist()
        return Index(
            self.root,
            self.classes,
            tuple(self.paths[i] for i in names),
            self.labels[positions],
            self.splits[positions],
            tuple(self.hashes[i] for i in names),
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Return {split: {class: number of samples}} for the splits there are, zeros included."""
        table: dict[str, dict[str, int]] = {}
        for split in (*SPLITS, *sorted(set(self.splits.tolist()) - set(SPLITS))):
            here = self.splits == split
            if here.any():
                labels = self.labels[here]
                numbers = np.bincount(labels[labels >= 0], minlength=len(self.classes))
                table[split] = dict(zip(self.classes, numbers.tolist(), strict=True))
        return table

    def fingerprint(self) -> str:
        """Return the sha256 over classes and rows, wherever the data lies on this machine.

        Of a path outside the root, the name alone counts.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = sha256()
        for name in self.classes:
            digest.update(_field(name))
        digest.update(b"\n")
        again = cache(_field)  # labels and splits are a few words
        for path, label, split, content in self._rows():
            outside = path[:1] == "/" or (":" in path and os.path.isabs(path))
            inside = path.rpartition("/")[2] if outside else path
            digest.update(_field(inside) + again(label) + again(split) + _field(content))
        return digest.hexdigest()

    def _rows(self) -> Iterable[tuple[str, str, str, str]]:
        names = (*self.classes, "")  # label -1 finds the last one
        labels = [names[i] for i in self.labels.tolist()]
        return zip(self.paths, labels, self.splits.tolist(), self.hashes, strict=True)

    def to_csv(self, path: Path, skipped: Iterable[tuple[str, str]] = ()) -> None:
        """Write path,label,split,hash, a row per sample.

        Args:
            path: the file, `samples.csv` of a run folder.
            skipped: path and label of files left out as damaged; kept with the split "skipped".
        """
        damaged = [(name, label, SKIPPED, "") for name, label in skipped]
        write_table(path, _COLUMNS, chain(self._rows(), damaged))

    @classmethod
    def from_csv(cls, path: Path, root: Path, classes: Sequence[str]) -> "Index":
        """Read what `to_csv` wrote, without the rows of skipped files.

        Raises:
            UserError: the file is no such table, or has a label that is none of the classes.
        """
        rows = read_table(path, _COLUMNS, errors="surrogateescape")
        rows = [row for row in rows if row[_COLUMNS.index("split")] != SKIPPED]
        paths, labels, splits, hashes = (tuple(row[at] for row in rows) for at in range(4))
        for name in dict.fromkeys(splits):
            if name not in ("", *SPLITS):
                raise UserError(f"{path}: unknown split '{name}'. {nearest(name, SPLITS)}")
        listing = Listing(root, paths, labels, splits, ("",) * len(rows))
        return cls.of(listing, classes, hashes)


def _field(text: str) -> bytes:
    """Encode one value with its length, so that no two tables give the same bytes."""
    data = text.encode("utf-8", "surrogateescape")
    return len(data).to_bytes(8, "little") + data
