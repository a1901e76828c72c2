"""Index and transform -> a batch of uint8 pixels. Workers hold no state of their own."""

import copy
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from src import preprocess
from src.data.index import Index
from src.data.sampler import PADDING, Key
from src.data.segments import Stored
from src.data.transforms import Augmentation
from src.errors import UserError

Batch = dict[str, torch.Tensor]


class Pictures(Dataset[Any]):
    """The samples of one split as batches of pixels.

    A batch is made whole, without a tensor per sample: {"image": uint8 [B, H, W, 3],
    "target": int64 [B] (-1: no label), "index": int64 [B] (-1: a masked row)}.

    Args:
        index: The samples.
        image_size: Side of the decoded pictures in pixels, the shorter one by "cover".
        resize: The resize rule of `src.preprocess`.
        interpolation: Its way to mix pixels.
        augmentation: For training alone; None leaves the pixels as they are.
        stored: Their pixels, as far as they are known; None means that files are decoded.
        threads: That share the work of a batch, from 1; the pixels do not depend on it.
    """

    def __init__(
        self,
        index: Index,
        image_size: int,
        resize: preprocess.StoredRule,
        interpolation: preprocess.Interpolation = "bilinear",
        augmentation: Augmentation | None = None,
        stored: Stored | None = None,
        threads: int = 1,
    ) -> None:
        self.index, self.image_size, self.resize = index, image_size, resize
        self.interpolation = interpolation
        self.augmentation, self.stored, self.threads = augmentation, stored, threads
        stays = augmentation is None and stored is not None and bool((stored.files >= 0).all())
        self.costs = not stays  # whether anything is decoded or augmented for a batch

    def __getstate__(self) -> dict[str, Any]:
        """Leave the threads here."""
        return {name: value for name, value in self.__dict__.items() if name != "_crew"}

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.index)

    def pixels(
        self, epoch: int, index: int, showing: int = 0, pipeline: Augmentation | None = None
    ) -> preprocess.Pixels:
        """Return one sample as the network gets it: uint8 [H, W, 3].

        Args:
            epoch: From 0.
            index: Of the sample.
            showing: How often the epoch had this sample before.
            pipeline: A thread's own copy of the augmentation; None takes the one of the data set.

        Raises:
            UserError: if the file has become unreadable since the start.
        """
        augmentation = pipeline or self.augmentation
        image = self.stored.pixels(index) if self.stored is not None else None
        if augmentation is None:
            return self._decoded(index) if image is None else image
        image = self._decoded(index) if image is None else image.copy()  # it may be written to
        return augmentation(image, epoch, index, showing)

    @cached_property
    def _crew(self) -> tuple[ThreadPoolExecutor, list[Augmentation | None]]:
        """The other threads, and a pipeline for each: its generators are set for every picture."""
        others = self.threads - 1
        pipelines = [copy.copy(self.augmentation) for _ in range(others)]
        return ThreadPoolExecutor(others), pipelines

    def _fill(self, sheet: "_Sheet", keys: Sequence[Key]) -> None:
        """Make the pictures of a batch; each thread makes every nth of them."""
        shown = [(row, key) for row, key in enumerate(keys) if key[1] != PADDING]
        pool, pipelines = self._crew if self.costs and self.threads > 1 else (None, [])

        def share(first: int, pipeline: Augmentation | None = None) -> None:
            for row, key in shown[first :: len(pipelines) + 1]:
                sheet.put(row, self.pixels(*key, pipeline))

        others: list[Future[None]] = []
        if pool is not None:
            others = [pool.submit(share, *job) for job in enumerate(pipelines, 1)]
        try:
            share(0)
        finally:  # also after an error: the next batch has the same pipelines
            wait(others)
        for other in others:
            other.result()

    def _decoded(self, index: int) -> preprocess.Pixels:
        path = self.index.path(index)
        try:
            return preprocess.load_pixels(path, self.image_size, self.resize, self.interpolation)
        except (preprocess.BadImageError, OSError) as error:
            raise UserError(
                f"{path} could be read at the start and can't be now: {error}. "
                "Bring the file back, then go on with --ckpt_path last."
            ) from error

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of these keys."""
        sheet = _Sheet(len(keys))
        self._fill(sheet, keys)
        images = sheet.images
        if images is None:  # masked rows alone
            images = np.zeros((len(keys), self.image_size, self.image_size, 3), np.uint8)
        rows = np.array([index for _, index, _ in keys], np.int64)
        targets = np.where(rows == PADDING, -1, self.index.labels[np.maximum(rows, 0)])
        return {
            "image": torch.from_numpy(images),
            "target": torch.from_numpy(targets),
            "index": torch.from_numpy(rows),
        }


class _Sheet:
    """The pixels of a batch, filled by several threads; masked rows stay zero.

    Args:
        size: Number of rows, B.
    """

    def __init__(self, size: int) -> None:
        self.size, self._lock = size, Lock()
        self.images: Any = None  # uint8 [B, H, W, 3], as large as the first picture

    def put(self, row: int, picture: preprocess.Pixels) -> None:
        """Copy a picture, uint8 [H, W, 3], into its row.

        Raises:
            UserError: if it is of another size than those before it.
        """
        with self._lock:
            if self.images is None:
                self.images = np.zeros((self.size, *picture.shape), np.uint8)
        if picture.shape != self.images.shape[1:]:
            raise UserError(
                f"data.augment gave pictures of {self.images.shape[1:3]} and {picture.shape[:2]} "
                "pixels in one batch. End it with a crop or a resize to one size."
            )
        self.images[row] = picture
