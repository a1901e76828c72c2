"""The best network that needs nothing but what is installed here."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from src.models.efficientnet_lite import EfficientNetLite0
from src.models.small_resnet import SmallResNet
from src.models.weights import LITE0_EXTRA, has_lite0


class BestOffline(nn.Module):
    """EfficientNetLite0 where its ImageNet weights are installed, else SmallResNet from scratch.

    A name in a recipe, not a network: fit settles it before anything is built, with Muon for what
    learns from scratch, and config.yaml says what it was. From Python the one chosen is made.

    Args:
        num_classes: number of classes to tell apart, 2 to 1000; default 2.
    """

    def __new__(cls, num_classes: int = 2) -> Any:
        """Return the network that was chosen."""
        choice = choose()
        return choice.net(num_classes, **choice.init_args)


@dataclass(frozen=True)
class Choice:
    """A network and how it is trained.

    Attributes:
        net: Its class.
        init_args: Its arguments.
        optimizer: Class path and arguments, where the recipe's optimizer would not do.
        better: What would bring a better one, for the user; None if there is none.
    """

    net: Any
    init_args: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    better: str | None = None


def choose() -> Choice:
    """Return the best network that is installed."""
    if has_lite0():
        return Choice(EfficientNetLite0, {"dropout": 0.2, "drop_path": 0.1, "frozen_layers": 4})
    missing = (
        "the ImageNet weights of EfficientNetLite0 are not installed, so SmallResNet is trained "
        "from scratch, by Muon at a rate of 0.008 for all layers and not by model.optimizer and "
        "model.layer_decay; it needs more epochs "
        "(--trainer.max_epochs 40, or --minutes), and with the extra scores are higher: "
        f"{LITE0_EXTRA}"
    )
    muon = {"lr": 0.008, "momentum": 0.9, "weight_decay": 0.5}
    optimizer = {"class_path": "src.muon.Muon", "init_args": muon}
    return Choice(SmallResNet, {"pooling": "mean_max"}, optimizer, missing)
