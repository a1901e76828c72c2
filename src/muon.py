"""Muon: gradient steps whose matrices are made orthogonal first."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from src.errors import UserError

# The odd polynomial a x + b x^3 + c x^5, five times over, brings singular values of 0.002 to 1 to
# about 0.7 to 1.2 (Jordan et al. 2024). Near enough to 1, and no decomposition is needed.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_TIMES = 5
_RMS = 0.2  # root mean square of AdamW's usual steps


class Muon(Optimizer):
    """Muon for the kernels of convolutions, AdamW for all else.

    Muon is by Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. A kernel [out, in, h,
    w] is taken as a matrix [out, in * h * w]. Its gradients are averaged over time, looked ahead as
    Nesterov does, and replaced by about the nearest orthogonal matrix: all directions are learned
    at one pace, the rare ones too. The step is scaled to the size of an AdamW step (Liu et al.
    2025, arXiv 2502.16982), so that one rate serves both; torch.optim.Muon calls that
    `match_rms_adamw`, and takes matrices alone. Weight decay is decoupled from the gradient
    (Loshchilov and Hutter 2019, arXiv 1711.05101).

    A kernel has three dimensions or more, the first two above 1. What has one input channel a group
    (depthwise) or one row (a ViT's position embedding) has no directions to balance: AdamW has it,
    as it has norms, biases and linear layers. A kernel in groups is one matrix, whose groups are
    balanced together. FSDP's shares of a kernel are gathered in every step.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate, 0 or more.
        momentum: Share of the average that stays in each step, 0 up to but not 1; for kernels.
        weight_decay: Weights shrink by lr * weight_decay in each step; 0 or more.
        betas: The shares that stay of AdamW's two averages, each 0 up to but not 1.
        eps: Added to AdamW's divisor, above 0.

    Raises:
        UserError: a number lies outside its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        _check("momentum", momentum, 0 <= momentum < 1, "0 up to but not 1")
        _check("betas", betas, all(0 <= beta < 1 for beta in betas), "two of 0 up to but not 1")
        _check("lr", lr, lr >= 0, "0 or more")
        _check("weight_decay", weight_decay, weight_decay >= 0, "0 or more")
        _check("eps", eps, eps > 0, "above 0")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"betas": tuple(betas), "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step with the gradients; parameters without one stay.

        Args:
            closure: Computes the loss anew and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = _kernel_step if _is_kernel(parameter) else _adam_step
                    change = update(parameter.grad, self.state[parameter], group)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(change, alpha=-group["lr"])
        return loss


def _check(name: str, value: Any, fits: bool, allowed: str) -> None:
    if not fits:
        raise UserError(f"model.optimizer.init_args.{name} is {value}; allowed is {allowed}.")


def _is_kernel(parameter: Tensor) -> bool:
    """Return whether it is [out, in, ...] of a convolution that mixes channels."""
    return parameter.ndim > 2 and min(parameter.shape[:2]) > 1


def _kernel_step(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Return the change of a kernel at a rate of 1, and average the gradient into the state."""
    if not state:
        state["momentum_buffer"] = torch.zeros_like(gradient)
    average, momentum = state["momentum_buffer"], group["momentum"]
    average.lerp_(gradient, 1 - momentum)
    ahead: Any = gradient.lerp(average, momentum)
    if not hasattr(ahead, "full_tensor"):
        return _balanced(ahead)
    from torch.distributed.tensor import distribute_tensor  # FSDP's; not in every build of torch

    whole = _balanced(ahead.full_tensor())  # the same on every process: nothing has to be sent
    mesh, placements = ahead.device_mesh, ahead.placements
    share: Tensor = distribute_tensor(whole, mesh, placements, src_data_rank=None)
    return share


def _balanced(ahead: Tensor) -> Tensor:
    """Return the orthogonal step [out, in, ...], as large as one of AdamW."""
    matrix = ahead.flatten(1)  # [out, in * h * w]
    scale: float = _RMS * max(matrix.shape) ** 0.5
    return (orthogonalized(matrix) * scale).view_as(ahead)


def _adam_step(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Return AdamW's change at a rate of 1, and count the gradient into the state."""
    if not state:
        state["step"] = 0
        state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(gradient) for _ in range(2))
    state["step"] += 1
    beta1, beta2 = group["betas"]
    state["exp_avg"].lerp_(gradient, 1 - beta1)
    state["exp_avg_sq"].lerp_(gradient * gradient, 1 - beta2)
    fill1, fill2 = (1 - beta ** state["step"] for beta in (beta1, beta2))
    mean, square = _precise(state["exp_avg"]) / fill1, _precise(state["exp_avg_sq"]) / fill2
    change: Tensor = mean / (square.sqrt() + group["eps"])
    return change


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix [R, C] with orthogonal rows, or columns if R > C.

    Newton-Schulz iterations on the small square matrix of the rows' products: what they do to
    [R, C] is a polynomial in it times [R, C], so the large matrix is multiplied only twice.

    Args:
        matrix: float [R, C]; computed in float32 at least.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalized(matrix.T).T
    rows = _precise(matrix)
    rows = rows / (rows.norm() + 1e-7)
    gram = rows @ rows.T  # [R, R]
    one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    whole = one
    for _ in range(_TIMES):
        factor = _A * one + _B * gram + _C * (gram @ gram)
        whole = factor @ whole
        gram = factor @ gram @ factor
    found: Tensor = (whole @ rows).to(matrix.dtype)
    return found


def _precise(values: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32, all else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
