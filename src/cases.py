"""Which networks the benchmark measures, at which size: two built-in ones, or that of a config."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.config_check import check_classes, read_config, resolve
from src.data.datamodule import DataModule
from src.errors import UserError
from src.models import SeedCNN, SmallResNet

_SIZES = ("image_size", "resize", "cache_size", "augment", "batch_size")
AUGMENT: list[dict[str, Any]] = [  # the seed's
    {
        "class_path": "albumentations.Affine",
        "init_args": {
            "rotate": [-50, 50],
            "translate_percent": {"x": [-0.1, 0.1], "y": [-0.1, 0.1]},
            "scale": {"x": [0.9, 1.1], "y": [0.9, 1.1]},
            "border_mode": 1,
            "p": 1.0,
        },
    },
    {"class_path": "albumentations.HorizontalFlip"},
]


@dataclass(frozen=True)
class Case:
    """One network at one size.

    Attributes:
        name: Of the network.
        image_size: Side of a picture, in pixels.
        batch_size: Pictures of a step.
        net: Called with the number of classes.
    """

    name: str
    image_size: int
    batch_size: int
    net: Callable[[int], nn.Module]

    def make_net(self, num_classes: int) -> nn.Module:
        """Return the network, with the same weights each time."""
        torch.manual_seed(0)
        return self.net(num_classes)


CASES = (Case("SeedCNN", 150, 20, SeedCNN), Case("SmallResNet", 128, 64, SmallResNet))


def case_of(config: Path) -> Case:
    """Return the network of a config, at the size and the batch that it trains with.

    Raises:
        UserError: if the file or what it names is wrong, or does not fit together.
    """
    content = read_config(config)
    check_classes(content, str(config))
    given = content.get("data", {})
    try:
        data = DataModule(**{k: given[k] for k in _SIZES if k in given})
        height, width, _ = data.training_shape
        case = _case(content.get("model", {}).get("net"), width, data.batch_size, str(config))
        with torch.no_grad():
            case.make_net(2).eval()(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{config}: its data or its network can't be built: {error}.") from error
    if height != width:
        raise UserError(
            f"{config} trains on {width} x {height} pixels; what is measured here is a square."
        )
    return case


def _case(net: Any, side: int, batch_size: int, origin: str) -> Case:
    """Return the case of what a config says under `model.net`: a class path, options, nothing."""
    if not isinstance(net, str | Mapping | None):
        raise UserError(f"{origin}: model.net is {net!r}; give a class path, or class_path: ...")
    spec: Mapping[str, Any] = {"class_path": net} if isinstance(net, str) else net or {}
    class_path = spec.get("class_path", f"src.models.{SeedCNN.__name__}")
    found = resolve(str(class_path), f"{origin}: model.net")
    if found is None:
        raise UserError(f"{origin}: model.net.class_path is {class_path!r}; write it whole.")
    arguments = spec.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"{origin}: model.net.init_args is {arguments!r}; give name: value lines.")
    made = partial(found, **arguments)
    return Case(found.__name__, side, batch_size, made)
