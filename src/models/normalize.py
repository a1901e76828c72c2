"""From plain pixels to the normalised floats that a convolution takes.

It lies inside every network, so training, testing, export and serving can't disagree about it.
"""

# B batch, H height, W width of a picture in pixels

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Scales uint8 pictures to `(pixels / 255 - mean) / std`, one channel at a time.

    The result has the dtype of the buffers, so a network moved to bfloat16 or float64 takes its
    pictures along. The buffers are not in the state dict: they follow from the arguments.

    Args:
        mean: the mean of each of the three channels, red first, on the scale 0 to 1.
        std: the standard deviation of each channel on the same scale, above 0.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = torch.tensor([1 / (255 * s) for s in std]).reshape(3, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).reshape(3, 1, 1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self._shifts = any(mean)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise a batch of pictures.

        Args:
            pixels: uint8 [B, H, W, 3], red first.

        Returns:
            Float [B, 3, H, W] in channels_last memory, in the dtype of the buffers.

        Raises:
            ValueError: the batch has another dtype or shape.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(
                f"the network was given {pixels.dtype} {list(pixels.shape)}; it takes "
                "torch.uint8 [batch, height, width, 3], pixels of 0 to 255 with red first. "
                "Hand it the pictures as they are: it normalises them itself."
            )
        # A [B, H, W, 3] batch already lies in channels_last order: only the cast copies.
        x = pixels.permute(0, 3, 1, 2)  # [B, 3, H, W]
        x = x.to(self.scale.dtype, memory_format=torch.channels_last)
        x = x.mul_(self.scale)
        return x.add_(self.shift) if self._shifts else x
