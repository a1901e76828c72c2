"""A trained run, opened to be looked at: its files, its network, its pictures.

N pictures of a split, C classes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from src import trust
from src.classifier import Classifier
from src.data.dataset import Pictures
from src.data.decoded import TRAIN, Decoded
from src.data.index import Index
from src.data.transforms import Augmentation
from src.data.workers import few, own_cores
from src.errors import RunFailureError, UserError
from src.rows import read_rows
from src.run import RunFolder
from src.scored import is_stale

Found = TypeVar("Found")

# What a part that is missing or damaged may raise, with classes of the user's own among the parts.
FAILURES = (
    UserError, RunFailureError, OSError, ValueError, LookupError, TypeError, AttributeError,
    ArithmeticError, RuntimeError, ImportError,
)  # fmt: skip


def said(error: BaseException) -> str:
    """Return an error in words."""
    ours = isinstance(error, UserError | RunFailureError)
    return str(error) if ours else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Trained:
    """What lies in a run folder, and what it points to.

    Attributes:
        folder: The run folder.
        config: Of its latest sitting, plain data.
        record: run.json.
        summary: summary.json; empty if the run has not ended.
        rows: metrics.csv.
        root: Of the pictures.
        missing: What could not be had, in words; grows while the parts are looked for.
        trust_code: What the user vouches for, see `src.trust`.
    """

    folder: RunFolder
    config: dict[str, Any]
    record: dict[str, Any]
    summary: dict[str, Any]
    rows: list[dict[str, str]]
    root: Path | None
    missing: list[str] = field(default_factory=list)
    trust_code: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, in the order of the logits."""
        stored = self.record.get("data", {}).get("classes")
        return tuple(self.config["data"].get("classes") or stored or ())

    @property
    def callbacks(self) -> tuple[str, ...]:
        """The class paths of those that the config names."""
        named = (self.config.get("trainer") or {}).get("callbacks") or ()
        return tuple(str(c.get("class_path")) for c in named if isinstance(c, dict))

    @cached_property
    def model(self) -> Classifier | None:
        """The network of best.ckpt, on the CPU, or of the next that can be had; None of none."""
        return self._try("the network", self._load_model)

    def _load_model(self) -> Classifier:
        names = (self.folder.best, self.folder.last, self.folder.previous)
        paths = [path for path in names if path.is_file()]
        if not paths:
            raise UserError(f"there is no checkpoint in {self.folder.checkpoints}")
        for path, following in zip(paths, [*paths[1:], None], strict=True):
            try:
                made = Classifier.load_from_checkpoint(
                    path, map_location="cpu", trust_code=self.trust_code
                )
            except FAILURES as error:
                if following is None:
                    raise
                self.missing.append(f"{path.name}: {said(error)} Taken instead: {following.name}.")
            else:
                made.eval().requires_grad_(False)
                return made
        raise AssertionError("the last path returns or raises")

    @cached_property
    def index(self) -> Index | None:
        """The pictures of the run that are there; None if there are none."""
        return self._try("the pictures", self._load_index)

    def _load_index(self) -> Index:
        if not self.folder.samples.is_file():
            raise UserError(f"there is no {self.folder.samples.name}")
        if self.root is None or not self.root.exists():
            raise UserError(f"{self.root} is not there; give --data.root DIR if it has moved")
        folder = self.root.parent if self.root.is_file() else self.root
        found = Index.from_csv(self.folder.samples, folder, self.classes)
        there = np.array([found.path(i).is_file() for i in range(len(found))], bool)
        if not there.any():
            raise UserError(f"none of them is in {folder}; give --data.root DIR if they have moved")
        if not there.all():
            first = found.paths[int(np.argmin(there))]
            self.missing.append(
                f"{int((~there).sum()):,} of the {len(found):,} pictures, {first} for one; all "
                "that follows is of the others"
            )
        return found.take(np.flatnonzero(there))

    @property
    def chosen_on_test(self) -> bool:
        """Whether the test pictures chose the best epoch."""
        return bool(self.config["data"].get("validate_on_test"))

    @cached_property
    def split(self) -> str | None:
        """The split to look at: test if it was looked at before, else val; None for neither.

        A report of its own accord never looks at test pictures: they are for the end.
        """
        if self.index is None:
            return None
        splits = set(self.index.splits.tolist())
        if "test" in splits and (self.chosen_on_test or self.scores("test")):
            return "test"
        if "val" in splits:
            return "val"
        self.missing.append(
            "the scores: there are no validation pictures"
            + (
                ". After `python -m src.train test --run_dir RUN` the report shows those of the "
                "test pictures"
                if "test" in splits
                else ", and no test pictures"
            )
        )
        return None

    def scores(self, command: str) -> dict[str, Any]:
        """Return what `test` or `validate` wrote, empty if there is nothing or it is of old."""
        found = _read_json(self.folder.path / f"{command}.json")
        try:
            return {} if not found or is_stale(self.folder.path, found) else found
        except FAILURES:
            return {}

    def _try(self, what: str, load: Callable[[], Found]) -> Found | None:
        try:
            return load()
        except FAILURES as error:
            self.missing.append(f"{what}: {said(error)}")
            return None

    @cached_property
    def _decoded(self) -> Decoded:
        data = self.config["data"]
        made = Decoded(
            data.get("cache", True),
            data["image_size"],
            data["resize"],
            data.get("cache_size"),
            data.get("interpolation", "bilinear"),
        )
        assert self.index is not None
        made.fill(self.index)
        return made

    def pictures(self, split: str) -> Pictures:
        """Return the pictures of a split as a validation sees them; needs `index`."""
        return self._pictures(split, None)

    def augmented(self) -> Pictures | None:
        """Return the training pictures as the network sees them; None without augmentation."""
        specs = self.config["data"].get("augment")
        made = Augmentation(specs, self.record.get("seed", 0)) if specs else None
        return self._pictures(TRAIN, made) if made else None

    def _pictures(self, split: str, augmentation: Augmentation | None) -> Pictures:
        assert self.index is not None
        decoded = self._decoded
        stored = decoded.of(self.index, split)
        made = Pictures(
            self.index.subset(split), *decoded.form(split), augmentation, stored, few(own_cores(1))
        )
        return made

    @property
    def block_size(self) -> int:
        """Pictures of a block of an evaluation."""
        data = self.config["data"]
        return int(data.get("eval_batch_size") or data["batch_size"])


def open_run(path: Path, root: str | None = None, trust_code: Sequence[str] = ()) -> Trained:
    """Return a run folder's contents.

    Args:
        path: The run folder.
        root: Where its pictures are now; None means where they were.
        trust_code: Prefixes of class paths that the user vouches for.

    Raises:
        UserError: if this is no run folder, or its config can't be read or names what it must not.
    """
    folder = RunFolder(path).require()
    config = _read_config(folder.newest_config)
    origin = trust.Origin(str(folder.newest_config), prefixes=tuple(trust_code))
    trust.check_names(config, origin)
    missing: list[str] = []
    record = _record(folder, missing)
    stored = record.get("data", {}).get("root")
    place = root or stored
    return Trained(
        folder,
        config,
        record,
        _read_json(folder.summary),
        _rows(folder, missing),
        Path(place) if place else None,
        missing,
        tuple(trust_code),
    )


def _record(folder: RunFolder, missing: list[str]) -> dict[str, Any]:
    try:
        found = folder.read_record()
    except FAILURES as error:
        missing.append(f"the record of the run: {said(error)}")
        return {}
    if not found:
        missing.append(f"the record of the run: there is no {folder.record.name}")
    return found if isinstance(found.get("data", {}), dict) else {}


def _rows(folder: RunFolder, missing: list[str]) -> list[dict[str, str]]:
    try:
        found = read_rows(folder.metrics)
    except FAILURES as error:
        missing.append(f"the curves: {said(error)}")
        return []
    if not found:
        there = "holds no validation" if folder.metrics.is_file() else "is not there"
        missing.append(f"the curves: {folder.metrics.name} {there}")
    return found


def _read_config(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read: {error}. Bring it back.") from error
    if not isinstance(found, dict) or not isinstance(found.get("data"), dict):
        raise UserError(f"{path} is no config of a run: it has no section data. Bring it back.")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
