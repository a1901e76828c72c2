"""Our own small residual network, made to train from scratch on a processor."""

# B batch, H and W sides of the picture in pixels, C channels, K classes

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.errors import UserError
from src.models.checks import check_num_classes, check_share
from src.models.normalize import Normalize

Pooling = Literal["mean", "mean_max"]


class SmallResNet(nn.Module):
    """A small residual network (He et al. 2016) with a cheap stem and every stage strided.

    The stem quarters the sides and each stage halves them, so most of the work is done on small
    maps: at 128 px the stages see 16, 8 and 4 px. The defaults have 1.2 million parameters. Global
    pooling makes it take any size, from 32 px a side; it is meant for 96 to 160.

    Pixels are scaled with mean and std of 0.5, to -1 and 1: this network learns from scratch, so
    the statistics of another data set would only be one more number to keep in step.

    Args:
        num_classes: number of classes to tell apart, 2 to 1000; default 2.
        stem_width: channels of the stem, 1 or more; default 32.
        widths: channels of each stage, 1 or more each; default 64, 128, 256. The work of a stage
            grows with the square of its width.
        blocks: residual blocks in each stage, 1 or more each, as many numbers as in widths;
            default 1, 1, 1.
        dropout: share of the pooled features set to zero while training, 0 up to but not 1;
            default 0.
        pooling: what the head sees of the last map: `mean` of each channel, or `mean_max`, the mean
            and the maximum side by side, as fastai's heads do. The mean dilutes what fills a small
            part of the picture, the maximum does not; default mean.

    Raises:
        UserError: an argument lies outside its range, or widths and blocks differ in length.
    """

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_size: int | None = None

    def __init__(
        self,
        num_classes: int = 2,
        stem_width: int = 32,
        widths: Sequence[int] = (64, 128, 256),
        blocks: Sequence[int] = (1, 1, 1),
        dropout: float = 0.0,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        check_num_classes(num_classes)
        _check_shape(stem_width, widths, blocks)
        check_share("dropout", dropout)
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling is {pooling!r}; allowed are {', '.join(get_args(Pooling))}.")
        self.normalize = Normalize(self.mean, self.std)
        self.stem = _stem(stem_width)
        arriving = (stem_width, *widths[:-1])
        self.stages = nn.Sequential(*map(_stage, arriving, widths, blocks))
        self.dropout = nn.Dropout(dropout)
        self.pools = (_mean, _maximum) if pooling == "mean_max" else (_mean,)
        self.head = nn.Linear(len(self.pools) * widths[-1], num_classes)
        self._start_weights()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stubs

    def forward(self, pixels: Tensor) -> Tensor:
        """Score a batch of pictures.

        Args:
            pixels: uint8 [B, H, W, 3], red first; H and W 32 or more.

        Returns:
            Logits, float [B, K].

        Raises:
            ValueError: the batch has another dtype or shape.
        """
        x = self.stem(self.normalize(pixels))  # [B, C, H / 4, W / 4]
        x = self.stages(x)  # [B, C, H / 32, W / 32] with three stages
        x = torch.cat([pool(x) for pool in self.pools], 1)  # [B, C] or [B, 2 * C]
        logits: Tensor = self.head(self.dropout(x))  # [B, K]
        return logits

    def layers(self) -> list[nn.Module]:
        """Return stem, stages and head."""
        return [self.stem, *self.stages, self.head]

    def _start_weights(self) -> None:
        """Set the weights to where training starts: He et al. 2015, and each block an identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                # Goyal et al. 2017: a branch that starts at zero lets a high rate work at once.
                nn.init.zeros_(module.norm2.weight)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input.

    Where the sides are halved or the channels change, the input is averaged over 3x3 and passes a
    1x1 convolution (ResNet-D, He et al. 2019): a plain strided one would drop three pixels of four.

    Args:
        before: channels that come in.
        width: channels that go out.
        stride: 2 to halve the sides, 1 to keep them.
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same = stride == 1 and before == width
        self.shortcut = nn.Identity() if same else _shortcut(before, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, width, H / stride, W / stride] for float [B, before, H, W]."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)  # [B, width, H / s, W / s]
        y = self.norm2(self.conv2(y))  # [B, width, H / s, W / s]
        return F.relu(y + self.shortcut(x), inplace=True)


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def _maximum(x: Tensor) -> Tensor:
    return x.amax((2, 3))


def _stem(width: int) -> nn.Sequential:
    """Quarter the sides: a strided 3x3 convolution, max-pooling, batch norm, ReLU.

    Pooling comes first, so that norm and ReLU touch a quarter of the pixels.
    """
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _stage(before: int, width: int, blocks: int) -> nn.Sequential:
    """Build one stage: its first block halves the sides and sets the channels."""
    first = ResidualBlock(before, width, stride=2)
    return nn.Sequential(first, *(ResidualBlock(width, width, stride=1) for _ in range(1, blocks)))


def _shortcut(before: int, width: int, stride: int) -> nn.Sequential:
    """Bring a block's input to the shape of its output."""
    layers: list[nn.Module] = [
        nn.Conv2d(before, width, 1, bias=False),
        nn.BatchNorm2d(width),
    ]
    if stride == 2:
        # Padding 1 rounds odd sides up as the branch does, without ceil_mode, on which exporters
        # disagree.
        layers.insert(0, nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False))
    return nn.Sequential(*layers)


def _check_shape(stem_width: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
    """Refuse widths and block counts that make no network."""
    if len(widths) != len(blocks) or not widths:
        raise UserError(
            f"widths names {len(widths)} stages ({list(widths)}) and blocks {len(blocks)} "
            f"({list(blocks)}); give both the same number of entries, at least one."
        )
    if min(stem_width, *widths, *blocks) < 1:
        raise UserError(
            f"stem_width is {stem_width}, widths {list(widths)}, blocks {list(blocks)}; "
            "each number must be 1 or more. Set them in the net's init_args."
        )
