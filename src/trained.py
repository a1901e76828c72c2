"""A trained run, opened to be looked at: its files, its network, its pictures.

N pictures of a split, C classes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from src import trust
from src.classifier import Classifier
from src.data.dataset import Pictures
from src.data.decoded import TRAIN, Decoded
from src.data.index import Index
from src.data.sampler import EvaluationBlocks
from src.data.transforms import Augmentation
from src.data.workers import few, own_cores
from src.errors import UserError
from src.loop.metrics_csv import read_rows
from src.run import RunFolder
from src.scored import is_stale
from src.table import Table

Found = TypeVar("Found")


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
        return tuple(self.config.get("data", {}).get("classes") or ())

    @cached_property
    def model(self) -> Classifier | None:
        """The network of best.ckpt, or last.ckpt without one, on the CPU; None if there is none."""

        def load() -> Classifier:
            path = self.folder.best_or_last()
            made = Classifier.load_from_checkpoint(
                path, map_location="cpu", trust_code=self.trust_code
            )
            made.eval().requires_grad_(False)
            return made

        return self._try("the network", load)

    @cached_property
    def index(self) -> Index | None:
        """All pictures of the run; None if they are not there."""

        def load() -> Index:
            if not self.folder.samples.is_file():
                raise UserError(f"there is no {self.folder.samples.name}")
            if self.root is None or not self.root.exists():
                raise UserError(f"{self.root} is not there; give --data.root DIR if it has moved")
            folder = self.root.parent if self.root.is_file() else self.root
            found = Index.from_csv(self.folder.samples, folder, self.classes)
            gone = next((i for i in range(len(found)) if not found.path(i).is_file()), None)
            if gone is not None:
                raise UserError(f"{found.paths[gone]} is not in {folder}")
            return found

        return self._try("the pictures", load)

    @cached_property
    def split(self) -> str | None:
        """The split to look at: test if `test` has scored best.ckpt, else val; None for neither."""
        if self.index is None:
            return None
        splits = set(self.index.splits.tolist())
        scores = self.scores("test")
        if scores and "test" in splits:
            return "test"
        return next((name for name in ("val", "test") if name in splits), None)

    def scores(self, command: str) -> dict[str, Any]:
        """Return what `test` or `validate` wrote, empty if there is nothing or it is of old."""
        path = self.folder.path / f"{command}.json"
        found = _read_json(path)
        try:
            return {} if not found or is_stale(self.folder.path, found) else found
        except (KeyError, OSError):
            return {}

    def _try(self, what: str, load: Callable[[], Found]) -> Found | None:
        try:
            return load()
        except (UserError, OSError, ValueError) as error:
            self.missing.append(f"{what}: {error}")
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


def evaluate(
    net: Callable[[torch.Tensor], torch.Tensor],
    pictures: Pictures,
    block_size: int,
    alter: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Table:
    """Return the table of pictures, in the blocks that a validation works in.

    Args:
        net: uint8 [B, H, W, 3] -> logits [B, C].
        pictures: N of them.
        block_size: Of a block, B.
        alter: What is done to the pixels of a block first, uint8 [B, H, W, 3] -> the same.
    """
    rows = []
    with torch.inference_mode():
        for keys in EvaluationBlocks(len(pictures), min(block_size, len(pictures))):
            batch = pictures.__getitems__(keys)
            pixels = batch["image"] if alter is None else alter(batch["image"])
            rows.append((batch["index"], batch["target"], net(pixels).float()))
    return Table.from_rows(*(torch.cat(column).numpy() for column in zip(*rows, strict=True)))


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
    record = folder.read_record()
    stored = record.get("data", {}).get("root")
    place = root or stored
    missing = [] if folder.metrics.is_file() else ["the curves: there is no metrics.csv"]
    return Trained(
        folder,
        config,
        record,
        _read_json(folder.summary),
        read_rows(folder.metrics),
        Path(place) if place else None,
        missing,
        tuple(trust_code),
    )


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
