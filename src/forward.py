"""Pictures sent through a network outside of a training.

B pictures of a block, H, W pixels, C classes.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from src.data.dataset import Pictures
from src.data.sampler import EvaluationBlocks
from src.table import Table

Alter = Callable[[torch.Tensor], torch.Tensor]  # uint8 [B, H, W, 3] -> the same shape


def evaluate(
    net: Callable[[torch.Tensor], torch.Tensor],
    pictures: Pictures,
    block_size: int,
    alter: Alter | None = None,
) -> Table:
    """Return the table of pictures, in the blocks that a validation works in.

    Args:
        net: uint8 [B, H, W, 3] -> logits [B, C].
        pictures: One at least.
        block_size: Of a block, B.
        alter: What is done to the pixels of a block first.
    """
    rows = []
    with torch.inference_mode():
        for keys in EvaluationBlocks(len(pictures), min(block_size, len(pictures))):
            batch = pictures.__getitems__(keys)
            pixels = batch["image"] if alter is None else alter(batch["image"])
            rows.append((batch["index"], batch["target"], net(pixels).float()))
    return Table.from_rows(*(torch.cat(column).numpy() for column in zip(*rows, strict=True)))


def evenly(n: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most so many of n places, evenly spread."""
    number = min(n, most)
    return np.arange(number, dtype=np.int64) * n // max(number, 1)


def take(pictures: Pictures, positions: npt.NDArray[np.int64]) -> Pictures:
    """Return the pictures at these positions, without augmentation."""
    stored = pictures.stored.take(positions) if pictures.stored is not None else None
    return Pictures(
        pictures.index.take(positions),
        pictures.image_size,
        pictures.resize,
        pictures.interpolation,
        None,
        stored,
        pictures.threads,
    )
