"""bundle.json: what an exported model is, read and checked without torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.preprocess import Preprocessing

FORMAT = 1
RECORD = "bundle.json"
_MOST_BYTES = 10_000_000
_LARGEST = 4096  # pixels of the network's side
_LEVELS = 20  # of things in one another


@dataclass(frozen=True)
class Record:
    """bundle.json, checked.

    Attributes:
        preprocessing: From a file to pixels, and the C classes.
        threshold: With two classes, the probability from which on a picture belongs to the second
            one; None takes the most probable class.
        files: Name -> sha256 of every file of the bundle but bundle.json and README.md.
        about: All that it says.
    """

    preprocessing: Preprocessing
    threshold: float | None
    files: Mapping[str, str]
    about: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, in the order of the probabilities."""
        return self.preprocessing.classes

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read bundle.json of a folder.

        Raises:
            UserError: it is no bundle, or of another format.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder. Give a bundle of src.export.")
        path = folder / RECORD
        if not path.is_file():
            hint = (
                f" It is a run folder: python -m src.export {folder} makes a bundle of it."
                if (folder / "config.yaml").is_file()
                else " Give a folder that python -m src.export has made."
            )
            raise UserError(f"{folder} is no bundle: it has no {RECORD}.{hint}")
        return cls.of(_read_json(path), path)

    @classmethod
    def of(cls, about: Any, path: Path) -> "Record":
        """Check what a bundle.json says.

        Raises:
            UserError: it is of another format, or damaged.
        """
        if isinstance(about, dict) and about.get("format") != FORMAT:
            raise UserError(
                f"{path} is of format {about.get('format')!r}; this version reads {FORMAT}. "
                "Export the run again."
            )
        try:
            threshold = about["threshold"]
            made = cls(
                Preprocessing.from_dict(about["preprocessing"]),
                None if threshold is None else float(threshold),
                {str(name): str(found["sha256"]) for name, found in about["files"].items()},
                about,
            )
            made._check()
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path} is damaged ({type(error).__name__}: {error}). Export the run again."
            ) from error
        return made

    def _check(self) -> None:
        """Raise ValueError if its parts can't belong to one exported model."""
        names, side = self.classes, self.preprocessing.image_size
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"classes must be two or more, no two alike: {names}")
        if type(names) is not tuple or not all(isinstance(name, str) and name for name in names):
            raise ValueError(f"a class that is no name: {names}")
        if type(side) is not int or side > _LARGEST:
            raise ValueError(f"image_size is {side!r}, not a whole number up to {_LARGEST}")
        if not all(map(_is_number, (*self.preprocessing.mean, *self.preprocessing.std))):
            raise ValueError("a mean or a std that is no number")
        self._check_threshold(self.about["threshold"])
        if not _is_nested_within(self.about, _LEVELS):
            raise ValueError(f"nested in more than {_LEVELS} levels")
        json.dumps(self.about, ensure_ascii=False).encode()  # or no answer could say it
        if not all(isinstance(found, dict) for found in self.about.get("scores", {}).values()):
            raise ValueError("scores that are no mappings")
        if leaving := [name for name in self.files if Path(name).name != name]:
            raise ValueError(f"files outside of it: {leaving}")

    def _check_threshold(self, stored: Any) -> None:
        allowed = len(self.classes) == 2 and _is_number(stored) and 0 <= stored <= 1
        if stored is not None and not allowed:
            raise ValueError(f"a threshold of {stored!r}, and {len(self.classes)} classes")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_nested_within(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_nested_within(part, levels - 1) for part in parts)


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read: {error}. Export the run again.") from error
