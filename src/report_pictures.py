"""The sections of a report that are pictures: plain data for the page's template."""

from typing import Any

import numpy as np
from PIL import Image

from src import heat
from src.data.decoded import TRAIN
from src.judged import Judged, heated
from src.pages import Shown, picture_uri
from src.report_sections import Part, Section, percent, section
from src.trained import Trained

WORST, UNCERTAIN, SAMPLES, AUGMENTED = 24, 12, 4, 8
_SIDE = 224  # of a picture on the page at most, in pixels
_FILTERS = 64


def mistakes(judged: Judged) -> Section:
    """The worst mistakes and the least certain answers, with where the network looked."""
    parts = []
    for title, rows in (
        (f"The {WORST} worst mistakes", judged.worst(WORST)),
        (f"The {UNCERTAIN} least certain", judged.least_certain(UNCERTAIN)),
    ):
        if rows:
            parts.append(_gallery(judged, rows, title))
        else:
            parts.append({"kind": "text", "text": f"{title}: there is none."})
    about = (
        "Beside each picture, what in it speaks for the class that the network named (LayerCAM). "
        "Look for labels that are wrong, and for reasons that are."
    )
    return section("Mistakes", [about], parts)


def _gallery(judged: Judged, rows: list[int], title: str) -> Part:
    said = [int(judged.predicted[row]) for row in rows]
    maps = list(judged.heat_of(rows, said))
    pictures = []
    for number, (row, c) in enumerate(zip(rows, said, strict=True)):
        pixels = judged.pixels(row)
        true = judged.classes[judged.table.target[row]]
        path = judged.pictures.index.paths[int(judged.table.index[row])]
        sure = percent(float(judged.probabilities[row, c]))
        second = picture_uri(heated(pixels, maps[number]), _SIDE) if maps else ""
        pictures.append(
            Shown(
                uri=picture_uri(Image.fromarray(pixels), _SIDE),
                alt=f"{path}, which is {true}",
                head=f"{true}, named {judged.classes[c]} {sure}",
                text=path,
                second=second,
                second_alt=f"what speaks for {judged.classes[c]} in it",
            )
        )
    return {"kind": "gallery", "title": title, "pictures": pictures, "wide": bool(maps)}


def what_it_looks_at(judged: Judged) -> Section | None:
    """Mean maps of each class, and the filters of a first convolution; None without either."""
    parts: list[Part] = []
    if maps := judged.mean_maps():
        pictures = [
            Shown(
                uri=picture_uri(Image.fromarray(mean), _SIDE),
                alt=f"mean of {number} pictures of {name}",
                second=picture_uri(heated(mean, warmth), _SIDE),
                second_alt=f"mean of their heat maps for {name}",
                head=name,
                text=f"mean of {number} rightly named pictures, and of their heat maps",
            )
            for name, (mean, warmth, number) in list(maps.items())[:12]
        ]
        parts.append({"kind": "gallery", "title": "Mean maps", "pictures": pictures, "wide": True})
    filters = heat.first_filters(judged.model.net)
    if filters is not None:
        parts.append(_filters(filters))
    if not parts:
        return None
    about = "Heat at the edges of a mean map is a warning: backgrounds lie there."
    return section("What it looks at", [about], parts, "looks")


def _filters(filters: Any) -> Part:
    """Lay the kernels out as one picture, each pixel of a kernel several pixels large."""
    kernels = filters[:_FILTERS]
    columns, scale, gap = 16, max(2, 24 // kernels.shape[1]), 4
    lines = -(-len(kernels) // columns)
    height, width = (scale * side + gap for side in kernels.shape[1:3])
    sheet = np.full((lines * height + gap, columns * width + gap, 3), 255, np.uint8)
    for number, kernel in enumerate(kernels):
        y, x = gap + number // columns * height, gap + number % columns * width
        large = kernel.repeat(scale, 0).repeat(scale, 1)
        sheet[y : y + large.shape[0], x : x + large.shape[1]] = large
    side = max(sheet.shape)
    text = (
        f"The first {len(kernels)} kernels of the first convolution, on red, green and blue; grey "
        "is a weight of zero. Edges and colours are what a network begins with."
    )
    item = Shown(
        uri=picture_uri(Image.fromarray(sheet), side, 95),
        alt="kernels of the first convolution",
        text=text,
        crisp=True,
    )
    return {"kind": "gallery", "title": "First filters", "pictures": [item], "wide": True}


def samples(run: Trained) -> list[Part]:
    """Pictures of each class, and training pictures as the network saw them."""
    assert run.index is not None
    plain = run.pictures(TRAIN) if TRAIN in run.index.splits else None
    if plain is None:
        return []
    parts = [_samples_of_classes(run, plain)]
    augmented = run.augmented()
    if augmented is not None:
        pictures = []
        n = len(augmented)
        for number in range(min(AUGMENTED, n)):
            at = number * n // min(AUGMENTED, n)
            name = augmented.index.classes[augmented.index.labels[at]]
            pictures.append(
                Shown(
                    uri=picture_uri(Image.fromarray(augmented.pixels(0, at)), _SIDE),
                    alt=f"an augmented picture of {name}",
                    head=name,
                    text=augmented.index.paths[at],
                )
            )
        title = "As the network saw them in the first epoch"
        parts.append({"kind": "gallery", "title": title, "pictures": pictures, "wide": False})
    return parts


def _samples_of_classes(run: Trained, plain: Any) -> Part:
    pictures = []
    each = max(1, min(SAMPLES, 24 // max(1, len(run.classes))))
    for c, name in enumerate(run.classes[:24]):
        there = np.flatnonzero(plain.index.labels == c)
        for at in there[
            np.arange(min(each, there.size)) * there.size // max(1, min(each, there.size))
        ].tolist():
            whole = Image.fromarray(np.asarray(plain.pixels(0, at)))
            pictures.append(
                Shown(
                    uri=picture_uri(whole, _SIDE),
                    alt=f"a picture of {name}",
                    head=name,
                    text=plain.index.paths[at],
                )
            )
    return {"kind": "gallery", "title": "Samples", "pictures": pictures, "wide": False}
