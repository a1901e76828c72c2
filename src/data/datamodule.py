"""The LightningDataModule: wires index, audit, dataset, order and augmentation together."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from lightning.pytorch import LightningDataModule

from src.data.audit import Keep, OnBadImage
from src.data.cache import check_place, place_of
from src.data.dataset import Batch, Pictures
from src.data.decoded import TRAIN, Decoded
from src.data.find import (
    Found,
    data_root,
    find_classes,
    find_labelled,
    find_training,
    find_unlabelled,
)
from src.data.index import Index, Listing, list_data
from src.data.kept import Floats, array_key, keep
from src.data.loader import ResumableLoader, make_loader
from src.data.sampler import EvaluationBlocks, TrainBatches
from src.data.sources import Source
from src.data.store import DECODER
from src.data.transforms import Augmentation
from src.data.workers import few, own_cores
from src.errors import UserError
from src.preprocess import Interpolation, Preprocessing, Rule

Sampling = Literal["uniform", "balanced"]
OnLeak = Literal["error", "warn"]
SEEN_ON_TEST = (
    "data.validate_on_test: the TEST pictures are scored after every epoch, as in the seed's blog "
    "post. A model or an epoch chosen by these scores is chosen on the test set: its score is too "
    "good. To select a model, split val from train."
)


class DataModule(LightningDataModule):
    """Folders or a CSV of pictures -> batches of uint8 pixels.

    Args:
        root: Folder `root/{train,val,test}/<class>/*` or `root/<class>/*`, or a CSV with the
            columns path, label and optionally split and group. None means that `source` gives the
            data.
        source: Where the data come from when there is no root, by class_path: a download or the
            built-in pictures.
        classes: Names in the order of the outputs. None means those of the data, sorted.
        batch_size: Pictures of one training step, for each process, from 1.
        eval_batch_size: Pictures of one block of validation, test and prediction; None means
            batch_size.
        num_workers: Processes that decode and augment, for each process; 0 does it in the main one,
            in up to 4 threads. `auto` lets fit measure for two seconds how many are worth it, and
            takes 0 where nothing is decoded or augmented; other commands take up to 4 where files
            have to be decoded. The results do not depend on it.
        image_size: Side of the square pictures that are decoded, in pixels.
        resize: `stretch` ignores the aspect ratio; `crop` brings the shorter side to image_size and
            cuts out the middle.
        interpolation: `bilinear` mixes all pixels that one of the smaller picture covers
            (antialiased); `nearest` takes one of them, as Keras does by default.
        cache_size: Side in pixels at which training pictures come to `augment`, for a picture to
            crop from: its shorter side by `resize: crop`, which then keeps all of the longer one
            (up to four times as long). None means image_size, by `resize`, as for all others.
        augment: Albumentations transforms for training, in order: a list of
            {class_path: albumentations.NAME, init_args: {...}}. OneOf, SomeOf and Sequential take
            theirs in init_args.transforms.
        sampling: `uniform` shows every training picture once an epoch; `balanced` shows each class
            equally often, pictures of small classes several times and of large ones not in every
            epoch. An epoch is as long either way.
        val_fraction: Share of the training pictures kept for validation, 0 to 1; for data without
            a val part. None means 0.15.
        test_fraction: Share kept for the test, 0 to 1; for data without any split. None means 0.15.
        split_seed: Of the splits; apart from the run's seed, so that repeated runs share them.
        validate_on_test: Score the test pictures each epoch and train on all others. No way to
            select a model; for comparison with published programs that did it.
        cache: Whether decoded pictures are kept on the disk, so that each is decoded once, whatever
            the number of epochs and runs; or the folder for them. True means the user's cache
            folder, which holds at most WAGGLE_CACHE_GIB (20): see `python -m src.cache`.
        on_bad_image: `error` lists the files that can't be decoded and stops; `skip` leaves them
            out and records them.
        on_leak: `warn` tells in fit of pictures that lie under several labels or in several splits,
            exact copies and the near ones that `python -m src.audit` has found; `error` refuses
            them.
        seed: Of the order and the augmentation; linked to seed_everything.

    Raises:
        UserError: for a value out of range, or an augmentation that does not exist.
    """

    def __init__(
        self,
        root: str | None = None,
        source: Source | None = None,
        classes: list[str] | None = None,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int | Literal["auto"] = 0,
        image_size: int = 150,
        resize: Rule = "stretch",
        interpolation: Interpolation = "bilinear",
        cache_size: int | None = None,
        # A bare dict: inside dict[str, Any] the parser would build the objects of nested groups.
        augment: list[dict] | None = None,  # type: ignore[type-arg]
        sampling: Sampling = "uniform",
        val_fraction: float | None = None,
        test_fraction: float | None = None,
        split_seed: int = 0,
        validate_on_test: bool = False,
        cache: bool | str = True,
        on_bad_image: OnBadImage = "error",
        on_leak: OnLeak = "warn",
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_least("data.batch_size", batch_size, 1)
        _check_least("data.eval_batch_size", 1 if eval_batch_size is None else eval_batch_size, 1)
        _check_least("data.num_workers", 0 if num_workers == "auto" else num_workers, 0)
        _check_least("data.image_size", image_size, 1)
        _check_sampling(sampling)
        _check_cache_size(cache_size, augment)
        self.root, self.source = root, source
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.image_size, self.resize = num_workers, image_size, resize
        self.interpolation = interpolation
        self.decoding = (cache, image_size, resize, cache_size, interpolation)
        self.sampling, self.validate_on_test = sampling, validate_on_test
        self.split_rules: dict[str, Any] = {
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "split_seed": split_seed,
            "validate_on_test": validate_on_test,
        }
        self.on_bad_image: OnBadImage = on_bad_image
        self.on_leak: OnLeak = on_leak
        self.seed = seed
        self.augmentation = Augmentation(augment, seed) if augment else None
        self.samples: Path | None = None  # samples.csv of the run whose own splits are scored
        self.settled_workers: int | None = None  # what `auto` stands for in the training
        self.listing: Listing | None = None  # what the data say, if that was read for the classes
        self._classes = tuple(classes) if classes else None
        self._found: dict[str, Found] = {}
        self._decoded: dict[str, Decoded] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the network's outputs."""
        if self._classes is None:
            self._classes, self.listing = find_classes(self.location)
        return self._classes

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing record, but for the network's own constants."""
        return Preprocessing(
            image_size=self.image_size,
            resize=self.resize,
            interpolation=self.interpolation,
            classes=self.classes,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )

    # What each command works on; found once, before the Trainer starts or at its setup

    def prepare(self, command: str) -> None:
        """Find, check and split the pictures for fit, validate, test or predict.

        Raises:
            UserError: for whatever is wrong with the data.
        """
        if command in self._found:
            return
        decoded = Decoded(*self.decoding)
        check_place(decoded.cache, self.location)
        with decoded.keeping(TRAIN if command == "fit" else command) as keep:
            found = self._find(command, keep)
        decoded.fill(found.index)
        self._found[command], self._decoded[command] = found, decoded

    def found(self, command: str) -> Found:
        """Return the pictures of a command, and what was noticed about them."""
        self.prepare(command)
        return self._found[command]

    def index(self, command: str) -> Index:
        """Return the pictures of a command; for fit, those of all splits."""
        return self.found(command).index

    @property
    def train_counts(self) -> dict[str, int]:
        """How many pictures of each class are trained on; classes in the network's order."""
        return self.index("fit").counts().get("train", dict.fromkeys(self.classes, 0))

    def _find(self, command: str, keep: Keep | None) -> Found:
        root, bad = self.location, self.on_bad_image
        if command == "fit":
            _ = self.training_shape  # tries the augmentation
            listing, self.listing = self.listing or list_data(root), None
            return find_training(listing, self._classes, bad, self.split_rules, keep)
        if command == "predict":
            return find_unlabelled(root, self.classes, self.samples, keep)
        own_test = self.validate_on_test and self.samples is not None
        split = "val" if command == "validate" and not own_test else "test"
        return find_labelled(root, self.classes, bad, split, self.samples, keep)

    @property
    def training_shape(self) -> tuple[int, ...]:
        """Height, width and channels of a training picture, after augmentation."""
        if self.augmentation is None:
            return (self.image_size, self.image_size, 3)
        shapes = [self.augmentation.check(*s) for s in Decoded(*self.decoding).training_shapes()]
        if len(set(shapes)) > 1:
            raise UserError(
                f"data.augment gives pictures of {shapes} for square, tall and wide ones of "
                "data.cache_size. Begin it with a crop to one size."
            )
        return shapes[0]

    @property
    def location(self) -> Path:
        """The folder or CSV that the pictures come from, after the download if there is one."""
        return data_root(self.root, self.source)

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        """Make the index, if it was not made before the Trainer."""
        self.prepare(stage)
        if stage == "fit" and self.validate_on_test and self.trainer.is_global_zero:  # type: ignore[union-attr]
            print(f"WARNING: {SEEN_ON_TEST}", file=sys.stderr)

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of the training pictures, in the order of (seed, epoch)."""
        trainer: Any = self.trainer
        pictures = self.pictures("fit", TRAIN, self.augmentation)
        batches = TrainBatches(
            len(pictures),
            self.batch_size,
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            pictures.index.labels if self.sampling == "balanced" else None,
        )
        loader = self._loader(pictures, batches)
        loop, fixed = trainer.fit_loop, bool(trainer.overfit_batches)
        loader.position = lambda: (
            0 if fixed else loop.epoch_progress.current.processed,
            loop.epoch_loop.batch_progress.current.ready,
        )
        return loader

    @property
    def works_for_batches(self) -> bool:
        """Whether anything is decoded or augmented for a batch of the training."""
        return self.pictures("fit", TRAIN, self.augmentation).costs

    def validated(self) -> Pictures:
        """Return the pictures that a training is validated on."""
        return self.pictures("fit", "test" if self.validate_on_test else "val")

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """Return the loader of the validation blocks; none if data.val_fraction is 0."""
        if self.trainer.state.fn == "validate":  # type: ignore[union-attr]
            return self._blocks(self.pictures("validate"))
        pictures = self.validated()
        return self._blocks(pictures) if len(pictures) else []

    def test_dataloader(self) -> ResumableLoader:
        """Return the loader of the test blocks."""
        return self._blocks(self.pictures("test"))

    def predict_dataloader(self) -> ResumableLoader:
        """Return the loader of the blocks to predict."""
        return self._blocks(self.pictures("predict"))

    def pictures(
        self, command: str, split: str | None = None, augmentation: Augmentation | None = None
    ) -> Pictures:
        """Return the pictures of a command that was prepared.

        Args:
            command: fit, validate, test or predict.
            split: One of its splits; None means the only one.
            augmentation: For those to train on.
        """
        index, decoded = self.index(command), self._decoded[command]
        split = split or str(index.splits[0])
        stored = decoded.of(index, split)
        return Pictures(index.subset(split), *decoded.form(split), augmentation, stored)

    def computed(self, split: str, about: str, compute: Callable[[Batch], Floats]) -> Floats:
        """Return a row of numbers for each picture of a split of the training, float32 [N, F].

        Computed block by block, as a validation sees the pictures, and kept in the cache.

        Args:
            split: A split of fit; its pictures come without augmentation.
            about: All that the rows depend on besides the pictures and the blocks.
            compute: Rows, float32 [B, F], of a block; those of masked rows are left out.
        """
        pictures = self.pictures("fit", split)
        pictures.threads = few(own_cores(1))
        size = min(self.eval_batch_size, len(pictures))

        def make() -> Floats:
            blocks = EvaluationBlocks(len(pictures), size)
            rows = [compute(pictures.__getitems__(keys)) for keys in blocks]
            return np.concatenate(rows)[: len(pictures)]

        form = str(self._decoded["fit"].form(split))
        key = array_key(about, DECODER, form, str(size), *pictures.index.hashes)
        return keep(place_of(self.decoding[0]), key, make)

    def _blocks(self, pictures: Pictures) -> ResumableLoader:
        trainer: Any = self.trainer
        blocks = EvaluationBlocks(
            len(pictures),
            min(self.eval_batch_size, len(pictures)),
            trainer.global_rank,
            trainer.world_size,
        )
        return self._loader(pictures, blocks)

    def _loader(self, pictures: Pictures, batches: Any) -> ResumableLoader:
        trainer: Any = self.trainer
        cores = own_cores(trainer.num_devices)
        workers = self.workers(pictures, cores)
        pictures.threads = 1 if workers else few(cores)
        return make_loader(pictures, batches, workers, trainer.strategy.root_device)

    def workers(self, pictures: Pictures, cores: int) -> int:
        """Return how many processes of so many cores make the batches of these pictures."""
        if self.num_workers != "auto":
            return self.num_workers
        if not pictures.costs:
            return 0
        if self.settled_workers is not None:
            return self.settled_workers
        return few(cores)


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"--{name} is {value}; allowed is {least} or more.")


def _check_cache_size(cache_size: int | None, augment: Any) -> None:
    if cache_size is None:
        return
    _check_least("data.cache_size", cache_size, 1)
    if not augment:
        raise UserError(
            f"--data.cache_size is {cache_size} and there is no data.augment: nothing would crop "
            "training pictures to one size. Begin data.augment with a crop, or leave it out."
        )


def _check_sampling(sampling: str) -> None:
    if sampling not in get_args(Sampling):
        allowed = " or ".join(get_args(Sampling))
        raise UserError(f"--data.sampling is {sampling!r}; allowed is {allowed}.")
