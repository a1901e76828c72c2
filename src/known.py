"""Labelled pictures of a run that its export is compared and scored on.

N pictures, S their side.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from src.data.dataset import Pictures
from src.table import Table

BLOCK = 32

Pixels = npt.NDArray[np.uint8]


class PixelSource(Protocol):
    """Pixels of N pictures, had by their places; an array is one."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, places: npt.NDArray[Any], /) -> Pixels:
        """Return uint8 [len(places), S, S, 3]."""
        ...


@dataclass(frozen=True)
class FromPictures:
    """Pixels that are read when they are asked for, so that memory does not grow with N."""

    pictures: Pictures

    def __len__(self) -> int:
        """Return N."""
        return len(self.pictures)

    def __getitem__(self, places: npt.NDArray[Any], /) -> Pixels:
        """Return uint8 [len(places), S, S, 3]."""
        batch = self.pictures.__getitems__([(0, int(place), 0) for place in places])
        found: Pixels = batch["image"].numpy()
        return found


@dataclass(frozen=True, eq=False)
class Known:
    """Labelled pictures of the run, and what its network says of them.

    Attributes:
        split: Which they are of.
        paths: Relative to the data, N.
        table: In their order; every row is labelled.
        pixels: Of all of them.
    """

    split: str
    paths: tuple[str, ...]
    table: Table
    pixels: PixelSource


def blocks(pixels: PixelSource, places: npt.NDArray[Any] | None = None) -> Iterator[Pixels]:
    """Yield the pictures of these places, all without any, BLOCK at once."""
    wanted = np.arange(len(pixels)) if places is None else places
    for start in range(0, len(wanted), BLOCK):
        yield pixels[wanted[start : start + BLOCK]]
