"""Cluttered backgrounds for the built-in insects: sky, grass, leaves, flowers, stones, twigs.

Letters: S side of the picture in pixels, N shapes, P points of an outline.
Nothing here knows which insect will sit on it, so no background can give a class away.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float64]
Rgb = tuple[int, int, int]

# Pillow draws without antialiasing: draw at twice the size, then average.
SUPERSAMPLING = 2

GREENS: list[Rgb] = [(92, 140, 52), (58, 104, 44), (134, 164, 70), (70, 120, 86), (150, 150, 60)]
BLOSSOMS: list[Rgb] = [
    (236, 232, 226), (240, 196, 46), (226, 120, 160), (150, 110, 200), (222, 84, 60),
    (245, 222, 120),
]  # fmt: skip
STONES: list[Rgb] = [(140, 134, 126), (112, 104, 98), (176, 164, 146), (92, 92, 98)]
WOODS: list[Rgb] = [(112, 82, 54), (76, 56, 42), (146, 116, 84)]
INSECT_LIGHT: list[Rgb] = [(226, 188, 40), (190, 138, 56), (214, 160, 44)]
INSECT_DARK: list[Rgb] = [(24, 20, 18), (62, 40, 24), (44, 32, 26)]
GROUNDS: list[list[Rgb]] = [
    [(126, 178, 226), (206, 222, 236), (168, 200, 226)],
    GREENS,
    STONES,
    [(196, 172, 128), (168, 140, 100), (214, 196, 160)],
    [(60, 72, 44), (84, 100, 54), (46, 52, 40)],
    [(226, 210, 190), (240, 220, 170), (210, 180, 190)],
]

_turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
ELLIPSE = np.stack([np.cos(_turn), np.sin(_turn)], axis=-1)  # [P, 2]
LEAF = np.stack([np.cos(_turn), np.sin(_turn) * np.abs(np.sin(_turn / 2 + 0.3))], axis=-1)
BLADE = np.array([[0.0, -1.0], [0.5, -0.7], [1.0, 0.0], [0.5, 0.3], [0.0, 1.0]])


def background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Draw one background and return it as float32 [3, S, S] between 0 and 1."""
    side = size * SUPERSAMPLING
    picture = _ground(rng, side)
    draw = ImageDraw.Draw(picture)
    for paint in rng.choice(len(PAINTERS), size=rng.integers(2, 4)):
        PAINTERS[paint](rng, draw, side)
    _striped_pods(rng, draw, side)
    blur = ImageFilter.BoxBlur(rng.uniform(0.0, 0.02) * size)
    small = picture.reduce(SUPERSAMPLING).filter(blur)
    return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def place(
    outline: Floats, centre: Floats, angle: Floats, length: Floats, width: Floats
) -> list[list[float]]:
    """Turn one outline [P, 2] into N placed ones, each the flat x, y list that Pillow draws."""
    local = outline * np.stack([length, width], axis=-1)[:, None]  # [N, P, 2]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x = local[..., 0] * cos - local[..., 1] * sin + centre[:, :1]
    y = local[..., 0] * sin + local[..., 1] * cos + centre[:, 1:]
    placed: list[list[float]] = np.stack([x, y], axis=-1).reshape(len(angle), outline.size).tolist()
    return placed


def shades(rng: np.random.Generator, palette: list[Rgb], count: int, spread: int = 26) -> list[Rgb]:
    """Pick colours of a palette, each a little brighter or darker than it stands there."""
    chosen = np.asarray(palette)[rng.integers(len(palette), size=count)]
    varied = chosen + rng.integers(-spread, spread + 1, size=(count, 1))
    return [(int(r), int(g), int(b)) for r, g, b in varied.clip(0, 255)]


def _ground(rng: np.random.Generator, side: int) -> Image.Image:
    """Return a soft gradient or mottled ground: a few random colours, smoothly enlarged."""
    cells = int(rng.choice([2, 3, 5, 9]))
    colours = shades(rng, GROUNDS[rng.integers(len(GROUNDS))], cells * cells, spread=34)
    coarse = np.asarray(colours, dtype=np.uint8).reshape(cells, cells, 3)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def _scatter(rng: np.random.Generator, count: int, side: int) -> tuple[Floats, Floats]:
    """Return N centres, also a little outside the picture, and N angles."""
    return rng.uniform(-0.1, 1.1, (count, 2)) * side, rng.uniform(0, 2 * np.pi, count)


def _grass(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    count = int(rng.integers(14, 34))
    centre, angle = _scatter(rng, count, side)
    angle = angle[0] + rng.normal(0, 0.25, count)  # blades of one tuft lean the same way
    length, width = rng.uniform(0.3, 0.9, count) * side, rng.uniform(0.01, 0.03, count) * side
    blades = place(BLADE, centre, angle, length, width)
    for blade, colour in zip(blades, shades(rng, GREENS, count), strict=True):
        draw.polygon(blade, fill=colour)


def _leaves(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    count = int(rng.integers(4, 12))
    centre, angle = _scatter(rng, count, side)
    length = rng.uniform(0.12, 0.4, count) * side
    leaves = place(LEAF, centre, angle, length, length * rng.uniform(0.3, 0.6))
    ribs = place(np.array([[-1.0, 0.0], [1.0, 0.0]]), centre, angle, length, length)
    colours = shades(rng, GREENS, count)
    for leaf, rib, colour in zip(leaves, ribs, colours, strict=True):
        draw.polygon(leaf, fill=colour)
        draw.line(rib, fill=_darker(colour), width=max(1, side // 96))


def _flowers(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    for colour in shades(rng, BLOSSOMS, int(rng.integers(1, 5))):
        petals, radius = int(rng.integers(5, 12)), rng.uniform(0.06, 0.2) * side
        centre = rng.uniform(0, 1, 2) * side
        angle = rng.uniform(0, 2 * np.pi) + np.arange(petals) * 2 * np.pi / petals
        around = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        length = np.full(petals, radius * 0.75)
        for number, petal in enumerate(place(ELLIPSE, around, angle, length, length * 0.5)):
            draw.polygon(petal, fill=_darker(colour) if number % 2 else colour)
        heart = shades(rng, INSECT_LIGHT + WOODS, 1)[0]
        draw.circle((float(centre[0]), float(centre[1])), radius * 0.5, fill=heart)


def _stones(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    count = int(rng.integers(4, 12))
    centre, angle = _scatter(rng, count, side)
    length = rng.uniform(0.06, 0.22, count) * side
    width = length * rng.uniform(0.6, 1.0, count)
    whole = place(ELLIPSE, centre, angle, length, width)
    lit = place(ELLIPSE, centre - 0.15 * length[:, None], angle, length * 0.7, width * 0.7)
    for stone, light, colour in zip(whole, lit, shades(rng, STONES, count), strict=True):
        draw.polygon(stone, fill=_darker(colour))
        draw.polygon(light, fill=colour)


def _twigs(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    count = int(rng.integers(2, 6))
    centre, angle = _scatter(rng, count, side)
    length, width = rng.uniform(0.3, 1.0, count) * side, rng.uniform(0.01, 0.04, count) * side
    twigs = place(ELLIPSE, centre, angle, length, width)
    for twig, colour in zip(twigs, shades(rng, WOODS, count), strict=True):
        draw.polygon(twig, fill=colour)


def _bokeh(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    count = int(rng.integers(5, 14))
    centre, angle = _scatter(rng, count, side)
    radius = rng.uniform(0.03, 0.12, count) * side
    discs = place(ELLIPSE, centre, angle, radius, radius)
    colours = shades(rng, BLOSSOMS + INSECT_LIGHT + INSECT_DARK, count)
    for disc, colour in zip(discs, colours, strict=True):
        draw.polygon(disc, fill=colour)


def _striped_pods(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    """Scatter striped pods in the insects' colours: stripes and yellow alone decide nothing."""
    count = int(rng.integers(0, 5))
    centre, angle = _scatter(rng, count, side)
    length = rng.uniform(0.05, 0.16, count) * side
    width = length * rng.uniform(0.4, 1.0, count)
    light, dark = shades(rng, INSECT_LIGHT, count), shades(rng, INSECT_DARK, count)
    for pod, colour in zip(place(ELLIPSE, centre, angle, length, width), light, strict=True):
        draw.polygon(pod, fill=colour)
    for start in np.linspace(-0.9, 0.6, int(rng.integers(2, 5))):
        bands = place(_band(start, start + 0.22), centre, angle, length, width)
        for band, colour in zip(bands, dark, strict=True):
            draw.polygon(band, fill=colour)


def _band(start: float, stop: float) -> Floats:
    """Return the outline of the slice of the unit circle between two places on its axis."""
    along = np.array([start, start, stop, stop])
    across = np.sqrt(1 - along**2) * np.array([-1, 1, 1, -1])
    return np.stack([along, across], axis=-1)


def _darker(colour: Rgb) -> Rgb:
    return colour[0] * 3 // 4, colour[1] * 3 // 4, colour[2] * 3 // 4


Painter = Callable[[np.random.Generator, ImageDraw.ImageDraw, int], None]
PAINTERS: list[Painter] = [_grass, _leaves, _flowers, _stones, _twigs, _bokeh]
