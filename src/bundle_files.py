"""The files of a bundle beside its models: weights, validation pictures, the record, the README.

N pictures, S their side, C classes, D features, M pictures that are shown.
"""

import io
import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

from src import __version__
from src.bundle import MODELS, VALIDATION, Bundle, digest
from src.bundle_record import FORMAT, RECORD
from src.calibration import Decision
from src.data.index import SPLIT_NAMES
from src.errors import quoted_list
from src.forward import evenly
from src.known import Known, blocks
from src.preprocess import Preprocessing
from src.run import git_commit, write_json

WEIGHTS = "model.safetensors"
README = "README.md"
NAMES = frozenset({*MODELS.values(), WEIGHTS, VALIDATION, RECORD, README})
MOST_SHOWN = 500  # small validation pictures in a bundle
_SIDE, _QUALITY = 160, 80  # of such a picture
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")


def write_weights(net: nn.Module, path: Path) -> None:
    """Write the network's weights by their names, without any code."""
    from safetensors.torch import save

    state = {name: value.detach().clone().contiguous() for name, value in net.state_dict().items()}
    path.write_bytes(save(state, metadata={"format": "pt"}))


def write_validation(known: Known, bundle: Bundle, decision: Decision, pictures: bool) -> None:
    """Write probabilities and labels of validation pictures, and some of them as small JPEGs.

    Args:
        known: The pictures.
        bundle: Opened; it gives their features.
        decision: How logits become probabilities.
        pictures: Whether pictures and features are written.
    """
    content: dict[str, npt.NDArray[Any]] = {
        "probabilities": decision.probabilities(known.table.logits).astype(np.float32),
        "labels": known.table.target,
    }
    if pictures and bundle.has_features:
        shown = evenly(len(known.paths), MOST_SHOWN)
        rows, files = [], []
        for block in blocks(known.pixels, shown):
            rows.append(bundle.features(block))
            files += [_small(picture) for picture in block]
        content |= {
            "features": np.concatenate(rows).astype(np.float16),
            "shown": shown,
            "jpeg": np.frombuffer(b"".join(files), np.uint8),
            "ends": np.cumsum([len(file) for file in files]),
        }
    np.savez(bundle.folder / VALIDATION, allow_pickle=False, **content)


def _small(pixels: npt.NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def write_record(
    folder: Path, preprocessing: Preprocessing, decision: Decision, about: Mapping[str, Any]
) -> None:
    """Write bundle.json over all files that lie in the folder.

    Args:
        folder: Of the bundle.
        preprocessing: From a file to pixels.
        decision: Its temperature lies inside the models.
        about: What else is told.
    """
    files = sorted(path for path in folder.iterdir() if path.name not in (RECORD, README))
    write_json(
        folder / RECORD,
        {
            "format": FORMAT,
            "preprocessing": preprocessing.to_dict(),
            "threshold": decision.threshold,
            "temperature": decision.temperature,
            **about,
            "versions": _versions(),
            "files": {p.name: {"sha256": digest(p), "bytes": p.stat().st_size} for p in files},
        },
    )


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in _PACKAGES}
    return {
        "waggle": __version__,
        "git_commit": git_commit() or "outside git",
        "python": platform.python_version(),
        **found,
    }


def write_readme(folder: Path, run: str, about: Mapping[str, Any]) -> None:
    """Write what the bundle is, how good it is, and how it is used without this project."""
    record = json.loads((folder / RECORD).read_text("utf-8"))
    rule = record["preprocessing"]
    split = SPLIT_NAMES[about["parity"]["split"]] if about["parity"] else ""
    names = [_in_a_line(name) for name in rule["classes"]]
    template = Template((Path(__file__).parent / "pages" / "bundle.md").read_text("utf-8"))
    text = template.substitute(
        run=_in_a_line(run),
        classes=quoted_list(names),
        side=rule["image_size"],
        rule=_RULES[rule["resize"]],
        mixed=_MIXED[rule["interpolation"]],
        decides=_decides(record["threshold"], names),
        scores="\n".join(_score_lines(about["scores"])),
        models="\n".join(_model_lines(about["models"], split)),
        parity=_parity_line(about["parity"], split),
        pictures=_PICTURES.format(split=split) if about["shown"] else "",
    )
    (folder / README).write_text(text, "utf-8")


def _in_a_line(name: str) -> str:
    """Return a name without line breaks; its signs stand for themselves in Markdown."""
    return re.sub(r"([\\`*_<>\[\]|#~])", r"\\\1", " ".join(name.split()))


_RULES = {
    "stretch": "whatever their shape, they are stretched to",
    "crop": "their middle square is taken and brought to",
}
_MIXED = {
    "bilinear": "bilinear by Pillow, antialiased",
    "nearest": "by Pillow, one pixel for each, without mixing any",
}
_PICTURES = (
    "\n`validation.npz` holds small copies of {split} pictures. If they are not "
    "for the eyes of others, remove the file, or export again with `--no_pictures`.\n"
)


def _decides(threshold: float | None, classes: Sequence[str]) -> str:
    if threshold is None:
        return "The most probable class is named."
    return f"{classes[1]} is named from a probability of {threshold:.4f} on, else {classes[0]}."


def _score_lines(scores: Mapping[str, Any]) -> list[str]:
    found = [(split, rows) for split, rows in scores.items() if rows]
    if not found:
        return ["It was not scored."]
    lines = ["| pictures | number | accuracy | 95 % interval | always the most frequent class |"]
    lines.append("|---|---|---|---|---|")
    for split, rows in found:
        low, high = rows["accuracy_interval"]
        lines.append(
            f"| {SPLIT_NAMES[split]} | {rows['n']:,} | {rows['accuracy']:.3f} "
            f"| {low:.3f} to {high:.3f} | {rows['baseline_accuracy']:.3f} |"
        )
    return lines


def _model_lines(models: Mapping[str, Mapping[str, Any]], split: str) -> list[str]:
    title = f"{split} accuracy".strip()
    lines = [f"| file | MB | {title} | pictures a second, where it was made |"]
    lines.append("|---|---|---|---|")
    for variant, found in models.items():
        accuracy = f"{found['accuracy']:.3f}" if "accuracy" in found else "not scored"
        speed = found.get("pictures_per_second")
        fast = f"{speed:,.0f}" if speed else "not measured"
        lines.append(f"| `{MODELS[variant]}` | {found['bytes'] / 1e6:.1f} | {accuracy} | {fast} |")
    return lines


def _parity_line(parity: Mapping[str, Any] | None, split: str) -> str:
    if parity is None:
        return "It was **not** compared with the trained network (`--no_parity`)."
    return (
        f"On {parity['pictures']} {split} pictures from the disk it names the same classes as the "
        f"trained network; no probability differs by more than {parity['largest_difference']:.1g}."
    )
