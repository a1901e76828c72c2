"""The peer "torch + PIL": torch's DataLoader over pictures that PIL decodes each time.

Its transforms are those of torchvision for PIL pictures, written out, with the same draws in the
same order: Resize, RandomAffine, RandomHorizontalFlip, ToTensor. RandomAffine takes the bilinear
filter here, as our own augmentation does; torchvision's default, the nearest pixel, is coarser.
So torchvision need not be installed, and with torch and Pillow alone in it an environment of its
own would hold the project's very packages: this peer shares the project's.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SIDE = 150  # pixels
Matrix = tuple[float, float, float, float, float, float]


def to_tensor(picture: Image.Image) -> Tensor:
    """Return float32 [3, H, W] between 0 and 1."""
    pixels = torch.from_numpy(np.array(picture, copy=True))
    return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def inverse_matrix(
    size: tuple[int, int], angle: float, shift: tuple[float, float], scale: float
) -> Matrix:
    """Return what leads from a place in the result to its place in the picture.

    Args:
        size: Width and height in pixels; their middle stays where it is.
        angle: In degrees, clockwise.
        shift: To the right and down, in pixels.
        scale: Above 1 the content grows.
    """
    x, y = size[0] * 0.5, size[1] * 0.5
    cos, sin = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
    across, down = -x - shift[0], -y - shift[1]
    return (cos, sin, cos * across + sin * down + x, -sin, cos, cos * down - sin * across + y)


def affine(
    picture: Image.Image, angle: float, shift: tuple[float, float], scale: float
) -> Image.Image:
    """Turn, shift and scale a picture; what comes in from outside is black."""
    matrix = inverse_matrix(picture.size, angle, shift, scale)
    filtering = Image.Resampling.BILINEAR
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, filtering)


def random_affine(picture: Image.Image) -> Image.Image:
    """Apply the seed's rotation, shift and zoom, drawn anew."""

    def drawn(low: float, high: float) -> float:
        return float(torch.empty(1).uniform_(low, high).item())

    angle = drawn(-50, 50)
    most = [0.1 * side for side in picture.size]
    shift = (round(drawn(-most[0], most[0])), round(drawn(-most[1], most[1])))
    return affine(picture, angle, shift, drawn(0.9, 1.1))


def random_flip(picture: Image.Image, p: float = 0.5) -> Image.Image:
    """Mirror a picture with probability `p`."""
    if torch.rand(1) < p:
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture


class PilPictures(Dataset[Any]):
    """The pictures of a folder with a folder for each class, decoded and augmented at each look.

    Args:
        folder: As torchvision's ImageFolder takes it.
    """

    def __init__(self, folder: Path) -> None:
        classes = sorted(path for path in folder.iterdir() if path.is_dir())
        self.samples = [
            (path, label)
            for label, one in enumerate(classes)
            for path in sorted(one.rglob("*"))
            if path.is_file()
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        path, label = self.samples[row]
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return to_tensor(random_flip(random_affine(picture))), label


def make_net() -> nn.Sequential:
    """Return the seed's network as one writes it down."""
    side = (SIDE - 2) // 2
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * side * side, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    )


class TorchPil:
    """The two measurements of this peer, each of which returns images a second.

    Args:
        folder: The training pictures, with a folder for each class.
        batch_size: Of a step; a shorter last batch is left out.
        steps: Of one measurement, from 2; the first one is not timed.
    """

    def __init__(self, folder: Path, batch_size: int = 20, steps: int = 30) -> None:
        self.batch_size, self.steps = batch_size, steps
        self._loader: Any = DataLoader(
            PilPictures(folder), batch_size=batch_size, shuffle=True, drop_last=True
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self._loader

    def loader(self) -> float:
        """Return images a second of the loader alone."""
        batches = self._batches()
        return self._timed(lambda: next(batches))

    def train(self) -> float:
        """Return images a second of a plain training loop."""
        batches, net = self._batches(), make_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.8)
        loss = nn.BCEWithLogitsLoss()

        def step() -> None:
            images, target = next(batches)
            optimizer.zero_grad()
            loss(net(images).squeeze(1), target.float()).backward()
            optimizer.step()

        return self._timed(step)

    def _timed(self, once: Callable[[], Any]) -> float:
        once()
        start = time.perf_counter()
        for _ in range(self.steps - 1):
            once()
        return (self.steps - 1) * self.batch_size / (time.perf_counter() - start)
