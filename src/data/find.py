"""The pictures that a command works on: found, checked, and split or taken as they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.data import audit
from src.data.audit import OnBadImage
from src.data.index import (
    Index,
    Listing,
    list_data,
    list_labelled,
    list_pictures,
    settle_classes,
)
from src.data.sources import Source
from src.data.split import make_index
from src.errors import UserError
from src.memory import no_collections


@dataclass(frozen=True)
class Found:
    """Pictures, and what was noticed about them.

    Attributes:
        index: the pictures that can be decoded.
        skipped: path and label of damaged ones that were left out.
        passed_over: how many files of operating systems were ignored.
        notes: what is unusual but no mistake -> number of pictures.
        listed: every path in input order, for predict.
        errors: path -> why it can't be decoded, for predict.
    """

    index: Index
    skipped: tuple[tuple[str, str], ...] = ()
    passed_over: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    errors: dict[str, str] = field(default_factory=dict)


def data_root(root: str | None, source: Source | None) -> Path:
    """Return the folder or CSV with the pictures, after the download if there is one.

    Raises:
        UserError: if neither is given.
    """
    if root is not None and not root.strip():
        raise UserError(
            "--data.root is empty. Give a folder or a CSV (is a shell variable unset?)."
        )
    if root is not None:
        return Path(root).expanduser()
    if source is None:
        raise UserError(
            "there are no data: give --data.root a folder or a CSV, or a config with data.source."
        )
    return source.fetch()


def find_classes(root: Path) -> tuple[tuple[str, ...], Listing]:
    """Return the class names of the data and what they are read off; nothing is decoded."""
    listing = list_data(root)
    return settle_classes(listing, None), listing


def find_training(
    listing: Listing,
    classes: Sequence[str] | None,
    on_bad_image: OnBadImage,
    rules: dict[str, Any],
    keep: audit.Keep | None = None,
) -> Found:
    """Return the pictures of all splits.

    Args:
        listing: What the data say.
        classes: Names in the order of the outputs; None means those of the data, sorted.
        on_bad_image: Whether damaged files stop it or are left out.
        rules: The keyword arguments of `make_index`.
        keep: Gets every picture that is decoded: see `src.data.scans.scan`.
    """
    settled = settle_classes(listing, classes)
    kept, hashes, about = _checked(listing, on_bad_image, keep)
    with no_collections():
        return Found(make_index(kept, settled, hashes, **rules), **about)


def find_labelled(
    root: Path,
    classes: Sequence[str],
    on_bad_image: OnBadImage,
    split: str,
    samples: Path | None,
    keep: audit.Keep | None = None,
) -> Found:
    """Return the pictures to score.

    Args:
        root: Folder or CSV.
        classes: Names in the order of the outputs.
        on_bad_image: Whether damaged files stop it or are left out.
        split: The split to score, where there are any.
        samples: samples.csv of the run whose own split is meant; None means what lies in root.
        keep: Gets every picture that is decoded: see `src.data.scans.scan`.

    Raises:
        UserError: if there is none; it says what was looked for.
    """
    if samples is not None:
        listing = _stored(samples, root, classes, split)
        where = f"the {split} split in {samples}"
    else:
        listing = list_labelled(root, split)
        where = f"{root / split} and labelled pictures in {root}"
    if not listing.paths:
        raise UserError(
            f"there is nothing to score: looked for {where} and found no picture. Give "
            "--data.root a folder with labelled pictures; `validate` scores the val split."
        )
    kept, hashes, about = _checked(listing, on_bad_image, keep)
    index = Index.of(kept, classes, hashes, split)
    if samples is not None:
        changed = _changed(index, samples, classes)
        about["notes"] |= {"changed since the run began": changed} if changed else {}
    return Found(index, **about)


def find_unlabelled(
    root: Path, classes: Sequence[str], samples: Path | None, keep: audit.Keep | None = None
) -> Found:
    """Return the pictures to predict; damaged ones stop nothing and are named in `errors`.

    Args:
        root: Folder, picture or CSV.
        classes: Names in the order of the outputs.
        samples: samples.csv of the run whose own test split is meant; None means all of root.
        keep: Gets every picture that is decoded: see `src.data.scans.scan`.
    """
    if samples is not None:
        listing = _stored(samples, root, classes, "test")
    else:
        listing = list_pictures(root)
    if not listing.paths:
        raise UserError(f"there is no picture to predict in {root}. Give --data.root other data.")
    scans = audit.scan(listing.root, listing.paths, keep=keep)
    kept = [i for i, found in enumerate(scans) if not found.error]
    if not kept:
        raise UserError(
            f"none of the {len(scans)} files in {root} can be decoded; {listing.paths[0]}: "
            f"{scans[0].error}."
        )
    return Found(
        Index.of(listing.take(kept), classes, [scans[i].hash for i in kept], "predict"),
        listed=listing.paths,
        errors={p: s.error for p, s in zip(listing.paths, scans, strict=True) if s.error},
    )


def _stored(samples: Path, root: Path, classes: Sequence[str], split: str) -> Listing:
    """Return one split of a run's own pictures; raises UserError if they have moved away."""
    folder = root.parent if root.is_file() else root
    index = Index.from_csv(samples, folder, classes).subset(split)
    missing = [index.paths[i] for i in range(len(index)) if not index.path(i).exists()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(index)} {split} pictures of the run are not in {folder} any "
            f"more, {missing[0]} among them. If the data have moved, give --data.root DIR."
        )
    return Listing.of(index)


def _changed(index: Index, samples: Path, classes: Sequence[str]) -> int:
    """Return how many pictures have other pixels than the run's samples.csv says."""
    stored = Index.from_csv(samples, index.root, classes)
    began = dict(zip(stored.paths, stored.hashes, strict=True))
    pairs = zip(index.paths, index.hashes, strict=True)
    return sum(began[path] != content for path, content in pairs)


def _checked(
    listing: Listing, on_bad_image: OnBadImage, keep: audit.Keep | None
) -> tuple[Listing, list[str], dict[str, Any]]:
    """Return the listing without damaged pictures, their content hashes, and what was noticed."""
    scans = audit.scan(listing.root, listing.paths, keep=keep)
    kept, skipped = audit.check(listing, scans, on_bad_image=on_bad_image)
    about = {
        "skipped": tuple((listing.paths[i], listing.labels[i]) for i in skipped),
        "passed_over": listing.passed_over,
        "notes": audit.count_notes(scans),
    }
    return listing.take(kept), [scans[i].hash for i in kept], about
