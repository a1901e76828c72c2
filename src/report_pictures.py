"""The sections of a report that are pictures: plain data for the page's template."""

from typing import Any

import numpy as np
from PIL import Image

from src import heat
from src.data.dataset import Pictures
from src.data.decoded import TRAIN
from src.forward import evenly
from src.judged import MOST_CLASSES, Judged, heated
from src.pages import Shown, exact_uri, picture_uri
from src.report_parts import Part, Section, count, percent, section
from src.run import shown_path
from src.trained import Trained

WORST, UNCERTAIN, SAMPLES, AUGMENTED = 24, 12, 6, 12
_SIDE = 224  # of a picture on the page at most, in pixels
_FILTERS = 64
_NEAR = 0.005  # a threshold so near to one half needs no word
_ALL_SAMPLES = 24
_CHANGERS = ("callbacks.Mix", "callbacks.ProgressiveSize")  # they change whole batches


def mistakes(judged: Judged) -> Section:
    """The worst mistakes and the least certain answers, with where the network looked."""
    parts = []
    all_wrong, worst = int((~judged.right).sum()), judged.worst(WORST)
    if worst:
        title = f"The worst {len(worst)} of {count(all_wrong, 'mistake')}"
        parts.append(_gallery(judged, worst, title if len(worst) < all_wrong else "All mistakes"))
    else:
        parts.append({"kind": "text", "text": "Not one picture was named wrongly."})
    rows = judged.least_certain(UNCERTAIN)
    parts.append(_gallery(judged, rows, f"The {len(rows)} least certain"))
    heat_there = judged.has_heat
    about = "The worst come first: those to which the network gave the least of the truth."
    how = (
        "Beside each picture, what in it speaks for the class that was named (LayerCAM). Look for "
        "labels that are wrong, and for reasons that are."
        if heat_there
        else "No layer of this network keeps a map of the picture, so there is no heat to show."
    )
    return section("Mistakes", [f"{about} {how}", _on_threshold(judged)], parts)


def _on_threshold(judged: Judged) -> str:
    """Say why a class may be named that is the less probable one."""
    threshold = judged.decision.threshold
    if threshold is None or abs(threshold - 0.5) < _NEAR:
        return ""
    first, second = judged.classes
    return f"{second} is named from {percent(threshold)} on, below that {first}: the threshold."


def _gallery(judged: Judged, rows: list[int], title: str) -> Part:
    said = [int(judged.predicted[row]) for row in rows]
    maps = list(judged.heat_of(rows, said))
    pictures = []
    for number, (row, c) in enumerate(zip(rows, said, strict=True)):
        pixels = judged.pixels(row)
        true = judged.classes[judged.table.target[row]]
        named = f"named {judged.classes[c]}" if c != judged.table.target[row] else "named so"
        path = shown_path(judged.pictures.index.paths[int(judged.table.index[row])])
        sure = percent(float(judged.probabilities[row, c]))
        second = picture_uri(heated(pixels, maps[number]), _SIDE) if maps else ""
        pictures.append(
            Shown(
                uri=picture_uri(Image.fromarray(pixels), _SIDE),
                alt=f"{path}, which is {true}",
                head=f"{true}, {named} {sure}",
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
                text=f"mean of {count(number, 'rightly named picture')}, and of the heat maps",
            )
            for name, (mean, warmth, number) in maps.items()
        ]
        more = len(judged.classes) > MOST_CLASSES
        some = f" of {len(maps)} of the {len(judged.classes):,} classes" if more else ""
        title = f"Mean maps{some}"
        parts.append({"kind": "gallery", "title": title, "pictures": pictures, "wide": True})
    filters = heat.first_filters(judged.model.net)
    if filters is not None:
        parts.append(_filters(filters))
    if not parts:
        return None
    about = "Heat at the edges of a mean map is a warning: backgrounds lie there."
    return section("What it looks at", [about], parts, "looks")


def _filters(filters: Any) -> Part:
    kernels = filters[:_FILTERS]
    some = "All" if len(kernels) == len(filters) else f"The first {len(kernels)} of"
    text = (
        f"{some} {len(filters)} kernels of the first convolution, on red, "
        "green and blue; grey is a weight of zero. Edges and colours are what a network begins "
        "with; what looks like noise has hardly been trained."
    )
    uris = [exact_uri(Image.fromarray(kernel)) for kernel in kernels]
    return {"kind": "filters", "title": "First filters", "uris": uris, "text": text}


def samples(run: Trained) -> list[Part]:
    """Pictures of each class, and training pictures as the network saw them."""
    assert run.index is not None
    if TRAIN not in run.index.splits:
        return []
    parts = [_samples_of_classes(run, run.training_pictures())]
    augmented = run.augmented()
    if augmented is not None:
        rows = evenly(len(augmented), AUGMENTED).tolist()
        shown = [_plain(augmented, at, "an augmented picture") for at in rows]
        changers = [name for name in run.callbacks if name.startswith(_CHANGERS)]
        title = "As the network saw them in the first epoch"
        title += f", before {' and '.join(changers)}" if changers else ""
        parts.append({"kind": "gallery", "title": title, "pictures": shown, "wide": False})
    return parts


def _samples_of_classes(run: Trained, plain: Pictures) -> Part:
    each = max(1, min(SAMPLES, _ALL_SAMPLES // max(1, len(run.classes))))
    shown = []
    for c in range(min(_ALL_SAMPLES, len(run.classes))):
        there = np.flatnonzero(plain.index.labels == c)
        shown += [_plain(plain, int(at), "a picture") for at in there[evenly(there.size, each)]]
    return {"kind": "gallery", "title": "Samples", "pictures": shown, "wide": False}


def _plain(pictures: Pictures, at: int, what: str) -> Shown:
    label = int(pictures.index.labels[at])
    name = "no label" if label < 0 else pictures.index.classes[label]
    return Shown(
        uri=picture_uri(Image.fromarray(np.asarray(pictures.pixels(0, at))), _SIDE),
        alt=f"{what} of {name}",
        head=name,
        text=shown_path(pictures.index.paths[at]),
    )
