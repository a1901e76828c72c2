"""Reading a checkpoint file: whole, plain, and of this network, or one clear error."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src import seal
from src.errors import UserError

_SHOWN = 6
State = dict[str, torch.Tensor]


def read_checkpoint(path: Path, option: str = "--ckpt_path") -> dict[str, Any]:
    """Return the contents of a checkpoint, tensors on the CPU, plain types alone.

    Args:
        path: The file.
        option: The option that named it, for messages.

    Raises:
        UserError: if there is no such file, or it is damaged, or holds anything but plain data.
    """
    if not path.is_file():
        raise UserError(f"{option} {path}: there is no such checkpoint. Give a .ckpt file.")
    try:
        wrong = seal.fault(path)
    except OSError as error:
        raise _damaged(path, option, f"it can't be read ({error.strerror})") from error
    if wrong:
        raise _damaged(path, option, wrong)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; all mean: can't be used
        raise _damaged(
            path, option, f"it holds more than plain tensors and numbers ({error})"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise _damaged(path, option, "it has no state_dict")
    return content


def _damaged(path: Path, option: str, reason: str) -> UserError:
    size = path.stat().st_size
    return UserError(
        f"{path} ({size:,} bytes) can't be used: {reason}. Take another checkpoint with {option}."
    )


def check_belongs(path: Path, checkpoint: dict[str, Any], run_id: str | None) -> None:
    """Raise UserError if a file in a run folder was written by another run or under another name.

    Args:
        path: The file.
        checkpoint: Its contents.
        run_id: Of the run folder; None if it knows none.
    """
    if run_id and checkpoint.get("run_id", run_id) != run_id:
        raise _damaged(path, "--ckpt_path", "another run wrote it")
    name = "last" if path.stem == "previous" else path.stem
    written_as = checkpoint.get("written_as", name)
    if name in ("last", "best") and written_as != name:
        raise _damaged(path, "--ckpt_path", f"it was written as {written_as}.ckpt")


def check_goes_on(path: Path, checkpoint: dict[str, Any]) -> None:
    """Raise UserError for a checkpoint that holds weights alone, or was written at an error."""
    if checkpoint.get("written_as") == "crash" or "loops" not in checkpoint:
        raise UserError(
            f"{path} holds no state that a run could go on from. Start a new run from its weights: "
            f"--init_from {path}."
        )


def check_groups(path: Path, checkpoint: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raise UserError if the optimizer state is of other parameter groups than the optimizer's."""
    saved = checkpoint.get("optimizer_states", [{}])[0].get("param_groups", [])
    theirs = [len(group["params"]) for group in saved]
    ours = [len(group["params"]) for group in optimizer.param_groups]
    if theirs != ours:
        raise UserError(
            f"{path} holds the state of an optimizer on groups of {theirs} parameters, and here "
            f"they are of {ours}: another version of the program wrote it. Start a new run from "
            f"its weights: --init_from {path}."
        )


def inside_epoch(checkpoint: dict[str, Any]) -> bool:
    """Return whether a checkpoint was written before the end of its epoch."""
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return bool(epochs["ready"] > epochs["processed"])


def check_fits(path: Path, checkpoint: dict[str, Any], module: nn.Module) -> None:
    """Raise UserError that lists the tensors in which a checkpoint differs from the module."""
    found: State = checkpoint["state_dict"]
    wrong = differences(found, dict(module.state_dict()))
    if wrong:
        raise UserError(
            f"{path} is of another network: {_listed(wrong)}. "
            "Use the config of the run that made it, or start a new run from it with --init_from."
        )


def check_preprocessing(path: Path, checkpoint: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raise UserError if the classes are not those of the checkpoint; tell other differences.

    Args:
        path: Where the checkpoint comes from, for the message.
        checkpoint: Its contents.
        ours: The preprocessing record of the data, as plain data.
    """
    theirs = checkpoint.get("preprocessing") or {}
    if theirs.get("classes", ours["classes"]) != ours["classes"]:
        raise UserError(
            f"--data.classes is {ours['classes']}, and {path} was trained on {theirs['classes']}. "
            "Leave it out: the run folder knows its classes."
        )
    for name in ("image_size", "resize", "interpolation"):
        if theirs.get(name, ours[name]) != ours[name]:
            print(
                f"WARNING: data.{name} is {ours[name]}, and the run was trained with "
                f"{theirs[name]}: these are other pictures than the network was made for.",
                file=sys.stderr,
            )


def differences(found: State, wanted: State) -> list[str]:
    """Return a line for every tensor that is missing, surplus or of another shape."""
    lines = [f"{name} is missing" for name in wanted if name not in found]
    lines += [f"{name} is not in the network" for name in found if name not in wanted]
    lines += [
        f"{name} is {list(found[name].shape)}, expected {list(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    return lines


def _listed(lines: list[str]) -> str:
    more = f"; and {len(lines) - _SHOWN} more tensors" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def transplant(
    path: Path, checkpoint: dict[str, Any], net: nn.Module, keep_head: bool
) -> list[str]:
    """Load another run's weights into `net`; return the names of the tensors left as they were.

    Args:
        path: Where the checkpoint comes from, for messages.
        checkpoint: Its contents.
        net: The network; its last linear layer is `net.head`.
        keep_head: Whether the classes are the same, so that the head may be taken too.

    Raises:
        UserError: if anything but the head differs.
    """
    prefix = "net."
    saved: State = {
        name[len(prefix) :]: tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    head = {name for name in net.state_dict() if name.startswith("head.")}
    own = dict(net.state_dict())
    new = set() if keep_head else head
    if not keep_head and not head:
        raise UserError(
            f"--init_from {path} was trained on other classes, and {type(net).__name__} has no "
            "last layer by the name `head` that could be made anew. Call it `head`."
        )
    wrong = differences(
        {k: v for k, v in saved.items() if k not in new},
        {k: v for k, v in own.items() if k not in new},
    )
    if wrong:
        raise UserError(
            f"--init_from {path} is of another network: {_listed(wrong)}. "
            "Set model.net as in the run that made it."
        )
    net.load_state_dict(own | {k: v for k, v in saved.items() if k not in new})
    return sorted(new)
