"""An exported model, read with onnxruntime, numpy and Pillow alone.

N pictures, S the side of the square that the network takes, C classes, D features.
"""

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.bundle_record import RECORD, Record
from src.cores import usable_cores
from src.errors import UserError, nearest
from src.preprocess import MAX_PIXELS, FilePath, Pixels, Source, load_pixels
from src.validation_file import read_validation

VALIDATION = "validation.npz"
MODELS = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
MOST_THREADS = 256  # more than machines have cores; thousands would stop this one
INPUT, PROBABILITIES, FEATURES = "pixels", "probabilities", "features"  # names in the graph

Floats = npt.NDArray[np.float32]


class Bundle:
    """A model of a bundle, ready to predict.

    Args:
        folder: That src.export has made.
        variant: Which of its models: fp32, fp16 or int8.
        threads: Of a prediction; None means a core each.

    Attributes:
        record: What bundle.json says.

    Raises:
        UserError: it is no bundle, a file of it was changed, it has no such model, or onnxruntime
            is not installed.
    """

    def __init__(self, folder: FilePath, variant: str = "fp32", threads: int | None = None) -> None:
        self.folder = Path(folder)
        self.record = Record.read(self.folder)
        name = self._file_of(variant)
        model = _whole(self.folder / name, self.record.files[name])
        self.variant = variant
        self._session = _session(self.folder / name, model, threads)
        self.has_features = FEATURES in self._shapes()
        self._check_graph(name)

    def _check_graph(self, name: str) -> None:
        for end in (INPUT, PROBABILITIES):
            if end not in self._shapes():
                raise UserError(
                    f"{self.folder / name} has no {end}; it has {', '.join(self._shapes())}. "
                    "Export the run again."
                )
        side = self.record.preprocessing.image_size
        for end, wanted in ((INPUT, (side, side, 3)), (PROBABILITIES, (len(self.classes),))):
            found = self._shapes()[end][1:]
            known = [size if isinstance(size, int) else None for size in found]
            if len(known) != len(wanted) or any(
                one not in (None, other) for one, other in zip(known, wanted, strict=True)
            ):
                raise UserError(
                    f"{self.folder / name} does not fit {RECORD}: {end} is of the shape {found}, "
                    f"not {list(wanted)}. Export the run again."
                )

    def _shapes(self) -> dict[str, list[Any]]:
        ends = [*self._session.get_inputs(), *self._session.get_outputs()]
        return {end.name: list(end.shape) for end in ends}

    def _file_of(self, variant: str) -> str:
        there = [key for key, name in MODELS.items() if name in self.record.files]
        if variant not in there:
            hint = nearest(variant, there) or f"it has {', '.join(there) or 'none'}"
            raise UserError(
                f"{self.folder} has no model of the variant {variant!r}: {hint}. "
                "Export the run again, with --fp16 or --int8 for those."
            )
        return MODELS[variant]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, in the order of the probabilities."""
        return self.record.classes

    def pixels(
        self, source: Source, name: FilePath | None = None, max_pixels: int = MAX_PIXELS
    ) -> Pixels:
        """Read a picture as the network takes it, uint8 [S, S, 3].

        Raises:
            BadImageError: the file is empty, no picture, damaged, or has too many pixels.
            OSError: it is not there or can't be opened.
        """
        rule = self.record.preprocessing
        how = rule.image_size, rule.resize, rule.interpolation
        return load_pixels(source, *how, name, max_pixels)

    def warm_up(self) -> None:
        """Predict a black picture, so that the first real one does not take longer."""
        side = self.record.preprocessing.image_size
        self.probabilities(np.zeros((1, side, side, 3), np.uint8))

    def probabilities(self, pixels: Pixels) -> Floats:
        """Return calibrated probabilities, float32 [N, C], of uint8 [N, S, S, 3]."""
        found: Floats = self._session.run([PROBABILITIES], {INPUT: pixels})[0]
        return found

    def features(self, pixels: Pixels) -> Floats:
        """Return what the last layer of the network goes by, float32 [N, D], of unit length."""
        found: Floats = self._session.run([FEATURES], {INPUT: pixels})[0]
        return unit(found)

    def predicted(self, probabilities: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the class of each picture by the run's decision, int64 [N], of [N, C]."""
        if self.record.threshold is None:
            return np.asarray(probabilities.argmax(axis=1), np.int64)
        second = probabilities[:, 1].astype(np.float64)  # or NumPy would round the threshold
        return (second >= self.record.threshold).astype(np.int64)

    @cached_property
    def validation(self) -> dict[str, npt.NDArray[Any]]:
        """The validation pictures that the bundle holds; empty without any, or without their file.

        probabilities float32 [N, C], labels int64 [N]; of the M that are shown also
        features float16 [M, D] of unit length, shown int64 [M] (which of the N), jpeg uint8 (one
        file behind the other) and ends int64 [M].

        Raises:
            UserError: the file was changed, or is too large.
        """
        path = self.folder / VALIDATION
        if VALIDATION not in self.record.files or not path.is_file():
            return {}
        if digest(path) != self.record.files[VALIDATION]:
            raise _changed(path)
        features = self._shapes()[FEATURES][-1] if self.has_features else None
        known = features if isinstance(features, int) else None
        return read_validation(path, len(self.classes), known)


def unit(vectors: npt.NDArray[Any]) -> Floats:
    """Return vectors [N, D] scaled to the length 1; those of zeros stay."""
    wide: Floats = vectors.astype(np.float32)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        made = sha256()
        while block := file.read(1 << 20):
            made.update(block)
        return made.hexdigest()


def _whole(path: Path, expected: str) -> bytes:
    """Return the content of a file, whose hash is that of the very bytes returned."""
    if not path.is_file():
        raise _missing(path)
    content = path.read_bytes()
    if sha256(content).hexdigest() != expected:
        raise _changed(path)
    return content


def _missing(path: Path) -> UserError:
    return UserError(f"{path} is missing. Copy the whole bundle, or export the run again.")


def _changed(path: Path) -> UserError:
    return UserError(
        f"{path} is not the file that {RECORD} was written with: it was changed or damaged. "
        "Copy the bundle again, or export the run again."
    )


def _session(path: Path, model: bytes, threads: int | None) -> Any:
    """Open a model from its bytes: a stranger's can then read no file beside itself."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            'this needs onnxruntime, which is not installed: pip install -e ".[predict]"'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise UserError(f"{path} can't be opened: {error}. Export the run again.") from error
