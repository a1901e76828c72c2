"""The best network that needs nothing but what is installed here."""

from typing import Any

from torch import nn

from src.models.efficientnet_lite import EfficientNetLite0
from src.models.small_resnet import SmallResNet
from src.models.weights import LITE0_EXTRA, has_lite0


class BestOffline(nn.Module):
    """EfficientNetLite0 where its ImageNet weights are installed, else SmallResNet from scratch.

    A name in a recipe, not a network: fit settles it before anything is built, and config.yaml says
    what it was. From Python the one chosen is made.

    Args:
        num_classes: number of classes to tell apart, 2 to 1000; default 2.
    """

    def __new__(cls, num_classes: int = 2) -> Any:
        """Return the network that was chosen."""
        net, init_args, _ = choose()
        return net(num_classes, **init_args)


def choose() -> tuple[type[nn.Module], dict[str, Any], str | None]:
    """Return the network's class, its arguments, and how to have a better one, if that is so."""
    if has_lite0():
        return EfficientNetLite0, {"dropout": 0.2, "drop_path": 0.1}, None
    missing = (
        "the ImageNet weights of EfficientNetLite0 are not installed, so SmallResNet is trained "
        f"from scratch; with the extra scores are higher: {LITE0_EXTRA}"
    )
    return SmallResNet, {}, missing
