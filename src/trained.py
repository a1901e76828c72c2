"""A trained run, opened to be looked at: its files, its network, its pictures.

N pictures of a split, C classes.
"""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from src.classifier import Classifier
from src.data.dataset import Pictures
from src.data.decoded import TRAIN, Decoded
from src.data.index import Index
from src.data.transforms import Augmentation
from src.data.workers import few, own_cores
from src.errors import UserError
from src.forward import evenly
from src.missing import FORESEEN, Missing
from src.run import RunFolder
from src.run_rules import check_samples
from src.scored import COMMANDS, is_stale


@dataclass(frozen=True)
class Trained:
    """What lies in a run folder, and what it points to.

    Attributes:
        folder: The run folder.
        config: Of its latest sitting, plain data.
        record: run.json.
        summary: summary.json; empty if the run has not ended, or goes on.
        rows: metrics.csv.
        root: Of the pictures.
        missing: What could not be had, in words; grows while the parts are looked for.
        trust_code: What the user vouches for, see `src.trust`.
    """

    folder: RunFolder
    config: dict[str, Any]
    record: dict[str, Any]
    summary: dict[str, Any]
    ended: bool
    rows: list[dict[str, str]]
    root: Path | None
    missing: Missing = field(default_factory=Missing)
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

    @property
    def model(self) -> Classifier | None:
        """The network of best.ckpt, on the CPU, or of the next that can be had; None of none."""
        return self._loaded[1] if self._loaded else None

    @cached_property
    def _loaded(self) -> tuple[str, Classifier] | None:
        """The name of the checkpoint, and its network."""
        return self.missing.attempt("the network", self._load_model)

    def _load_model(self) -> tuple[str, Classifier]:
        names = (self.folder.best, self.folder.last, self.folder.previous)
        paths = [path for path in names if path.is_file()]
        if not paths:
            raise UserError(f"there is no checkpoint in {self.folder.checkpoints}")
        if paths[0] != self.folder.best and any(row.get("val/loss") for row in self.rows):
            self.missing.note(f"best.ckpt is not there. Taken instead: {paths[0].name}.")
        for path, following in zip(paths, [*paths[1:], None], strict=True):
            try:
                made = Classifier.load_from_checkpoint(
                    path, map_location="cpu", trust_code=self.trust_code
                )
            except FORESEEN as error:
                if following is None:
                    raise
                self.missing.note(f"{path.name}: {error} Taken instead: {following.name}.")
            else:
                made.eval().requires_grad_(False)
                return path.name, made
        raise AssertionError("the last path returns or raises")

    @cached_property
    def index(self) -> Index | None:
        """The pictures of the run that are there; None if there are none."""
        return self.missing.attempt("the pictures", self._load_index)

    def _load_index(self) -> Index:
        if self.root is None or not self.root.exists():
            where = self.root or "the place that run.json should name"
            raise UserError(f"{where} is not there; give --data.root DIR if it has moved")
        folder = self.root.parent if self.root.is_file() else self.root
        found = replace(self._listed(), root=folder)
        there = np.array([found.path(i).is_file() for i in range(len(found))], bool)
        if not there.any():
            raise UserError(f"none of them is in {folder}; give --data.root DIR if they have moved")
        if not there.all():
            first = found.paths[int(np.argmin(there))]
            self.missing.note(
                f"{int((~there).sum()):,} of the {len(found):,} pictures, {first} for one; all "
                "that follows is of the others"
            )
        return found.take(np.flatnonzero(there))

    def _listed(self) -> Index:
        """Return what the run began with, whether it is there or not."""
        if not self.folder.samples.is_file():
            raise UserError(f"there is no {self.folder.samples.name}")
        check_samples(self.folder)
        return Index.from_csv(self.folder.samples, Path(), self.classes)

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
        if "test" in splits and (self.chosen_on_test or self.own_scores("test")):
            return "test"
        if "val" in splits:
            return "val"
        self.missing.note(
            "the scores: there are no validation pictures"
            + (
                ". After `python -m src.train test --run_dir RUN` the report shows those of the "
                "test pictures"
                if "test" in splits
                else ", and no test pictures"
            )
        )
        return None

    def scores(self, split: str) -> dict[str, Any]:
        """Return what `test` or `validate` wrote, empty if there is nothing or it is of old."""
        try:
            found = json.loads((self.folder.path / f"{COMMANDS[split]}.json").read_text("utf-8"))
            return {} if is_stale(self.folder.path, found) else dict(found)
        except (OSError, ValueError, LookupError, TypeError):
            return {}

    def is_own(self, split: str) -> bool:
        """Return whether those scores are of the run's own pictures of this split."""
        scores = self.scores(split)
        if not scores:
            return False
        own = self.missing.attempt("the pictures", self._listed)
        if own is None or scores.get("data_fingerprint") == own.subset(split).fingerprint():
            return own is not None
        self.missing.note(f"{COMMANDS[split]}.json: it is of other pictures than the run's own")
        return False

    def own_scores(self, split: str) -> dict[str, Any]:
        """Return what the network here said of the run's own pictures, empty if that is not known.

        A test of another checkpoint says nothing of this one's test pictures.
        """
        if not self.is_own(split) or self._loaded is None:
            return {}
        found, name = self.scores(split), self._loaded[0]
        if found.get("checkpoint") == name:
            return found
        self.missing.note(f"{COMMANDS[split]}.json: it is of {found.get('checkpoint')}, not {name}")
        return {}

    @property
    def _decoded(self) -> Decoded:
        """What decodes; a run folder from elsewhere may not say where the cache is written."""
        data = self.config["data"]
        return Decoded(
            bool(data.get("cache", True)),
            data["image_size"],
            data["resize"],
            data.get("cache_size"),
            data.get("interpolation", "bilinear"),
        )

    def pictures(self, split: str, most: int) -> Pictures:
        """Return so many pictures of a split, evenly spread, as a validation sees them.

        Needs `index`. Those pictures alone are put into the cache.
        """
        index = self._of(split)
        index, decoded = index.take(evenly(len(index), most)), self._decoded
        decoded.fill(index)
        stored = decoded.of(index, split)
        return Pictures(index, *decoded.form(split), None, stored, few(own_cores(1)))

    def training_pictures(self) -> Pictures:
        """Return all training pictures, of which a few can be decoded; needs `index`."""
        return Pictures(self._of(TRAIN), *self._decoded.form(TRAIN))

    def augmented(self) -> Pictures | None:
        """Return the training pictures as the network sees them; None without augmentation."""
        specs = self.config["data"].get("augment")
        if not specs:
            return None
        made = Augmentation(specs, self.record.get("seed", 0))
        return Pictures(self._of(TRAIN), *self._decoded.form(TRAIN), made)

    def _of(self, split: str) -> Index:
        assert self.index is not None
        return self.index.subset(split)

    @property
    def block_size(self) -> int:
        """Pictures of a block of an evaluation."""
        data = self.config["data"]
        return int(data.get("eval_batch_size") or data["batch_size"])
