"""Pictures with parts taken away, and the scores on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.calibration import Decision
from src.data.dataset import Pictures
from src.data.index import Index
from src.forward import evaluate, evenly, take
from src.judged import Judged
from src.shortcut import LOOKS, blurred, grey, look, only_border, only_centre


def square(side: int = 8) -> Tensor:
    """A white picture with a black frame of one pixel."""
    pixels = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    pixels[:, 1:-1, 1:-1] = 255
    return pixels


class TestAlterations:
    def test_centre_and_border(self) -> None:
        """The middle half of 8 x 8 pixels is 6 x 6: those whose middle lies within 0.354."""
        mean = round(255 * 36 / 64)
        centre, border = only_centre(square()), only_border(square())
        assert (centre[0, 1:-1, 1:-1] == 255).all()
        assert (centre[0, 0] == mean).all()
        assert (border[0, 1:-1, 1:-1] == mean).all()
        assert (border[0, 0] == 0).all()

    def test_grey(self) -> None:
        pixels = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
        pixels[..., 0] = 255
        assert grey(pixels).unique().tolist() == [76]  # 0.299 * 255

    def test_blur_leaves_what_is_even_and_takes_detail(self) -> None:
        even = torch.full((2, 40, 40, 3), 90, dtype=torch.uint8)
        assert torch.equal(blurred(even), even)
        board = torch.zeros(1, 100, 100, 3, dtype=torch.uint8)
        board[:, ::2] = 200
        assert (blurred(board)[:, 20:-20].int() - 100).abs().max() <= 2
        assert blurred(torch.zeros(1, 2, 2, 3, dtype=torch.uint8)).shape == (1, 2, 2, 3)

    def test_none_changes_its_input(self) -> None:
        pixels = square()
        for _, _, alter in LOOKS:
            if alter is not None:
                alter(pixels)
        assert torch.equal(pixels, square())


def coloured_centres(folder: Path, number: int) -> Pictures:
    """Pictures with a red or a blue middle on a green ground, by turns; the last has no label."""
    for i in range(number):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[..., 1] = 200
        pixels[4:12, 4:12] = (255, 0, 0) if i % 2 == 0 else (0, 0, 255)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    labels = np.arange(number) % 2
    labels[-1] = -1
    names = tuple(f"{i}.png" for i in range(number))
    splits = np.array(["val"] * number)
    return Pictures(Index(folder, ("red", "blue"), names, labels, splits, names), 16, "stretch")


def red_or_blue(pixels: Tensor) -> Tensor:
    return pixels[..., [0, 2]].float().mean((1, 2))


def test_a_network_that_goes_by_the_colour_of_the_middle(tmp_path: Path) -> None:
    pictures = coloured_centres(tmp_path, 21)
    table = evaluate(red_or_blue, pictures, 8).labelled()
    model: Any = SimpleNamespace(net=red_or_blue, decision=Decision())
    looks = {k.name: k for k in look(Judged(model, pictures, table, 21), 8)}
    assert {k.n for k in looks.values()} == {20}
    assert looks["as they are"].accuracy == looks["centre alone"].accuracy == 1
    assert looks["grey"].accuracy == 0.5  # both alike: always the first class
    assert looks["blurred"].accuracy == 1
    low, high = looks["grey"].interval
    assert low < 0.5 < high


def test_what_is_evenly_spread() -> None:
    assert evenly(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly(3, 5).tolist() == [0, 1, 2]
    assert evenly(0, 5).tolist() == []


def test_taken_pictures_keep_their_pixels(tmp_path: Path) -> None:
    pictures = coloured_centres(tmp_path, 6)
    some = take(pictures, np.array([5, 2]))
    assert len(some) == 2
    assert np.array_equal(some.pixels(0, 1), pictures.pixels(0, 2))
