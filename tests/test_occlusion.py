"""Which hidden part takes the probability down: worked out by hand."""

import numpy as np
import pytest

from src.occlusion import CELLS, StoppedError, occlusion
from src.preprocess import Pixels

SIDE = 16  # two pixels a cell


def bright_corner(pixels: Pixels) -> np.ndarray:
    """A model that goes by one cell: the second class where the first cell is white."""
    share = pixels[:, :2, :2].mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - share, share], axis=1).astype(np.float32)


def picture() -> Pixels:
    made = np.zeros((SIDE, SIDE, 3), np.uint8)
    made[:2, :2] = 255
    return made


def test_only_what_counts_is_hot() -> None:
    pixels = picture()
    mean = round(4 * 255 / SIDE**2)  # the colour that hides
    found = occlusion(pixels, bright_corner, 1, 1.0)
    fall = 1 - mean / 255
    # All four squares over the first cell hide it; two of these reach the cells beside it; one
    # alone lies on the cell across.
    expected = np.zeros((CELLS, CELLS))
    expected[0, 0], expected[0, 1], expected[1, 0], expected[1, 1] = 4, 2, 2, 1
    assert found.falls == pytest.approx(expected * fall / 4, abs=1e-6)
    assert found.lowest == pytest.approx(mean / 255)
    assert found.part == (0, 0, 2, 2)  # the hottest of the four


def test_what_speaks_against_a_class_is_cold() -> None:
    found = occlusion(picture(), bright_corner, 0, 0.0)
    assert found.falls.argmin() == 0
    assert found.falls.max() == 0


def test_the_picture_stays_as_it_is_and_any_side_is_covered() -> None:
    pixels = np.full((13, 13, 3), 200, np.uint8)  # no multiple of the cells
    pixels[0] = 0
    before = pixels.copy()
    seen: list[Pixels] = []

    def predict(some: Pixels) -> np.ndarray:
        seen.append(some)
        return np.full((len(some), 2), 0.5, np.float32)

    occlusion(pixels, predict, 0, 0.5)
    assert (pixels == before).all()
    changed = (np.concatenate(seen) != before).any(axis=(0, 3))
    assert changed.all()


def test_the_part_is_the_one_that_takes_the_probability_lowest() -> None:
    """One window alone hides both white cells, though a single cell elsewhere is hotter."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[14:, 12:] = 255  # cells (7, 6) and (7, 7)

    def both(some: Pixels) -> np.ndarray:
        hidden = (some[:, 14:, 12:14] < 99).all((1, 2, 3)) & (some[:, 14:, 14:] < 99).all((1, 2, 3))
        return np.stack([hidden, ~hidden], axis=1).astype(np.float32)

    found = occlusion(pixels, both, 1, 1.0)
    assert found.lowest == 0
    assert found.part == (6, 6, 2, 2)


def test_it_stops_between_the_blocks() -> None:
    asked = []

    def predict(some: Pixels) -> np.ndarray:
        asked.append(len(some))
        return np.zeros((len(some), 2), np.float32)

    with pytest.raises(StoppedError):
        occlusion(picture(), predict, 0, 0.0, lambda: len(asked) == 2)
    assert sum(asked) == 18
