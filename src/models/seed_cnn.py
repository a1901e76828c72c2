"""The small Keras network of the seed experiment, layer for layer."""

# B batch, S side of the picture in pixels, P = (S - 2) // 2 side after the pooling, K classes

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.errors import UserError
from src.models.checks import check_num_classes
from src.models.normalize import Normalize

MIN_IMAGE_SIZE = 4


class SeedCNN(nn.Module):
    """The seed's network: Conv 32 of 3x3, ReLU, MaxPool 2, Flatten, Dense 64, ReLU, Dense 1.

    The convolution has no padding. Pixels are only divided by 255. The weights start as Keras
    starts them (glorot uniform, zero biases) and are flattened in Keras's order: height, width,
    channel. At 150 px with one output it has 11,215,873 parameters, 896 of them in the convolution.

    Args:
        num_classes: number of classes to tell apart, 2 to 1000; default 2.
        single_logit: whether two classes share one output unit z, as in the seed. The logits are
            then [0, z], whose softmax is sigmoid(z) and whose cross entropy is the binary one.
            With more than two classes it changes nothing; default true.
        image_size: side of the square pictures in pixels, 4 or more; default 150. The first dense
            layer grows with its square.

    Raises:
        UserError: num_classes or image_size lies outside its range.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    image_size: int | None

    def __init__(
        self, num_classes: int = 2, single_logit: bool = True, image_size: int = 150
    ) -> None:
        super().__init__()
        check_num_classes(num_classes)
        _check_image_size(image_size)
        self.image_size = image_size
        self.single_logit = single_logit and num_classes == 2
        side = (image_size - 2) // 2
        self.normalize = Normalize(self.mean, self.std)
        self.conv = nn.Conv2d(3, 32, kernel_size=3)
        self.pool = nn.MaxPool2d(2)
        self.dense = nn.Linear(32 * side * side, 64)
        self.head = nn.Linear(64, 1 if self.single_logit else num_classes)
        for layer in (self.conv, self.dense, self.head):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None  # for mypy: torch types it as optional
            nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stubs

    def forward(self, pixels: Tensor) -> Tensor:
        """Score a batch of pictures.

        Args:
            pixels: uint8 [B, S, S, 3], red first, with S the `image_size`.

        Returns:
            Logits, float [B, K].

        Raises:
            ValueError: the batch has another dtype, shape or size.
        """
        x = self.normalize(pixels)  # [B, 3, S, S]
        self._check_size(pixels)
        # Pooling before the ReLU gives the same numbers (max and ReLU commute) for a quarter
        # of the ReLU's work and memory.
        x = F.relu(self.pool(self.conv(x)))  # [B, 32, P, P]
        # Height, width, channel is Keras's order, and a view of channels_last memory: no copy.
        x = x.permute(0, 2, 3, 1).flatten(1)  # [B, P * P * 32]
        logits: Tensor = self.head(F.relu(self.dense(x)))  # [B, 1] or [B, K]
        return F.pad(logits, (1, 0)) if self.single_logit else logits  # [B, K]

    def _check_size(self, pixels: Tensor) -> None:
        """Refuse pictures of another size than the dense layer was made for."""
        if pixels.shape[1] != self.image_size or pixels.shape[2] != self.image_size:
            raise ValueError(
                f"SeedCNN was given pictures of {pixels.shape[1]} x {pixels.shape[2]} px; it was "
                f"made for {self.image_size} x {self.image_size}. Set the net's image_size and "
                "the data's to the same number."
            )


def _check_image_size(image_size: int) -> None:
    """Refuse a picture too small for the convolution and the pooling."""
    if image_size < MIN_IMAGE_SIZE:
        raise UserError(
            f"image_size is {image_size}; SeedCNN takes {MIN_IMAGE_SIZE} px or more. "
            "Set the net's image_size, 150 in the seed."
        )
