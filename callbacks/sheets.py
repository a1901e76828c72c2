"""Contact sheets: pictures side by side, each with a few words below."""

import math
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, SOFT, BAD, PAPER = "#1d1b16", "#6b665a", "#b3261e", "#ffffff"
GAP = 12  # pixels between the pictures
LINE = 19  # pixels of a line of text
_FONT = 14
_NARROWED = 0.88  # DejaVu at this size takes the room of Pillow's font at 1
_SMALL, _LARGE = 128, 256  # sides that smaller pictures are enlarged to, and larger ones reduced

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[Sequence[str]]
) -> Image.Image:
    """Return pictures side by side with their captions; the second line of each stands out.

    A side below 128 pixels is multiplied by a whole number, each pixel a square, so that every
    value stays as the network saw it. A side above 256 is reduced.

    Args:
        images: uint8 [H, W, 3], one or more, of one size.
        captions: Lines for each picture, as many for each; too long ones are shortened.
    """
    pictures = [_sized(Image.fromarray(pixels)) for pixels in images]
    width, height = pictures[0].size
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    cell, block = max(width, _SMALL), height + LINE * len(captions[0]) + GAP
    sheet = Image.new("RGB", (columns * (cell + GAP) + GAP, rows * block + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (picture, lines) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, columns)
        x, y = GAP + column * (cell + GAP), GAP + row * block
        sheet.paste(picture, (x, y))
        for below, text in enumerate(lines):
            place = (x, y + height + 2 + LINE * below)
            words = shortened(text, font(_FONT), cell)
            draw.text(place, words, fill=BAD if below else INK, font=font(_FONT))
    return sheet


def _sized(picture: Image.Image) -> Image.Image:
    side = max(picture.size)
    if side > _LARGE:
        picture.thumbnail((_LARGE, _LARGE), Image.Resampling.BILINEAR)
        return picture
    times = max(1, _SMALL // side)
    if times == 1:
        return picture
    size = (picture.width * times, picture.height * times)
    return picture.resize(size, Image.Resampling.NEAREST)


@cache
def font(size: int) -> Font:
    """Return a font with Latin, Greek and Cyrillic letters: the DejaVu Sans of matplotlib.

    No package of the base install has one: without matplotlib it is Pillow's own, which draws
    boxes for all letters but those of English.

    Args:
        size: In pixels, of Pillow's own; DejaVu is set smaller, since its letters are wider.
    """
    found = find_spec("matplotlib")
    if found and found.origin:
        path = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size * _NARROWED)
    return ImageFont.load_default(size)


def shortened(text: str, letters: Font, width: float) -> str:
    """Return a text that is no wider than so many pixels: its end goes, and dots stand for it."""
    whole = text.encode("utf-8", "replace").decode()  # a file name may hold what no font can draw
    if letters.getlength(whole) <= width:
        return whole
    kept = len(whole)
    while kept > 1 and letters.getlength(whole[:kept].rstrip() + "...") > width:
        kept -= 1
    return whole[:kept].rstrip() + "..."
