"""Reads validation.npz of a bundle, which may come from a stranger: small enough, and whole.

N pictures, C classes; M of the N are shown, D features.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.errors import UserError

MOST_BYTES = 500_000_000  # unpacked
_FAULTS = (
    OSError, ValueError, LookupError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
_OF_SHOWN = ("features", "shown", "jpeg", "ends")

Arrays = dict[str, npt.NDArray[Any]]


def read_validation(path: Path, classes: int, features: int | None) -> Arrays:
    """Return its arrays, as `Bundle.validation` tells.

    Args:
        path: Of the file.
        classes: C.
        features: D; None if the model gives none, or does not tell how many.

    Raises:
        UserError: it is too large, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(each.file_size for each in packed.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"it holds {size:,} bytes; {MOST_BYTES:,} are read")
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        _check(arrays, classes)
        if any(name in arrays for name in _OF_SHOWN):
            _check_shown(arrays, features)
    except _FAULTS as error:
        text = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is damaged ({text}). Export the run again.") from error
    return arrays


def _check(arrays: Arrays, classes: int) -> None:
    shares, labels = arrays["probabilities"], arrays["labels"]
    _require(shares.dtype.kind == "f" and shares.ndim == 2, "probabilities")
    _require(shares.shape[1] == classes and bool(((shares >= 0) & (shares <= 1)).all()), "classes")
    _require(labels.shape == shares.shape[:1] and _below(labels, classes), "labels")


def _check_shown(arrays: Arrays, features: int | None) -> None:
    vectors, shown, jpeg, ends = (arrays[name] for name in _OF_SHOWN)
    _require(shown.ndim == 1 and _below(shown, len(arrays["labels"])), "shown")
    _require(vectors.dtype.kind == "f" and vectors.ndim == 2, "features")
    _require(len(vectors) == len(shown) and bool(np.isfinite(vectors).all()), "features")
    _require(features in (None, vectors.shape[1]), "features")
    _require(jpeg.dtype == np.uint8 and jpeg.ndim == 1, "jpeg")
    _require(ends.shape == shown.shape and _below(ends, len(jpeg) + 1), "ends")
    _require(bool((np.diff(ends) >= 0).all()), "ends")


def _below(values: npt.NDArray[Any], end: int) -> bool:
    """Return whether they are whole numbers from 0 to end - 1."""
    return values.dtype.kind in "iu" and bool(((values >= 0) & (values < end)).all())


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"its {what} do not fit")
