"""What is wrong with the data, before any training."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from src.data.index import Listing
from src.data.remembered import Scan
from src.data.scans import Keep, scan, scan_file
from src.errors import UserError

__all__ = ["Keep", "OnBadImage", "Scan", "check", "count_notes", "scan", "scan_file"]

OnBadImage = Literal["error", "skip"]
MAX_LISTED = 20  # damaged files that one message names


def check(
    listing: Listing, scans: Sequence[Scan], *, on_bad_image: OnBadImage
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the positions to keep and those to leave out.

    Args:
        listing: what was scanned.
        scans: a scan for each of its samples.
        on_bad_image: "error" refuses damaged files, "skip" leaves them out.

    Raises:
        UserError: naming the damaged files; or a class that would be left without pictures.
    """
    skipped = tuple(i for i, found in enumerate(scans) if found.error)
    kept = tuple(i for i, found in enumerate(scans) if not found.error)
    if not skipped:
        return kept, skipped
    bad = _grouped((scans[i].error, listing.paths[i]) for i in skipped)
    what = f"{len(skipped):,} of {len(scans):,} files in {listing.root} are no sound pictures"
    if on_bad_image == "error":
        raise UserError(
            f"{what}:\n{bad}\nRead are JPEG, PNG, WebP, BMP, TIFF, GIF, PPM, JPEG 2000 and AVIF "
            "files of which every pixel can be decoded. Mend or remove these files, or leave them "
            "out with --data.on_bad_image skip."
        )
    lost = sorted(listing.training_labels() - listing.take(kept).training_labels())
    if lost or not kept:
        names = ", ".join(f"'{name}'" for name in lost if name)
        left = f"{names} without a picture to train on" if names else "nothing"
        raise UserError(
            f"{what}, and --data.on_bad_image skip leaves {left}:\n{bad}\n"
            "Mend these files, add others, or remove the class."
        )
    return kept, skipped


def _grouped(faults: Iterable[tuple[str, str]]) -> str:
    """Return the files under their reasons, the most common first, MAX_LISTED of them at most."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for reason, path in faults:
        by_reason[reason].append(path)
    lines: list[str] = []
    room = MAX_LISTED
    for reason, files in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"  {reason} ({len(files):,}):")
        lines += [f"    {path}" for path in files[:room]]
        room -= min(room, len(files))
    hidden = sum(map(len, by_reason.values())) - MAX_LISTED
    return "\n".join([*lines, f"  and {hidden:,} more"] if hidden > 0 else lines)


def count_notes(scans: Iterable[Scan]) -> dict[str, int]:
    """Return how often each note was made, the most common first."""
    return dict(Counter(note for found in scans for note in found.notes).most_common())
