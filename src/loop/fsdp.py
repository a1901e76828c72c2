"""Weights, gradients and optimizer state in shares: each process keeps one, for large networks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

from src.errors import UserError


class FSDP(ModelParallelStrategy):
    """Shares out weights, gradients and optimizer state (PyTorch's FSDP2), on GPUs or the CPU.

    A layer's whole weights exist only while it works. Checkpoints are whole all the same: one
    plain file, which one process can score. The buffers (BatchNorm's running statistics) are those
    of the first process everywhere, as under ddp.

    Args:
        min_parameters: Weights that are gathered at a time, from 1: the smallest part of the
            network with so many is a unit of its own. Fewer means less memory and more waiting; a
            number above all of them makes one unit, for a network that calls a part of itself by
            anything but `forward`.

    Raises:
        UserError: for a value out of range.
    """

    def __init__(self, min_parameters: int = 1_000_000) -> None:
        if min_parameters < 1:
            raise UserError(
                f"trainer.strategy.min_parameters is {min_parameters}; allowed is 1 or more."
            )
        super().__init__(save_distributed_checkpoint=False)
        self.min_parameters = min_parameters

    def setup_environment(self) -> None:
        """Connect the processes; all of them share one copy of the network."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Share out the network, then build the optimizers on the shares.

        Lightning's own way asks for `configure_model`, where a LightningModule shares itself out;
        here no module needs to know.
        """
        assert self.accelerator is not None and self.model is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for child in self.model.children():  # the network, and a loss that has weights
            if any(True for _ in child.parameters()):
                _share_out(child, mesh, self.min_parameters)
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a whole checkpoint, of this strategy or another; each process keeps its shares.

        Lightning's own way sends the tensors round as they lie in memory, which mixes up the
        weights of a channels_last network.
        """
        assert self.lightning_module is not None
        module, path = self.lightning_module, checkpoint_path
        content: dict[str, Any] = self.checkpoint_io.load_checkpoint(
            path, weights_only=weights_only
        )
        options = StateDictOptions(full_state_dict=True, strict=module.strict_loading)
        set_model_state_dict(module, content.pop("state_dict"), options=options)
        for optimizer, state in zip(
            self.optimizers, content.get("optimizer_states", ()), strict=False
        ):
            names = {id(weight): name for name, weight in module.named_parameters()}
            named = _renamed(state, [names[id(weight)] for weight in _members(optimizer)])
            set_optimizer_state_dict(module, optimizer, named, options=options)
        return content

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state on the first process, numbered by group as without shares.

        Lightning's own way numbers the parameters in the order of the module, which is another one
        where there are groups.
        """
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state: dict[str, Any] = get_optimizer_state_dict(self.model, optimizer, options=options)
        first = self.global_rank == 0
        return _renamed(state, range(len(_members(optimizer)))) if first else state

    def post_backward(self, closure_loss: Tensor) -> None:
        """Take over the running statistics of the first process; backward still needed the old."""
        assert self.model is not None
        _same_everywhere([b for b in self.model.buffers() if b.is_floating_point()])


def _members(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters of an optimizer, group after group."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _renamed(state: dict[str, Any], names: Iterable[int | str]) -> dict[str, Any]:
    """Return an optimizer state in which the parameters, in the order of the groups, have names."""
    groups = state["param_groups"]
    new = dict(zip((old for group in groups for old in group["params"]), names, strict=True))
    return {
        "state": {new[old]: values for old, values in state["state"].items()},
        "param_groups": [g | {"params": [new[old] for old in g["params"]]} for g in groups],
    }


def _share_out(root: nn.Module, mesh: DeviceMesh, least: int) -> None:
    """Make units of the parts that hold `least` weights, and one of what is left."""
    for weight in root.parameters():
        weight.data = weight.data.contiguous()  # shares can't be cut from channels_last memory
    for part in root.children():
        _share_out_part(part, mesh, least)
    fully_shard(root, mesh=mesh)


def _share_out_part(part: nn.Module, mesh: DeviceMesh, least: int) -> int:
    """Do so inside one part; return how many of its weights are left for the units around it."""
    left = sum(weight.numel() for weight in part.parameters(recurse=False))
    left += sum(_share_out_part(child, mesh, least) for child in part.children())
    if left < least or isinstance(part, (nn.ModuleList, nn.ModuleDict)):  # these are never called
        return left
    fully_shard(part, mesh=mesh)
    return 0


def _same_everywhere(tensors: list[Tensor]) -> None:
    """Overwrite the tensors with those of the first process, in one message."""
    if not tensors:
        return
    with torch.no_grad():
        joined = torch.cat([tensor.flatten().double() for tensor in tensors])
        torch.distributed.broadcast(joined, 0)
        parts = torch.split(joined, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
