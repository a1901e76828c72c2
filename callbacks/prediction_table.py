"""What a validation said of every picture, written down once."""

import re
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from callbacks.shown import TO_FOLDER, AfterValidation, check_least
from src.run import RunFolder
from src.scored import write_scored
from src.table import UNLABELLED, Table

_NAME = re.compile(r"val-epoch-(\d+)\.csv")


class PredictionTable(AfterValidation):
    """Writes RUN/tables/val-epoch-<n>.csv: path, label, predicted_class, prob_<class>...

    A row for each validation picture, in the order of the data, written as `validate` writes them.
    Classes and probabilities are those of the epoch's decision: its temperature and its threshold.
    Of several validations in one epoch the last stays. Also sends `max_rows` of the rows, evenly
    spread, to Weights & Biases. Nothing is kept from one validation to the next; while it writes,
    the text of a block of rows lies in memory.

    Args:
        every_n_epochs: How often, from 1; the first and the last epoch are always written.
        keep: Tables that stay in the run folder, the newest ones, from 1; each takes about 20 bytes
            for each picture and class. For that of the best epoch there is `validate`.
        max_rows: Rows that Weights & Biases gets of each table, from 0, which sends none.

    Raises:
        UserError: for a value out of range.
    """

    def __init__(self, every_n_epochs: int = 1, keep: int = 3, max_rows: int = 1000) -> None:
        super().__init__(every_n_epochs)
        check_least(self, "keep", keep)
        check_least(self, "max_rows", max_rows, 0)
        self.keep, self.max_rows = keep, max_rows

    def look(self, trainer: Trainer, module: Any, epoch: int) -> None:
        """Write the table of a validation, and let the oldest go."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        paths, folder = data.validated().index.paths, RunFolder(trainer.default_root_dir)
        target = folder.tables / f"val-epoch-{epoch}.csv"
        # Logits may be no numbers, where nothing guards the run.
        with self.attempt(*TO_FOLDER), np.errstate(invalid="ignore"):
            folder.tables.mkdir(parents=True, exist_ok=True)
            write_scored(target, paths, module.table, data.classes, module.decision)
            self._thin(folder, epoch)
        if self.max_rows and len(module.table.index):
            columns = ["path", "label", "predicted_class", *(f"prob_{c}" for c in data.classes)]
            rows = _spread_rows(module, paths, data.classes, self.max_rows)
            self.show_table(trainer, "predictions", columns, rows)

    def _thin(self, folder: RunFolder, epoch: int) -> None:
        """Remove all but the newest tables up to this epoch; later ones are of a run cut back."""
        found = {
            int(match[1]): path
            for path in folder.tables.iterdir()
            if (match := _NAME.fullmatch(path.name))
        }
        kept = sorted(number for number in found if number <= epoch)[-self.keep :]
        for number in found.keys() - {*kept}:
            found[number].unlink(missing_ok=True)


def _spread_rows(
    module: Any, paths: tuple[str, ...], classes: tuple[str, ...], most: int
) -> list[list[Any]]:
    """Return up to so many rows, evenly spread: numbers as numbers, names as text."""
    table, decision = module.table, module.decision
    places = np.linspace(0, len(table.index) - 1, min(most, len(table.index)))
    at = places.round().astype(np.int64)
    sent = Table(table.index[at], table.target[at], table.logits[at])
    with np.errstate(invalid="ignore"):
        named, shares = decision.predicted(sent.logits), decision.probabilities(sent.logits)
    return [
        [paths[index], "" if true == UNLABELLED else classes[true], classes[winner], *row]
        for index, true, winner, row in zip(
            *(part.tolist() for part in (sent.index, sent.target, named, shares)), strict=True
        )
    ]
