"""The folder of all pictures of one size and one resize rule, as segments (`segments.py`)."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from src import preprocess
from src.data.home import cache_home
from src.data.room import by_use
from src.data.segments import HASHES, ROW, Segment, Stored
from src.preprocess import Interpolation, Pixels, StoredRule

DECODER = f"pillow-{PIL.__version__}"


class PixelStore:
    """All pictures of one size and one rule that were decoded here.

    Args:
        size: Side of the stored pictures in pixels, from 1; by "cover" the shorter one.
        rule: The resize rule of `src.preprocess`.
        place: Folder of all stores; None means `pixels` in the user's cache.
        interpolation: How pixels are mixed.
    """

    def __init__(
        self,
        size: int,
        rule: StoredRule,
        place: Path | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        self.size, self.rule, self.interpolation = size, rule, interpolation
        self.place = place if place is not None else cache_home() / "pixels"
        how = rule if interpolation == "bilinear" else f"{rule}-{interpolation}"
        self.folder = self.place / f"{how}-{size}-{DECODER}"  # it makes the pixels

    @property
    def least_bytes(self) -> int:
        """What the smallest picture takes."""
        return 3 * self.size**2 + ROW.itemsize

    def resized(self, image: Image.Image) -> Pixels:
        """Return what is stored of an upright RGB picture, uint8 [H, W, 3]."""
        return np.asarray(preprocess.resize(image, self.size, self.rule, self.interpolation))

    def segments(self) -> list[Segment]:
        """Return the segments that are whole, the one used longest ago first.

        A damaged one is told and removed: its pictures are decoded again.
        """
        found = []
        for path in by_use([self.folder]):
            try:
                found.append(Segment(path))
            except ValueError as error:
                print(f"WARNING: {error}; its pictures are decoded again", file=sys.stderr)
                with contextlib.suppress(OSError):  # another user's
                    path.unlink(missing_ok=True)
            except OSError:  # another process has just made room, or another user may alone read it
                continue
        return found

    def find(self, contents: Sequence[str]) -> tuple[Stored, list[int]]:
        """Return the pixels of pictures, and the positions of those that are not there.

        Args:
            contents: Hash of each picture's content, 32 hexadecimal digits, [N].
        """
        segments = self.segments()
        asked = np.frombuffer(bytes.fromhex("".join(contents)), HASHES)
        hashes, where = np.unique(asked, return_inverse=True)
        files = np.full(len(hashes), -1, np.int32)
        rows = np.zeros(len(hashes), ROW)
        for number, segment in enumerate(segments if len(hashes) else ()):
            here = segment.hashes
            places = np.minimum(np.searchsorted(hashes, here), len(hashes) - 1)
            wanted = hashes[places] == here
            files[places[wanted]] = number
            rows[places[wanted]] = segment.rows[wanted]
        files, rows = files[where], rows[where]
        for number in np.unique(files[files >= 0]).tolist():
            with contextlib.suppress(OSError):
                os.utime(segments[number].path)
        stored = Stored([segment.path for segment in segments], files, rows)
        return stored, np.flatnonzero(files < 0).tolist()
