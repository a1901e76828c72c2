"""The network that `BestOffline` stands for in a recipe, settled before anything is built."""

import sys
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from src.models import SmallResNet
from src.models.best_offline import BestOffline, choose

_HEAD_FIRST = ".FreezeSchedule"


def is_open(net: Any) -> bool:
    """Return whether the network of a config stands for another one."""
    name = str(getattr(net, "class_path", net))
    return name in ("src.models.BestOffline", f"{BestOffline.__module__}.BestOffline")


def settle_net(options: Any) -> None:
    """Put the network that was chosen into the options of fit.

    What learns from scratch gets an optimizer of its own, one rate for all layers and none of them
    frozen, with a warning.
    """
    if not is_open(options.model.net):
        return
    choice = choose()
    options.model.net = _spec(f"src.models.{choice.net.__name__}", choice.init_args)
    if choice.better:
        _train_all(options, choice.optimizer)
        print(f"WARNING: {choice.better}", file=sys.stderr)


def take_net(options: Any, settled: Mapping[str, Any]) -> str:
    """Put the network that a run has into the options of fit; return a line on it.

    Args:
        options: Their network is open.
        settled: `model` of the run's config.
    """
    net, optimizer = settled["net"], settled["optimizer"]
    options.model.net = _spec(net["class_path"], net.get("init_args") or {})
    if net["class_path"] != f"src.models.{SmallResNet.__name__}":
        return f"model.net: {net['class_path']}, as settled when the run began"
    _train_all(options, optimizer)
    by = optimizer["class_path"].rsplit(".", 1)[-1]
    return (
        f"model.net and model.optimizer: {net['class_path']} and {by} at one rate for all layers, "
        "as settled when the run began"
    )


def _train_all(options: Any, optimizer: Mapping[str, Any]) -> None:
    """Let a network from scratch train by this optimizer, and all of it from the start."""
    options.model.optimizer = _spec(optimizer["class_path"], optimizer.get("init_args") or {})
    options.model.layer_decay = 1.0
    callbacks = options.trainer.callbacks
    if isinstance(callbacks, list):
        options.trainer.callbacks = [
            spec for spec in callbacks if not str(spec.class_path).endswith(_HEAD_FIRST)
        ]


def _spec(class_path: str, init_args: Mapping[str, Any]) -> Any:
    make: Any = Namespace  # which has no types
    return make(class_path=class_path, init_args=make(dict(init_args)))
