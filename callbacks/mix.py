"""Training pictures blended by twos, and their targets with them."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from src.errors import UserError


class Mix(Callback):
    """Blends each training picture with another one of its batch, and their targets alike.

    MixUp (Zhang et al. 2018, arXiv 1710.09412) takes a weighted mean of the two pictures; CutMix
    (Yun et al. 2019, arXiv 1905.04899) puts a rectangle of the other one in. With both, each batch
    has one of them by chance. The share of the picture itself is at least a half, so train/accuracy
    counts by its own class. With `model.class_weights` the loss of a batch is divided by its size,
    as torch does for shares, and not by the sum of its weights. All of it is drawn from the random
    numbers of the step, so a resumed run draws the same.

    Args:
        mixup: Of Beta(mixup, mixup), from which the share is drawn; 0 does without. Small numbers
            blend little: 0.2.
        cutmix: The same for the rectangle's share: 1.0 makes all sizes equally likely.

    Raises:
        UserError: for numbers below 0 or not finite, or if both are 0.
    """

    changes_pictures = True  # so their features can't be kept

    def __init__(self, mixup: float = 0.2, cutmix: float = 1.0) -> None:
        sound = all(0 <= number < math.inf for number in (mixup, cutmix))
        if not sound or mixup == cutmix == 0:
            raise UserError(
                f"callbacks.Mix has mixup {mixup} and cutmix {cutmix}; allowed are numbers from 0, "
                "one of them above 0. Leave the callback out to blend nothing."
            )
        self.mixup, self.cutmix = mixup, cutmix

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the loss takes shares.

        Raises:
            UserError: if it takes numbers of classes alone.
        """
        module: Any = pl_module
        shares = torch.full((2, module.num_classes), 1 / module.num_classes)
        try:
            module.loss.cpu()(torch.zeros_like(shares), shares)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                "callbacks.Mix gives the loss a share for each class, float [B, C], and "
                f"{type(module.loss).__name__} fails on that: {error}. Take the cross entropy, or "
                "leave the callback out."
            ) from error

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Blend the pictures, and lay `target_shares`, float [B, C], beside `target`."""
        num_classes: Any = pl_module.num_classes
        draw = np.random.default_rng(int(torch.randint(2**62, ()).item()))
        cuts = self.cutmix > 0 and (self.mixup == 0 or draw.random() < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = draw.beta(alpha, alpha)
        share = max(share, 1 - share)
        others = torch.from_numpy(draw.permutation(len(batch["target"]))).to(batch["target"].device)
        blend = _cut if cuts else _fade
        batch["image"], share = blend(batch["image"], batch["image"][others], share, draw)
        own = F.one_hot(batch["target"], num_classes).float()
        batch["target_shares"] = share * own + (1 - share) * own[others]


def _fade(
    pixels: Tensor, others: Tensor, share: float, draw: np.random.Generator
) -> tuple[Tensor, float]:
    """Return weighted means, uint8 [B, H, W, 3], and the share of the first."""
    mean = torch.lerp(others.float(), pixels.float(), share)
    return mean.round_().to(torch.uint8), share


def _cut(
    pixels: Tensor, others: Tensor, share: float, draw: np.random.Generator
) -> tuple[Tensor, float]:
    """Return pictures with one rectangle of the others, and the share of what is left of them."""
    height, width = pixels.shape[1:3]
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = draw.integers(height - tall + 1), draw.integers(width - wide + 1)
    cut = pixels.clone()
    rows, columns = slice(top, top + tall), slice(left, left + wide)
    cut[:, rows, columns] = others[:, rows, columns]
    return cut, 1 - tall * wide / (height * width)
