"""What a validation said of every picture, written down once."""

import re
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from callbacks.shown import AfterValidation, check_least
from src.run import RunFolder, write_text
from src.scored import csv_text
from src.table import UNLABELLED

_FIRST = ("index", "path", "label", "predicted_class")
_NAME = re.compile(r"val-epoch-(\d+)\.csv")


class PredictionTable(AfterValidation):
    """Writes RUN/tables/val-epoch-<n>.csv: index, path, label, predicted_class, prob_<class>...

    A row for each validation picture, in the order of the data. Classes and probabilities are those
    of the epoch's decision: its temperature and its threshold. Of several validations in one epoch
    the last stays. Also sends `max_rows` of the rows, evenly spread, to Weights & Biases.

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
        about: Any = trainer
        classes = about.datamodule.classes
        columns = [*_FIRST, *(f"prob_{name}" for name in classes)]
        rows = _rows(module, about.datamodule.validated().index.paths, classes)
        folder = RunFolder(trainer.default_root_dir)
        folder.tables.mkdir(parents=True, exist_ok=True)
        text = csv_text([columns, *([*map(str, row)] for row in rows)])
        write_text(folder.tables / f"val-epoch-{epoch}.csv", text, errors="surrogateescape")
        self._thin(folder, epoch)
        if self.max_rows and rows:
            places = np.linspace(0, len(rows) - 1, min(self.max_rows, len(rows)))
            sent = [rows[place] for place in places.round().astype(int)]
            self.show_table(trainer, "predictions", columns, sent)

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


def _rows(module: Any, paths: tuple[str, ...], classes: tuple[str, ...]) -> list[list[Any]]:
    """Return a row for each picture of the table: numbers as numbers, names as text."""
    table, decision = module.table, module.decision
    with np.errstate(invalid="ignore"):  # logits may be no numbers, where nothing guards the run
        named, shares = decision.predicted(table.logits), decision.probabilities(table.logits)
    return [
        [at, paths[at], "" if true == UNLABELLED else classes[true], classes[winner], *row]
        for at, true, winner, row in zip(
            *(part.tolist() for part in (table.index, table.target, named, shares)), strict=True
        )
    ]
