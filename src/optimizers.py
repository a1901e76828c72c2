"""The fused form of an optimizer: one pass over the weights for all that a step does to them."""

import inspect

import torch
from torch.optim import Optimizer


def fused(optimizer: Optimizer, scales_gradients: bool = False) -> Optimizer:
    """Return the same optimizer in its fused form, where torch has one and nobody chose.

    Args:
        optimizer: New; with one group of weights, or it is returned as it is.
        scales_gradients: Whether the run scales its loss (float16), which a fused step and
            gradient clipping don't go together with.
    """
    chosen = optimizer.defaults
    if chosen.get("fused", False) is not None or chosen.get("foreach") or scales_gradients:
        return optimizer
    if len(optimizer.param_groups) != 1 or not _can_be_fused(optimizer):
        return optimizer
    taken = inspect.signature(type(optimizer)).parameters
    arguments = {name: value for name, value in chosen.items() if name in taken}
    return type(optimizer)(optimizer.param_groups[0]["params"], **{**arguments, "fused": True})


def _can_be_fused(optimizer: Optimizer) -> bool:
    """Return whether all weights are whole (no shares of FSDP) real numbers on a usual device."""
    weights = [weight.detach() for weight in optimizer.param_groups[0]["params"]]
    return all(
        type(weight) is torch.Tensor
        and weight.device.type in ("cpu", "cuda", "mps", "xpu")
        and weight.is_floating_point()
        for weight in weights
    )
