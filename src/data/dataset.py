"""Index and transform -> a batch of uint8 pixels. Workers hold no state of their own."""

from collections.abc import Sequence
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
    """

    def __init__(
        self,
        index: Index,
        image_size: int,
        resize: preprocess.StoredRule,
        interpolation: preprocess.Interpolation = "bilinear",
        augmentation: Augmentation | None = None,
        stored: Stored | None = None,
    ) -> None:
        self.index, self.image_size, self.resize = index, image_size, resize
        self.interpolation = interpolation
        self.augmentation, self.stored = augmentation, stored

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.index)

    @property
    def costs(self) -> bool:
        """Whether anything is decoded or augmented for a batch."""
        stored = self.stored is not None and bool((self.stored.files >= 0).all())
        return self.augmentation is not None or not stored

    def pixels(self, epoch: int, index: int, showing: int = 0) -> preprocess.Pixels:
        """Return one sample as the network gets it: uint8 [H, W, 3].

        Args:
            epoch: From 0.
            index: Of the sample.
            showing: How often the epoch had this sample before.

        Raises:
            UserError: if the file has become unreadable since the start.
        """
        image = self.stored.pixels(index) if self.stored is not None else None
        if self.augmentation is None:
            return self._decoded(index) if image is None else image
        image = self._decoded(index) if image is None else image.copy()  # it may be written to
        return self.augmentation(image, epoch, index, showing)

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
        images: Any = None
        for row, (epoch, index, showing) in enumerate(keys):
            if index == PADDING:
                continue
            image = self.pixels(epoch, index, showing)
            if images is None:
                images = np.zeros((len(keys), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise UserError(
                    f"data.augment gave pictures of {images.shape[1:3]} and {image.shape[:2]} "
                    "pixels in one batch. End it with a crop or a resize to one size."
                )
            images[row] = image
        if images is None:  # masked rows alone
            images = np.zeros((len(keys), self.image_size, self.image_size, 3), np.uint8)
        rows = np.array([index for _, index, _ in keys], np.int64)
        targets = np.where(rows == PADDING, -1, self.index.labels[np.maximum(rows, 0)])
        return {
            "image": torch.from_numpy(images),
            "target": torch.from_numpy(targets),
            "index": torch.from_numpy(rows),
        }
