"""Reading a checkpoint file: whole, plain, and of this network, or one clear error."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.errors import UserError

_SHOWN = 6
State = dict[str, torch.Tensor]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint, tensors on the CPU, plain types alone.

    Raises:
        UserError: if there is no such file, or it is damaged, or holds anything but plain data.
    """
    if not path.is_file():
        raise UserError(
            f"there is no checkpoint {path}. Give --ckpt_path a .ckpt file, last or best."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(path, f"it is not a whole zip archive ({error})") from error
    if damaged:
        raise _damaged(path, f"the checksum of {damaged} does not match")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; all mean: can't be used
        raise _damaged(path, f"it holds more than plain tensors and numbers ({error})") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise _damaged(path, "it has no state_dict")
    return content


def _damaged(path: Path, reason: str) -> UserError:
    size = path.stat().st_size
    return UserError(
        f"{path} ({size:,} bytes) can't be used: {reason}. "
        "Take another checkpoint (last, best, or a .ckpt file) with --ckpt_path."
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
