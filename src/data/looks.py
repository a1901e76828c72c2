"""What pictures look like in a few numbers each: enough to find copies and what stands out.

N pictures; S = SIDE.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.data.kept import array_key, keep
from src.data.scans import scan_all
from src.errors import RunFailureError

SIDE = 64  # of a thumbnail, in pixels
LOOK = np.dtype([("thumb", "u1", (SIDE, SIDE)), ("brightness", "<f4"), ("sharpness", "<f4")])
Looks = npt.NDArray[np.void]  # of LOOK, [N]

_RULES = "looks 1"
_SHARP_SIDE = 256  # the longer side at which sharpness is measured; smaller pictures as they are


def look_at(picture: Image.Image) -> Looks:
    """Return the look of an upright RGB picture, one row.

    `thumb` is its grey values [S, S], whatever its aspect ratio; `brightness` their mean, 0 to 255;
    `sharpness` the variance of the Laplacian of the grey values (Pech-Pacheco et al. 2000), which a
    blur takes away.
    """
    grey = picture.convert("L")
    small = grey.copy()
    small.thumbnail((_SHARP_SIDE, _SHARP_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    thumb = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    row = np.zeros(1, LOOK)
    row["thumb"] = np.asarray(thumb)
    row["brightness"] = row["thumb"].mean()
    row["sharpness"] = _laplacian(np.asarray(small, np.float32)).var()
    return row


def _laplacian(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the Laplacian of [H, W] at all inner pixels; of a picture without any, zero."""
    if min(grey.shape) < 3:
        return np.zeros(1, np.float32)
    centre = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return np.asarray(around - 4 * centre, np.float32)


class Looker:
    """Gathers the looks of pictures while they are decoded: a `Keep` of `src.data.scans`.

    Attributes:
        found: Content hash -> look.
    """

    def __init__(self) -> None:
        self.found: dict[str, Looks] = {}

    def __call__(self, content: str, picture: Image.Image) -> None:
        """Take the look of a picture; called from several threads."""
        self.found[content] = look_at(picture)


def looks_of(
    root: Path,
    paths: Sequence[str],
    hashes: Sequence[str],
    looker: Looker,
    show_progress: bool = True,
) -> Looks:
    """Return the look of every picture, [N]; those not gathered yet are decoded.

    Args:
        root: The folder that relative paths start from.
        paths: [N].
        hashes: Of their content, [N].
        looker: What has been gathered.
        show_progress: A bar on stderr, if that is a terminal.

    Raises:
        RunFailureError: if a picture can no longer be decoded.
    """
    pending = {h: path for h, path in zip(hashes, paths, strict=True) if h not in looker.found}
    for path, scan in scan_all(root, list(pending.values()), looker, show_progress):
        if scan.error:
            raise RunFailureError(f"{root / path} could be read before and can't now: {scan.error}")
    absent = next((path for h, path in pending.items() if h not in looker.found), None)
    if absent is not None:
        raise RunFailureError(f"{root / absent} has changed meanwhile. Start again.")
    looks = np.empty(len(hashes), LOOK)
    for i, content in enumerate(hashes):
        looks[i] = looker.found[content][0]
    return looks


def kept_looks(
    place: Path | None,
    root: Path,
    paths: Sequence[str],
    hashes: Sequence[str],
    looker: Looker,
    show_progress: bool = True,
) -> Looks:
    """Return what `looks_of` does, kept in the cache for pictures of the same content.

    Args:
        place: Folder of the cache; None keeps nothing.
        root: See `looks_of`.
        paths: [N].
        hashes: [N].
        looker: What has been gathered.
        show_progress: See `looks_of`.
    """
    key = array_key(_RULES, *hashes)
    doing = "looking at the pictures"
    found: Looks = keep(
        place, key, lambda: looks_of(root, paths, hashes, looker, show_progress), doing
    )
    return found
