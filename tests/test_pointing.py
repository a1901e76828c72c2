"""The pointing game: its arithmetic, and networks of which is known where they look."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src.data.insects import write_insects
from src.heat import explainable, heat_maps, layers_to_show
from tests.benchmarks.pointing import play, read_boxes
from tests.test_heat import CELL, SIDE, Spots


def test_hits_heat_and_area() -> None:
    """8 x 8 pixels; the box is the left half, which does hold the middle of column 3."""
    maps = np.zeros((2, 8, 8), np.float32)
    maps[0, 2, 3], maps[0, 2, 4] = 0.75, 0.25  # three quarters of the heat inside
    maps[1, 5, 7] = 1.0
    found = play(list(maps), [(0.0, 0.0, 0.5, 1.0)] * 2)
    assert (found.n, found.hits) == (2, 1)
    assert found.heat == pytest.approx(0.375)
    assert found.area == 0.5
    assert found.centres == 0  # the pixel right of the middle lies outside


def test_a_map_without_heat_is_a_miss_in_the_corner() -> None:
    found = play([np.zeros((8, 8), np.float32)], [(0.25, 0.25, 0.75, 0.75)])
    assert (found.hits, found.heat, found.area, found.centres) == (0, 0.0, 0.25, 1)


def test_boxes_of_the_built_in_pictures(tmp_path: Path) -> None:
    """A white box painted where the generator says the insect is: the heat points there."""
    write_insects(tmp_path, {"test": 6}, size=96, seed=3)
    boxes = list(read_boxes(tmp_path / "boxes.csv", 96).values())
    assert len(boxes) == 12
    pixels = torch.zeros(12, SIDE, SIDE, 3, dtype=torch.uint8)
    for picture, (x0, y0, x1, y1) in zip(pixels, boxes, strict=True):
        top, left = (round(SIDE * (a + b) / 2) - CELL for a, b in ((y0, y1), (x0, x1)))
        picture[top : top + 2 * CELL, left : left + 2 * CELL] = 255
    net = explainable(Spots())
    layers = layers_to_show(net, pixels[:1])
    found = play(list(heat_maps(net, pixels, torch.zeros(12, dtype=torch.int64), layers)), boxes)
    assert found.hits == 12
    assert found.heat > 0.75 > found.area
