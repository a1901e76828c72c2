"""What a network said of the pictures of a split, and the pictures with where it looked.

N pictures, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from src.calibration import Decision
from src.classifier import Classifier
from src.data.dataset import Pictures
from src.data.looks import look_at
from src.forward import evaluate, evenly
from src.heat import Heat, Layer, explainable, heat_maps, layers_to_show
from src.mistakes import mistakes
from src.table import Table
from src.trained import Trained

Pixels = npt.NDArray[np.uint8]
MOST = 10_000  # pictures that are looked at; more take their time and tell little more
MOST_CLASSES = 12  # that a mean map is made of
_OF_CLASS = 16  # pictures of each class that a mean map is made of
_AT_ONCE = 8  # pictures of one gradient: bounds the memory
# From nothing over honey to white hot; red, green, blue and opacity.
_COLOURS = np.array(
    [[0, 0, 0, 0], [180, 83, 9, 110], [240, 140, 30, 170], [255, 224, 130, 200]], np.float64
)


@dataclass(frozen=True, eq=False)
class Judged:
    """The labelled pictures of a split under the eyes of a network.

    Attributes:
        model: The network and its decision.
        pictures: Those of the split, MOST of them at most; rows of the table name positions there.
        table: The labelled rows.
        of_all: How many pictures the split has.
    """

    model: Classifier
    pictures: Pictures
    table: Table
    of_all: int

    @classmethod
    def of(cls, run: Trained, split: str) -> "Judged":
        """Let a run's network look at a split; needs the run's model and index."""
        assert run.model is not None and run.index is not None
        pictures = run.pictures(split, MOST)
        found = evaluate(run.model.net, pictures, run.block_size)
        of_all = int((run.index.splits == split).sum())
        return cls(run.model, pictures, found.labelled(), of_all)

    @property
    def decision(self) -> Decision:
        """How logits become probabilities and a class."""
        return self.model.decision

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes."""
        return self.pictures.index.classes

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """After the temperature, float64 [N, C]."""
        return self.decision.probabilities(self.table.logits)

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """By the decision, int64 [N]."""
        return self.decision.predicted(self.table.logits)

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each picture was named rightly, bool [N]."""
        return np.asarray(self.predicted == self.table.target)

    def confidence(self, decision: Decision | None = None) -> npt.NDArray[np.float64]:
        """Return the highest probability of each picture, float64 [N]."""
        shares = (decision or self.decision).probabilities(self.table.logits)
        return np.asarray(shares.max(axis=1))

    def worst(self, most: int) -> list[int]:
        """Return the rows of the wrong answers, the least probability of the truth first."""
        rows, _ = mistakes(self.table, self.decision)
        return [int(row) for row in rows[:most]]

    def least_certain(self, most: int) -> list[int]:
        """Return the rows nearest to being named otherwise, the nearest first."""
        threshold = self.decision.threshold
        if threshold is not None:
            margin = np.abs(self.probabilities[:, 1] - threshold)
        else:
            top = np.sort(self.probabilities, axis=1)
            margin = top[:, -1] - top[:, -2]
        return [int(i) for i in np.argsort(margin, kind="stable")[:most]]

    # Where the network looks

    @cached_property
    def _explained(self) -> tuple[torch.nn.Module, tuple[Layer, ...]]:
        net = explainable(self.model.net)
        return net, layers_to_show(net, torch.from_numpy(self.pixels(0)[None]))

    @property
    def has_heat(self) -> bool:
        """Whether a layer of the network keeps a map of the picture."""
        return bool(self._explained[1])

    def pixels(self, row: int) -> Pixels:
        """Return a picture as the network gets it, uint8 [H, W, 3]."""
        return self.pictures.pixels(0, int(self.table.index[row])).copy()

    def heat_of(self, rows: Sequence[int], targets: Sequence[int]) -> Iterator[Heat]:
        """Yield what in each picture speaks for a class, float32 [H, W]; nothing without a map.

        Args:
            rows: Of the table.
            targets: The class that is asked for, of each.
        """
        net, layers = self._explained
        if not layers:
            return
        for start in range(0, len(rows), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            pixels = torch.from_numpy(np.stack([self.pixels(row) for row in rows[some]]))
            yield from heat_maps(net, pixels, torch.tensor(targets[some]), layers)

    def mean_maps(self) -> dict[str, tuple[Pixels, Heat, int]]:
        """Return class -> mean picture, mean heat map, and of how many rightly named pictures.

        Of the first MOST_CLASSES classes that have any.
        """
        found: dict[str, tuple[Pixels, Heat, int]] = {}
        for c, name in enumerate(self.classes):
            if len(found) == MOST_CLASSES:
                break
            rows = np.flatnonzero(self.right & (self.table.target == c))
            rows = rows[evenly(rows.size, _OF_CLASS)]
            maps = list(self.heat_of(rows.tolist(), [c] * rows.size))
            if maps:
                mean = np.mean([self.pixels(int(row)) for row in rows], axis=0)
                found[name] = (mean.round().astype(np.uint8), np.mean(maps, axis=0), len(maps))
        return found


def heated(pixels: Pixels, warmth: Heat) -> Image.Image:
    """Return a picture, greyed, under its heat map.

    Args:
        pixels: uint8 [H, W, 3].
        warmth: float32 [H, W], 0 to 1.
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)
    place = warmth.astype(np.float64) * (len(_COLOURS) - 1)
    low = np.minimum(place.astype(int), len(_COLOURS) - 2)
    mixed = _COLOURS[low] + (place - low)[..., None] * (_COLOURS[low + 1] - _COLOURS[low])
    share = mixed[..., 3:] / 255
    under = np.repeat(grey[..., None], 3, axis=2)
    return Image.fromarray((under * (1 - share) + mixed[..., :3] * share).astype(np.uint8))


def measures(judged: Judged) -> dict[str, Any]:
    """Return brightness and sharpness of the pictures as the network gets them, [N] each."""
    rows = [look_at(Image.fromarray(judged.pixels(i))) for i in range(len(judged.right))]
    looks = np.concatenate(rows)
    return {
        "brightness": looks["brightness"].astype(np.float64),
        "sharpness": looks["sharpness"].astype(np.float64),
    }
