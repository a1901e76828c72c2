"""Bundles whose answers can be worked out by hand: the network sees how red the middle is.

N pictures, S = 16 the side of what the network takes, C classes.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from src.bundle import MODELS, Bundle
from src.bundle_files import write_record, write_validation
from src.calibration import Decision
from src.known import Known
from src.onnx_file import write_onnx
from src.preprocess import Preprocessing
from src.table import Table

SIDE = 16
MIDDLE = slice(4, 12)  # of rows and columns
STRENGTH = 4.0
RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)
Colour = tuple[int, int, int]


class Middle(nn.Module):
    """Logits from the mean colour of the middle; the last layer takes just that.

    Args:
        weights: [C][3], by red, green and blue from 0 to 1.
    """

    def __init__(self, weights: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.head = nn.Linear(3, len(weights), bias=False)
        self.head.weight.data = torch.tensor(weights, dtype=torch.float32)

    def forward(self, pixels: Tensor) -> Tensor:
        colours = pixels.permute(0, 3, 1, 2).float() / 255
        logits: Tensor = self.head(colours[:, :, MIDDLE, MIDDLE].mean((2, 3)))
        return logits


def redness(red: float, blue: float = 0.0) -> float:
    """Return the probability of red for a mean of the middle, each 0 to 1."""
    return 1 / (1 + math.exp(-STRENGTH * (red - blue)))


def write_bundle(
    folder: Path,
    classes: Sequence[str],
    weights: Sequence[Sequence[float]],
    known: Sequence[tuple[int, Sequence[float], Colour]] = (),
    threshold: float | None = None,
    compared: bool = True,
    split: str = "val",
) -> Path:
    """Write a bundle.

    Args:
        folder: Is made.
        classes: C names.
        weights: Of the network.
        known: Validation pictures: the class, its probabilities [C], and a colour.
        threshold: Of the decision.
        compared: Whether it says that it was compared with the trained network.
        split: Of the pictures.
    """
    folder.mkdir()
    net, decision = Middle(weights).eval(), Decision(threshold=threshold)
    rule = Preprocessing(image_size=SIDE, resize="stretch", classes=tuple(classes))
    write_onnx(net, 1.0, SIDE, folder / MODELS["fp32"])
    score = {"n": 6, "accuracy": 0.75, "accuracy_interval": [0.5, 0.875], "baseline_accuracy": 0.5}
    about = {
        "run": "<b>by hand</b>",
        "network": "Middle",
        "parameters": 6,
        "scores": {split: score} if known else {},
        "parity": {"pictures": 6, "largest_difference": 0.0, "split": split} if compared else None,
        "models": {},
    }
    write_record(folder, rule, decision, about)
    if known:
        labels, shares, colours = zip(*known, strict=True)
        table = Table.from_rows(range(len(known)), labels, np.log(np.array(shares)))
        pixels = np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in colours])
        paths = tuple(f"val/{row}.png" for row in range(len(known)))
        bundle = Bundle(folder)
        write_validation(Known(split, paths, table, pixels), bundle, decision, pictures=True)
        write_record(folder, rule, decision, about)
    return folder


def picture(middle: Colour = RED, around: Colour = BLACK) -> bytes:
    """Return a PNG of S x S pixels with a middle of one colour."""
    pixels = np.full((SIDE, SIDE, 3), around, np.uint8)
    pixels[MIDDLE, MIDDLE] = middle
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
