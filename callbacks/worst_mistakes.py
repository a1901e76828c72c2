"""The validation pictures that the network is most wrong about."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from callbacks.sheets import contact_sheet
from callbacks.shown import OF_PICTURES, AfterValidation, check_least
from src.calibration import Decision
from src.mistakes import mistakes, sound
from src.run import RunFolder, write_json
from src.table import Table


class WorstMistakes(AfterValidation):
    """Writes RUN/pictures/worst-epoch-<n>.png: the mistakes of a validation with the highest loss.

    A mistake is a picture that the epoch's decision names wrongly; its loss is the negative
    logarithm of the calibrated probability of its class. The picture is the one that the network
    saw; below it stand its class, and the predicted one with its probability. RUN/tables/worst.json
    says the same of the latest of them, for `python -m src.watch`. Also sends the picture to
    Weights & Biases and TensorBoard where they log the run.

    Args:
        every_n_epochs: How often, from 1; the first and the last epoch are always shown.
        max_images: Pictures in one sheet, from 1.

    Raises:
        UserError: for a value out of range.
    """

    def __init__(self, every_n_epochs: int = 1, max_images: int = 16) -> None:
        super().__init__(every_n_epochs)
        check_least(self, "max_images", max_images)
        self.max_images = max_images

    def look(self, trainer: Trainer, module: Any, epoch: int) -> None:
        """Write the sheet and the list."""
        about: Any = trainer
        found = find_mistakes(module.table, module.decision, self.max_images)
        pictures, classes = about.datamodule.validated(), about.datamodule.classes
        captions = {one.index: one.caption(classes) for one in found.worst}
        content = {
            "epoch": epoch,
            "pictures": found.num_pictures,
            "mistakes": found.num_mistakes,
            "sheet": self._show_sheet(trainer, pictures, captions, epoch),
            "worst": [one.to_dict(pictures.index.paths, classes) for one in found.worst],
        }
        folder = RunFolder(trainer.default_root_dir)
        folder.tables.mkdir(parents=True, exist_ok=True)
        write_json(folder.tables / "worst.json", content)

    def _show_sheet(
        self, trainer: Trainer, pictures: Any, captions: dict[int, tuple[str, str]], epoch: int
    ) -> str | None:
        """Return the name of the sheet of what can be read; None if there is none."""
        images: dict[int, Any] = {}
        for index in captions:
            with self.attempt(*OF_PICTURES):
                images[index] = pictures.pixels(epoch - 1, index)
        if not images:
            return None
        sheet = contact_sheet([*images.values()], [captions[index] for index in images])
        return self.show_picture(trainer, "worst", epoch, sheet)


@dataclass(frozen=True)
class Mistake:
    """A picture that was named wrongly.

    Attributes:
        index: Its place in the index of the data.
        target: Its class.
        predicted: The class that it was given.
        probability: Of that class, 0 to 1.
        loss: In nats.
    """

    index: int
    target: int
    predicted: int
    probability: float
    loss: float

    def caption(self, classes: tuple[str, ...]) -> tuple[str, str]:
        """Return the two lines below the picture."""
        named = f"named {classes[self.predicted]}, {100 * self.probability:.0f} %"
        return f"is {classes[self.target]}", named

    def to_dict(self, paths: tuple[str, ...], classes: tuple[str, ...]) -> dict[str, Any]:
        """Return plain data."""
        return {
            "path": paths[self.index],
            "label": classes[self.target],
            "predicted": classes[self.predicted],
            "probability": self.probability,
            "loss": self.loss,
        }


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of an evaluation.

    Attributes:
        num_pictures: That have a label, and logits that are numbers.
        num_mistakes: All of them.
        worst: Those with the highest loss, that one first; of equals the one that comes first.
    """

    num_pictures: int
    num_mistakes: int
    worst: list[Mistake]


def find_mistakes(table: Table, decision: Decision, most: int) -> Mistakes:
    """Return the mistakes of an evaluation; rows without a label or with a logit of NaN are none.

    Args:
        table: The evaluation.
        decision: How logits become probabilities and a class.
        most: Mistakes that are listed.
    """
    rows = sound(table)
    wrong, losses = mistakes(rows, decision)
    at = wrong[:most]
    named, shares = decision.predicted(rows.logits[at]), decision.probabilities(rows.logits[at])
    sure = shares[np.arange(at.size), named]
    columns = (rows.index[at], rows.target[at], named, sure, losses[:most])
    found = zip(*(column.tolist() for column in columns), strict=True)
    return Mistakes(len(rows.target), wrong.size, [Mistake(*one) for one in found])
