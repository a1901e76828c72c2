"""Reading a checkpoint file: whole, plain, and of this network, or one clear error."""

import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

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
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(path, option, f"it is not a whole zip archive ({error})") from error
    if damaged:
        raise _damaged(path, option, f"the checksum of {damaged} does not match")
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
