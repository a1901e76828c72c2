"""Which parameters an optimizer treats alike: with weight decay or without, at which rate."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from src.errors import UserError

Group = dict[str, Any]
_SHOWN = 4


def param_groups(
    module: nn.Module, layers: Sequence[Sequence[nn.Parameter]] = (), layer_decay: float = 1.0
) -> list[Group]:
    """Return groups for an optimizer; every parameter, frozen ones too, is in exactly one.

    Norms, biases and all else of fewer than two dimensions get no weight decay, since it keeps no
    scale in check there (Goyal et al. 2017, arXiv 1706.02677, 5.3; He et al. 2019, arXiv
    1812.01187, 3.1). The rate falls from the head to the input by `layer_decay` a layer
    (discriminative fine-tuning: Howard and Ruder 2018, arXiv 1801.06146; as a power of the depth:
    Bao et al. 2021, BEiT, arXiv 2106.08254).

    Args:
        module: What is trained.
        layers: Its layers from the input to the head, see `layers_of`; what is in none of them
            learns as fast as the head, and what is in several as in the first.
        layer_decay: Rate of a layer as a share of the one above it, above 0, at most 1.

    Returns:
        In the order of the layers: `params`; `weight_decay` 0 for a group without; and where there
        are layers `lr_share`, by which the rate is to be multiplied.
    """
    undecayed, shares = _undecayed(module), _shares(layers, layer_decay)
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for share in sorted({*shares.values(), 1.0}):
        found |= {(share, True): [], (share, False): []}
    for parameter in module.parameters():  # a tied one comes once
        key = (shares.get(id(parameter), 1.0), id(parameter) not in undecayed)
        found[key].append(parameter)
    return [
        {"params": members}
        | ({} if decays else {"weight_decay": 0.0})
        | ({"lr_share": share} if layers else {})
        for (share, decays), members in found.items()
        if members
    ]


def _undecayed(module: nn.Module) -> set[int]:
    """Return the ids of the parameters without weight decay; under one of its names is enough."""
    return {
        id(parameter)
        for part in module.modules()
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.ndim < 2 or name == "bias" or isinstance(part, (nn.LayerNorm, nn.RMSNorm))
    }


def _shares(layers: Sequence[Sequence[nn.Parameter]], layer_decay: float) -> dict[int, float]:
    """Return the share of the rate of each parameter in a layer, by its id; 1 for the head's."""
    shares: dict[int, float] = {}
    for above, layer in enumerate(reversed(layers)):
        shares |= {id(parameter): layer_decay**above for parameter in layer}
    return shares


def has_layers(net: nn.Module) -> bool:
    """Return whether a network has a method `layers`; a part by that name is none."""
    return inspect.ismethod(getattr(net, "layers", None))


def layers_of(net: nn.Module, wanted_by: str) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer of a network that has a method `layers`.

    Args:
        net: Its method `layers` returns a list from the input to the head; each entry is a module,
            or a list of parameters and modules.
        wanted_by: The option that needs it, for the message.

    Raises:
        UserError: if it has no such method, or the layers leave a parameter out.
    """
    if not has_layers(net):
        raise UserError(
            f"{wanted_by} needs to know the layers of the network, and {type(net).__name__} has no "
            "method `layers` that lists them from the input to the head. Leave it out, or write "
            "that method: docs/extend.md."
        )
    layers = [list(_members(entry)) for entry in net.layers()]  # type: ignore[operator]
    listed = {id(parameter) for layer in layers for parameter in layer}
    missing = [name for name, parameter in net.named_parameters() if id(parameter) not in listed]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UserError(
            f"{type(net).__name__}.layers() leaves out {', '.join(missing[:_SHOWN])}{more}; every "
            f"parameter must be in a layer for {wanted_by}. Add them there."
        )
    return layers


def _members(entry: nn.Module | Iterable[Any]) -> Iterator[nn.Parameter]:
    for part in [entry] if isinstance(entry, nn.Module) else entry:
        yield from part.parameters() if isinstance(part, nn.Module) else [part]


def build_optimizer(
    make: Callable[[Any], Optimizer], module: nn.Module, net: nn.Module, layer_decay: float
) -> Optimizer:
    """Build an optimizer on the groups of a module.

    Args:
        make: Called with the groups, or with the bare parameters where it takes no groups (LBFGS).
        module: What is trained.
        net: The part of it that has layers; asked for them unless layer_decay is 1.
        layer_decay: As for `param_groups`.

    Raises:
        UserError: if there are no layers, or the optimizer takes no rate for each.
    """
    layers = layers_of(net, f"model.layer_decay {layer_decay}") if layer_decay != 1 else ()
    try:
        optimizer = make(param_groups(module, layers, layer_decay))
    except ValueError as error:  # as torch.optim.LBFGS says it
        if "parameter groups" not in str(error):
            raise
        if layers:
            raise UserError(
                f"model.layer_decay is {layer_decay} and the optimizer takes one rate for all "
                f"({error}). Set it to 1, or take another model.optimizer."
            ) from error
        return make(list(module.parameters()))
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * group.get("lr_share", 1.0)
    return optimizer


def check_rates(optimizer: Optimizer, rates: Sequence[float], schedule: str) -> None:
    """Raise UserError if a schedule has set the rates of the layers anew, to the same for all.

    Args:
        optimizer: With the schedule on it.
        rates: Of its groups before there was one.
        schedule: Its name.
    """
    if "lr_share" not in optimizer.param_groups[0] or not all(rates):
        return
    starts = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    factors = torch.tensor(starts, dtype=torch.float64) / torch.tensor(rates, dtype=torch.float64)
    if not torch.allclose(factors, factors[0]):
        raise UserError(
            f"model.layer_decay gives each layer a rate of its own, and {schedule} overwrites "
            "them. Take a schedule that multiplies rates, such as src.schedules.OneCycle."
        )
