"""The bodies of the built-in bees and wasps: what each looks like, and how it is painted.

The insect is seen from above. u runs along its body from the tail (-1) to the head (1), v across
it. Every part is a distance in (u, v), so a pose is a change of coordinates, edges are smooth
without supersampling, and the outline is known for the box.

S: side of the picture in pixels. P: points of a line. Planes are float32, 0 to 1, colour first:
numpy is three times as fast on [3, S, S] as on [S, S, 3].
"""

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from src.data.scenery import SUPERSAMPLING, Rgb

Plane = NDArray[np.floating[Any]]  # [S, S] or [3, S, S], or a window of one
Colour = NDArray[np.float32]  # [3, 1, 1]
Points = NDArray[np.float64]  # [..., P, 2]: u, v
Window = tuple[slice, slice]  # rows, columns
Part = tuple[float, float, float]  # centre along u, radius along u, radius across


class Anatomy(NamedTuple):
    """What makes a bee a bee and a wasp a wasp; lengths in half body lengths, colours 0 to 255."""

    length: float  # of the body, against the other insect's
    head: Part
    thorax: Part
    abdomen: Part
    taper: float  # how much slimmer the abdomen gets towards its tip
    waist: float  # half width of the link between thorax and abdomen
    stripes: float  # pairs of bands on the abdomen
    point: float  # how far the bands run to a point along the back
    edge: float  # sharpness of the bands: 1 flows, 5 is cut
    fuzz: float  # how far hairs stand out
    gloss: float  # strength of the glint on the shell
    wing: tuple[float, float, float]  # length, width, angle from the body in radians
    leg: float  # length of a leg's outer half
    antenna: float
    light: Rgb
    dark: Rgb
    limb: Rgb


# The sizes and colours are balanced: the average picture of both classes has nearly the same
# colour, so that shape and pattern alone tell them apart. tests/test_sources.py measures it.
BEE = Anatomy(
    length=0.94, head=(0.74, 0.20, 0.26), thorax=(0.38, 0.34, 0.39), abdomen=(-0.34, 0.60, 0.45),
    taper=0.10, waist=0.26, stripes=2.6, point=0.0, edge=1.1, fuzz=0.10, gloss=0.06,
    wing=(0.84, 0.24, 0.85), leg=0.22, antenna=0.20,
    light=(224, 176, 76), dark=(64, 42, 26), limb=(58, 40, 30),
)  # fmt: skip
WASP = Anatomy(
    length=1.0, head=(0.83, 0.14, 0.20), thorax=(0.48, 0.27, 0.22), abdomen=(-0.43, 0.57, 0.27),
    taper=0.55, waist=0.035, stripes=4.2, point=0.15, edge=5.0, fuzz=0.0, gloss=0.4,
    wing=(1.02, 0.14, 0.62), leg=0.40, antenna=0.34,
    light=(252, 210, 44), dark=(24, 19, 16), limb=(116, 66, 24),
)  # fmt: skip
ANATOMY = {"bee": BEE, "wasp": WASP}


class Layer:
    """A transparent sheet to paint parts on, one over the other."""

    def __init__(self, size: int) -> None:
        self.colour: Plane = np.zeros((3, size, size), np.float32)  # already times cover
        self.cover: Plane = np.zeros((size, size), np.float32)

    def paint(self, window: Window, cover: Plane, colour: Plane) -> None:
        """Paint one part, given for the window alone."""
        below, covered = self.colour[:, *window], self.cover[window]  # views
        below += cover * (colour - below)
        covered += cover * (1 - covered)


class _Body:
    """The coordinates of one insect in a random pose, and the shapes drawn in them."""

    def __init__(self, rng: np.random.Generator, size: int, length: float) -> None:
        self.size = size
        self.centre = rng.uniform(0.32, 0.68, 2) * size
        self.scale = rng.uniform(0.24, 0.40) * size * length  # pixels of half a body length
        self.angle = rng.uniform(0, 2 * np.pi)
        self.squeeze = rng.uniform(0.85, 1.05)  # an insect that leans to a side looks slimmer
        self.bend = rng.uniform(-0.14, 0.14)  # the body curves to a side
        y, x = np.mgrid[:size, :size] + 0.5
        x, y = (x - self.centre[0]) / self.scale, (y - self.centre[1]) / self.scale
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u, v = x * cos + y * sin, y * cos - x * sin
        self.u: Plane = u.astype(np.float32)
        self.v: Plane = (v / self.squeeze - self.bend * u**2).astype(np.float32)
        self.side: Plane = np.abs(self.v)  # what is painted in (u, side) comes in pairs
        self.hair: Plane = rng.random((size, size), dtype=np.float32) * 2 - 1
        self.window: Window = (slice(0, size), slice(0, size))

    def near(self, u: float, reach: float) -> "_Body":
        """Return this body seen through a window: painting a part costs its area alone."""
        x, y = self.pixels(np.array([u, 0.0]))
        spread = (reach + 0.2) * self.scale + 1  # fuzz and bend reach further
        part = copy.copy(self)
        part.window = _span(y, spread), _span(x, spread)
        part.u, part.v = self.u[part.window], self.v[part.window]
        part.side, part.hair = self.side[part.window], self.hair[part.window]
        return part

    def pixels(self, points: Points) -> Points:
        """Turn points u, v into the picture's x, y."""
        u, v = points[..., 0], points[..., 1]
        v = (v + self.bend * u**2) * self.squeeze
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = np.stack([u * cos - v * sin, u * sin + v * cos], axis=-1)
        placed: Points = turned * self.scale + self.centre
        return placed

    def ellipse(self, part: Part, taper: float = 0.0, fuzz: float = 0.0) -> tuple[Plane, ...]:
        """Return an ellipse on the axis: its cover, and its own coordinates t along, s across."""
        centre, long, wide = part
        t = (self.u - centre) / long
        s = self.v / (wide * (1 + taper * t.clip(-1, 1)))
        distance = (np.sqrt(t * t + s * s) - 1) * min(long, wide) + fuzz * 0.6 * self.hair
        return self.cover(distance, fuzz), t, s

    def cover(self, distance: Plane, soft: float = 0.0) -> Plane:
        """Turn the distance to an outline into cover: 1 inside, 0 outside, a soft edge between."""
        covered: Plane = (0.5 - distance / (1 / self.scale + soft)).clip(0, 1)
        return covered


def _span(centre: float, spread: float) -> slice:
    return slice(max(0, int(centre - spread)), max(0, int(centre + spread) + 1))


def paint_insect(rng: np.random.Generator, what: Anatomy, size: int) -> Layer:
    """Paint one insect in a random pose on a transparent sheet."""
    body, layer = _Body(rng, size, what.length), Layer(size)
    light, dark = _varied(rng, what.light), _varied(rng, what.dark)
    layer.paint(body.window, _limbs(rng, what, body), _varied(rng, what.limb))
    _paint_abdomen(layer, body, what, light, dark, shift=rng.uniform(0.6, 1.2))
    _paint_thorax(layer, body, what, light, dark)
    _paint_head(layer, body, what, light, dark)
    opening = rng.uniform(-0.2, 0.15)
    for share, turn in ((1.0, opening), (0.72, opening - 0.34)):
        _paint_wings(layer, body, what, share, turn)
    return layer


def _varied(rng: np.random.Generator, colour: Rgb) -> Colour:
    """Make a body colour differ a little from insect to insect."""
    factor = rng.uniform(0.82, 1.12) * rng.uniform(0.94, 1.06, 3)
    varied: Colour = (np.array(colour) / 255 * factor).clip(0, 1).astype(np.float32)[:, None, None]
    return varied


def _limbs(rng: np.random.Generator, what: Anatomy, body: _Body) -> Plane:
    """Draw six legs and two antennae as bent lines, and return their cover."""
    root, out, reach = what.thorax[2] * 0.5, what.thorax[2] * 0.7 + 0.26, what.leg
    brow, feeler = what.head[0] + what.head[1] * 0.6, what.antenna
    half = np.array([
        [[0.55, root], [0.78, out], [0.70 + 0.6 * reach, out + 0.8 * reach]],
        [[0.38, root], [0.38, out], [0.28, out + 0.9 * reach]],
        [[0.22, root], [-0.03, out], [-0.12 - 0.7 * reach, out + 0.8 * reach]],
        [[brow, 0.07], [brow + 0.45 * feeler, 0.15], [brow + 1.2 * feeler, 0.12 + 0.7 * feeler]],
    ])  # fmt: skip
    both = np.concatenate([half, half * [1, -1]])  # [8, P, 2]
    both[:, 1:] += rng.normal(0, 0.05, (8, 2, 2))
    sheet = Image.new("L", (body.size * SUPERSAMPLING,) * 2)
    pen, width = ImageDraw.Draw(sheet), max(1, round(0.055 * body.scale * SUPERSAMPLING))
    for line in (body.pixels(both) * SUPERSAMPLING).reshape(8, -1).tolist():
        pen.line(line, fill=255, width=width, joint="curve")
    return np.asarray(sheet.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def _rounded(colour: Plane, s: Plane, gloss: float) -> Plane:
    """Shade a part as if it were round: darker to its edges, a glint along one side."""
    glint = 0.5 * gloss * np.exp(-18 * (s + 0.35) ** 2) if gloss else 0
    return colour * (1 - 0.45 * (s * s).clip(0, 1)) + glint


def _paint_abdomen(
    layer: Layer, body: _Body, what: Anatomy, light: Colour, dark: Colour, shift: float
) -> None:
    front = what.abdomen[0] + what.abdomen[1]
    body = body.near(what.abdomen[0] + 0.1, what.abdomen[1] + 0.1)
    link = np.maximum(body.side - what.waist, np.abs(body.u - front) - 0.18)
    layer.paint(body.window, body.cover(link), dark)
    cover, t, s = body.ellipse(what.abdomen, what.taper, what.fuzz)
    bowed = t + 0.07 * s * s
    if what.point:
        bowed -= what.point * np.exp(-9 * s * s)
    band = (0.5 + np.sin(bowed * what.stripes * np.pi + shift) * (what.edge / 2)).clip(0, 1)
    colour = (dark + (light - dark) * band) * _furry(body, what)
    layer.paint(body.window, cover, _rounded(colour, s, what.gloss))


def _furry(body: _Body, what: Anatomy) -> Plane:
    """Return the light and dark of single hairs, 1 where the shell is bare."""
    return 1 + (0.25 if what.fuzz else 0) * body.hair


def _paint_thorax(layer: Layer, body: _Body, what: Anatomy, light: Colour, dark: Colour) -> None:
    body = body.near(what.thorax[0], max(what.thorax[1:]))
    cover, t, s = body.ellipse(what.thorax, 0, 1.3 * what.fuzz)
    if what.fuzz:  # a fur collar around a darker back
        share = 1 - 0.6 * np.exp(-2.5 * (t * t + s * s))
    else:  # a black shell with two streaks and a bar behind
        streaks = (np.abs(np.abs(s) - 0.62) < 0.15) & (t > -0.1)
        share = (streaks | ((t < -0.6) & (np.abs(s) < 0.6))).astype(np.float32)
    colour = (dark + (light - dark) * share) * _furry(body, what)
    layer.paint(body.window, cover, _rounded(colour, s, what.gloss))


def _paint_head(layer: Layer, body: _Body, what: Anatomy, light: Colour, dark: Colour) -> None:
    body = body.near(what.head[0], max(what.head[1:]) + 0.05)
    cover, t, s = body.ellipse(what.head, 0, 0.5 * what.fuzz)
    face = (t > 0.1) * np.float32(0.4 if what.fuzz else 1)
    layer.paint(body.window, cover, _rounded(dark + (light - dark) * face, s, what.gloss))
    u, v = body.u - what.head[0] - 0.02, body.side - 0.8 * what.head[2]
    eye = (np.hypot(u / 0.11, v / 0.085) - 1) * 0.09
    layer.paint(body.window, body.cover(eye), np.full((3, 1, 1), 0.06, np.float32))
    shine = np.hypot(u - 0.03, v) - 0.03
    layer.paint(body.window, body.cover(shine), np.full((3, 1, 1), 0.92, np.float32))


def _paint_wings(layer: Layer, body: _Body, what: Anatomy, share: float, turn: float) -> None:
    """Paint a pair of glassy wings with a darker rim."""
    length, width, opening = what.wing
    body = body.near(what.thorax[0] - 0.02, (length + 0.1) * share + 0.1)
    angle = np.pi - opening - turn
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = body.u - what.thorax[0] + 0.02, body.side - 0.55 * what.thorax[2]
    along = (u * cos + v * sin) * 2 / (length * share) - 1
    across = (v * cos - u * sin) / (width * share * (1 + 0.35 * along.clip(-1, 1)))
    distance = (np.hypot(along, across) - 1) * width
    inside = body.cover(distance)
    rim = inside * (1 - body.cover(distance + 0.05))
    glass = np.array([0.86, 0.90, 0.94], np.float32)[:, None, None]
    layer.paint(body.window, inside * 0.42 + rim * 0.3, glass * (1 - 0.45 * rim))
