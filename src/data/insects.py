"""Stylised bees and wasps over cluttered backgrounds, drawn with numpy and Pillow.

Each picture is a pure function of (seed, split, class, number, size): none depends on how many
others are made, or on the order in which they are. S: side of the picture in pixels.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

from src.data.anatomy import ANATOMY, Plane, paint_insect
from src.data.scenery import background

CLASSES = tuple(ANATOMY)
SPLITS = ("train", "test")
VISIBLE = 0.05  # fainter cover does not count for the box


class Box(NamedTuple):
    """The pixels that an insect covers, half-open: x0 <= x < x1 and y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int


def write_insects(folder: Path, counts: Mapping[str, int], size: int, seed: int) -> None:
    """Write all pictures as PNG files, and their boxes.

    Args:
        folder: Gets `<split>/<class>/0001.png` and so on, and `boxes.csv`.
        counts: Pictures of each class, for each split.
        size: Side of the pictures in pixels.
        seed: Seed of the whole collection.
    """
    total = sum(counts.values()) * len(CLASSES)
    with (
        (folder / "boxes.csv").open("w", encoding="utf-8", newline="") as table,
        tqdm(total=total, desc="drawing bees and wasps", unit="picture", disable=None) as bar,
    ):
        table.write("path,x0,y0,x1,y1\n")
        for split, name in product(counts, CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(1, counts[split] + 1):
                path = f"{split}/{name}/{number:04d}.png"
                pixels, box = draw(seed, split, name, number, size)
                # Noise hardly packs: the first level is as small as the sixth, and faster.
                Image.fromarray(pixels).save(folder / path, compress_level=1)
                table.write(",".join([path, *map(str, box)]) + "\n")
                bar.update()


def draw(
    seed: int, split: str, name: str, number: int, size: int, insect: bool = True
) -> tuple[NDArray[np.uint8], Box]:
    """Draw one picture and tell where its insect is.

    Args:
        seed: Seed of the whole collection.
        split: `train` or `test`.
        name: Class, `bee` or `wasp`.
        number: Which picture of that class, from 1.
        size: Side of the picture in pixels.
        insect: False leaves the insect out and everything else, the noise too, as it was.

    Returns:
        The picture, uint8 [S, S, 3], and the box of the insect.
    """
    key = [seed, SPLITS.index(split), CLASSES.index(name), number]
    scene_rng, insect_rng, light_rng = (np.random.default_rng([*key, part]) for part in range(3))
    picture: Plane = background(scene_rng, size)
    layer = paint_insect(insect_rng, ANATOMY[name], size)
    if insect:
        picture = picture * (1 - layer.cover) + layer.colour
    blur = ImageFilter.GaussianBlur(light_rng.uniform(0.0, 0.008) * size)
    pixels = _photograph(light_rng, _image(picture.transpose(1, 2, 0)).filter(blur))
    seen = Image.fromarray(layer.cover > VISIBLE)
    return pixels, Box(*(seen.getbbox() or (0, 0, 0, 0)))


def _image(plane: Plane) -> Image.Image:
    return Image.fromarray((plane.clip(0, 1) * 255).astype(np.uint8))


def _photograph(rng: np.random.Generator, picture: Image.Image) -> NDArray[np.uint8]:
    """Put the scene under a light of random strength, contrast and colour, and add noise."""
    values: Plane = np.asarray(picture, dtype=np.float32)
    contrast, brightness = np.float32(rng.uniform(0.75, 1.15)), rng.uniform(0.7, 1.25)
    cast = (brightness * rng.uniform(0.88, 1.12, 3)).astype(np.float32)
    noise = rng.standard_normal(values.shape, dtype=np.float32) * np.float32(rng.uniform(1, 8))
    lit: Plane = ((values - 128) * contrast + 128) * cast + noise
    return lit.clip(0, 255).astype(np.uint8)
