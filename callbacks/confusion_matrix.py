"""Which class is taken for which, drawn after a validation."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from callbacks.sheets import INK, PAPER, SOFT, Font, font, shortened
from callbacks.shown import AfterValidation
from src.counting import confusion_counts
from src.mistakes import sound
from src.table import Int64s

MOST_NUMBERS = 40  # classes up to which each cell holds its count
_MOST_NAMES = 80
_SIDE = 760  # pixels of the matrix, where its cells may have any size
_GAP, _NAME = 16, 170  # pixels: around everything; for a class name
_EMPTY = np.array([247, 245, 239])
_RIGHT, _WRONG = np.array([37, 99, 168]), np.array([179, 38, 30])  # of a whole row in one cell


class ConfusionMatrix(AfterValidation):
    """Writes RUN/pictures/confusion-epoch-<n>.png: rows the true classes, columns the named ones.

    The colour of a cell is its share of the row, blue where the class is right and red where not.
    Classes are those of the epoch's decision; a picture whose logits are no numbers is left out.
    Above 40 classes the numbers are left out. Also sends the picture to Weights & Biases and
    TensorBoard where they log the run.

    Args:
        every_n_epochs: How often, from 1; the first and the last epoch are always drawn.

    Raises:
        UserError: if it is below 1.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)

    def look(self, trainer: Trainer, module: Any, epoch: int) -> None:
        """Draw the matrix of a validation."""
        rows, classes = sound(module.table), trainer.datamodule.classes  # type: ignore[attr-defined]
        predicted = module.decision.predicted(rows.logits)
        counts = confusion_counts(rows.target, predicted, len(classes))
        self.show_picture(trainer, "confusion", epoch, draw_confusion(counts, classes, epoch))


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels.

    Attributes:
        cell: Side of a cell.
        left: Where the matrix begins.
        top: Where the matrix begins.
        upright: Whether the names of the columns stand upright, since they are wider than a cell.
        letters: Of the class names; None leaves them out.
    """

    cell: int
    left: int
    top: int
    upright: bool
    letters: Font | None


def draw_confusion(counts: Int64s, classes: tuple[str, ...], epoch: int) -> Image.Image:
    """Return the picture of confusion counts.

    Args:
        counts: int64 [C, C], rows the targets, columns the predictions.
        classes: The C names.
        epoch: Counted from 1, for the title.
    """
    layout = _layout(classes)
    side = layout.cell * len(classes)
    width = max(layout.left + side + _GAP, 420)
    picture = Image.new("RGB", (width, layout.top + side + _GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    _write_title(draw, counts, epoch)
    colours = cell_colours(counts)
    matrix = Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)
    picture.paste(matrix, (layout.left, layout.top))
    if layout.cell >= 8:  # white lines between the cells
        for at in range(0, side + 1, layout.cell):
            x, y = layout.left + at, layout.top + at
            draw.line((x, layout.top, x, layout.top + side), PAPER)
            draw.line((layout.left, y, layout.left + side, y), PAPER)
    _write_names(picture, draw, classes, layout)
    if len(classes) <= MOST_NUMBERS:
        _write_counts(draw, counts, colours, layout)
    return picture


def cell_colours(counts: Int64s) -> NDArray[np.uint8]:
    """Return the colour of each cell, uint8 [C, C, 3], by the square root of its share of the row.

    The root lets a few mistakes among many pictures be seen.
    """
    shares = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))[..., None]
    full = np.where(np.eye(len(counts), dtype=bool)[..., None], _RIGHT, _WRONG)
    return np.asarray((_EMPTY + shares * (full - _EMPTY)).round(), np.uint8)


def _layout(classes: tuple[str, ...]) -> _Layout:
    num = len(classes)
    least = 30 if num <= MOST_NUMBERS else 1
    cell = min(130, max(least, _SIDE // num))
    if num > _MOST_NAMES:
        return _Layout(cell, 40, 116, False, None)
    letters = font(min(16, max(8, cell - 2)))
    widest = max(round(letters.getlength(shortened(name, letters, _NAME))) for name in classes)
    upright = widest > cell - 6
    return _Layout(cell, 40 + widest + 8, 112 + (widest if upright else 22), upright, letters)


def _write_title(draw: ImageDraw.ImageDraw, counts: Int64s, epoch: int) -> None:
    right, total, num = int(np.trace(counts)), int(counts.sum()), len(counts)
    title = f"Epoch {epoch}: {right:,} of {total:,} right ({100 * right / max(total, 1):.2f} %)"
    draw.text((_GAP, 14), title, fill=INK, font=font(20))
    left_out = f"; {num} classes, so numbers are left out" if num > MOST_NUMBERS else ""
    draw.text((_GAP, 42), "Rows: the true class. Columns: the named one.", SOFT, font(14))
    draw.text((_GAP, 61), f"Colour: share of the row{left_out}.", SOFT, font(14))


def _write_names(
    picture: Image.Image, draw: ImageDraw.ImageDraw, classes: tuple[str, ...], layout: _Layout
) -> None:
    """Write the classes at the left and above, and what rows and columns are."""
    side, letters = layout.cell * len(classes), layout.letters
    draw.text((layout.left + side / 2, 88), "named", SOFT, font(14), anchor="ma")
    _write_upright(picture, "true", (22, layout.top + side // 2 + 14), font(14), SOFT)
    if letters is None:
        return
    for number, name in enumerate(classes):
        words = shortened(name, letters, _NAME)
        middle = round((number + 0.5) * layout.cell)
        draw.text((layout.left - 8, layout.top + middle), words, INK, letters, anchor="rm")
        x = layout.left + middle
        if layout.upright:
            _write_upright(picture, words, (x, layout.top - 6), letters, INK)
        else:
            draw.text((x, layout.top - 7), words, INK, letters, anchor="ms")


def _write_upright(
    picture: Image.Image, text: str, place: tuple[int, int], letters: Font, colour: str
) -> None:
    """Write a line from bottom to top; the place is the middle of its lower end."""
    length, height = math.ceil(letters.getlength(text)), 2 * math.ceil(letters.getbbox("Ag")[3])
    strip = Image.new("L", (length + 2, height), 0)
    ImageDraw.Draw(strip).text((0, height / 2), text, 255, letters, anchor="lm")
    x, y = place
    picture.paste(colour, (x - height // 2, y - strip.width), strip.rotate(90, expand=True))


def _write_counts(
    draw: ImageDraw.ImageDraw, counts: Int64s, colours: NDArray[np.uint8], layout: _Layout
) -> None:
    """Write the count of each cell that has one; large cells say what share of the row it is."""
    cell, num = layout.cell, len(counts)
    size = min(30, round(cell * 0.36))
    while size > 7 and font(size).getlength(str(counts.max())) > cell - 4:
        size -= 1
    shows_share = cell >= 90
    totals = np.maximum(counts.sum(axis=1), 1)
    for row, column in np.ndindex(num, num):
        count = int(counts[row, column])
        if not count and num > 10:
            continue  # zeros would hide the others
        x, y = layout.left + (column + 0.5) * cell, layout.top + (row + 0.5) * cell
        colour = PAPER if colours[row, column].mean() < 140 else INK if count else SOFT
        draw.text((x, y - (10 if shows_share else 0)), f"{count}", colour, font(size), anchor="mm")
        if shows_share:
            share = f"{100 * count / totals[row]:.1f} %"
            draw.text((x, y + 18), share, colour, font(15), anchor="mm")
