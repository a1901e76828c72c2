"""EfficientNet-Lite0, small and quick on a processor, with weights from ImageNet."""

# B batch, H and W sides of the picture in pixels, C channels, F features

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.backbone import Backbone
from src.models.checks import check_share
from src.models.normalize import Normalize
from src.models.weights import lite0_weights

_STEM, _FEATURES = 32, 1280
# kernel, stride, expansion, channels, blocks: of each stage
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_BLOCKS = sum(stage[-1] for stage in _STAGES)


class EfficientNetLite0(Backbone):
    """EfficientNet-B0 (Tan and Le 2019) in its Lite variant: ReLU6, no squeeze-and-excitation.

    It has 3.4 million parameters beside the head, and takes pictures of any size, from 32 px a
    side; its weights were trained at 224. They come with the extra `lite0`, so no network is
    needed, and only a new training loads them.

    Args:
        num_classes: number of classes to tell apart, 2 to 1000; default 2.
        pretrained: whether a new training starts from weights learned on ImageNet, all but the
            head; default true.
        frozen: whether the head alone is trained; default false.
        dropout: share of the features set to zero while training, 0 up to but not 1; default 0.2.
        drop_path: share of the samples for which the last block is left out while training, 0 up
            to but not 1; of the blocks before it in a straight line down to 0 (stochastic depth,
            Huang et al. 2016); default 0.
        frozen_layers: how many of the lowest layers are not trained, of 0 to 9: the stem, seven
            stages, the last convolution. The lowest see the most pixels, so they cost the most, and
            see edges and colors, which are the same everywhere; default 0.

    Raises:
        UserError: an argument lies outside its range.
    """

    # Those of the training that the weights come from.
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __init__(
        self,
        num_classes: int = 2,
        pretrained: bool = True,
        frozen: bool = False,
        dropout: float = 0.2,
        drop_path: float = 0.0,
        frozen_layers: int = 0,
    ) -> None:
        super().__init__(num_classes, pretrained, frozen, dropout, frozen_layers)
        check_share("drop_path", drop_path)
        self.normalize = Normalize(self.mean, self.std)
        self.stem = _conv(3, _STEM, 3, stride=2)
        self.stages = _stages(drop_path)
        self.top = _conv(_STAGES[-1][3], _FEATURES, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _start_weights(module)
        self.add_head(_FEATURES)

    def features(self, pixels: Tensor) -> Tensor:
        """Return the features of pictures, float [B, F].

        Args:
            pixels: uint8 [B, H, W, 3], red first; H and W 32 or more.

        Raises:
            ValueError: the batch has another dtype or shape.
        """
        x = self.stem(self.normalize(pixels))  # [B, C, H / 2, W / 2]
        x = self.top(self.stages(x))  # [B, F, H / 32, W / 32]
        return F.adaptive_avg_pool2d(x, 1).flatten(1)  # [B, F]

    def layers(self) -> list[Any]:
        """Return stem, stages, last convolution and head."""
        return [self.stem, *self.stages, self.top, self.head]

    def fetch_weights(self) -> None:
        """Load the ImageNet weights into the body.

        Raises:
            UserError: the extra `lite0` is not installed, or the file is another one.
        """
        state = self.state_dict()
        body = [name for name in state if not name.startswith("head.")]
        # Both list their tensors from the input to the head; two more are the file's own head.
        for name, tensor in zip(body, lite0_weights()[:-2], strict=True):
            assert tensor.shape == state[name].shape, name
            state[name] = tensor
        self.load_state_dict(state)


class InvertedResidual(nn.Module):
    """A 1x1 convolution widens, a depthwise one looks around, a 1x1 one narrows.

    From MobileNetV2 (Sandler et al. 2018). Where input and output are alike, they are added.

    Args:
        before: channels that come in.
        width: channels that go out.
        kernel: side of the depthwise convolution.
        stride: 2 to halve the sides, 1 to keep them.
        expansion: how many times wider it is inside; 1 leaves the first convolution out.
        drop_path: share of the samples for which the block is left out while training.
    """

    def __init__(
        self, before: int, width: int, kernel: int, stride: int, expansion: int, drop_path: float
    ) -> None:
        super().__init__()
        wide = before * expansion
        self.widen = _conv(before, wide, 1) if expansion > 1 else nn.Identity()
        self.look = _conv(wide, wide, kernel, stride, groups=wide)
        self.narrow = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), _norm(width))
        self.adds = stride == 1 and before == width
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, width, H / stride, W / stride] for float [B, before, H, W]."""
        y: Tensor = self.narrow(self.look(self.widen(x)))
        if not self.adds:
            return y
        return x + (_drop_samples(y, self.drop_path) if self.training and self.drop_path else y)


class StridedConv2d(nn.Conv2d):
    """A convolution of stride 2 padded as TensorFlow does: where uneven, more below and right."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, C, ceil(H / 2), ceil(W / 2)] for float [B, C, H, W]."""
        height, width = x.shape[2:]
        kernel = self.kernel_size[0]
        return super().forward(F.pad(x, (*_padding(width, kernel), *_padding(height, kernel))))


def _padding(size: int, kernel: int) -> tuple[int, int]:
    """Return the padding before and behind that makes `ceil(size / 2)` outputs."""
    total = kernel - 2 + size % 2
    return total // 2, total - total // 2


def _conv(before: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Build a convolution, batch norm and ReLU6."""
    kind, padding = (nn.Conv2d, kernel // 2) if stride == 1 else (StridedConv2d, 0)
    conv = kind(before, width, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(conv, _norm(width), nn.ReLU6(inplace=True))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)  # as the weights were trained


def _stages(drop_path: float) -> nn.Sequential:
    """Build the stages; the first block of each sets its sides and channels."""
    stages: list[nn.Module] = []
    before, number = _STEM, 0
    for kernel, stride, expansion, width, blocks in _STAGES:
        stage: list[nn.Module] = []
        for block in range(blocks):
            share = drop_path * number / (_BLOCKS - 1)
            first = stride if block == 0 else 1
            stage.append(InvertedResidual(before, width, kernel, first, expansion, share))
            before, number = width, number + 1
        stages.append(nn.Sequential(*stage))
    return nn.Sequential(*stages)


def _drop_samples(x: Tensor, share: float) -> Tensor:
    """Set a share of the samples of float [B, C, H, W] to zero; the others make up for them."""
    keep = torch.empty((len(x), 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(1 - share)
    return x * keep.div_(1 - share)


def _start_weights(conv: nn.Conv2d) -> None:
    """Set random weights by the outputs that a weight has a part in (He et al. 2015)."""
    fan_out = conv.out_channels * conv.kernel_size[0] ** 2 // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
