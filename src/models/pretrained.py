"""Any network of timm by its name; timm is imported when one is built, and not before."""

# B batch, H height, W width of a picture in pixels, F features

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from src.errors import UserError, nearest
from src.models.backbone import Backbone
from src.models.checks import check_share
from src.models.normalize import Normalize
from src.models.weights import PRETRAINED_EXTRA, load_body, read_weights


class PretrainedNet(Backbone):
    """A network of the timm collection, without its last layer and with a head of ours.

    Needs the extra `pretrained`. Pixels are normalised as timm says for these weights.

    Args:
        num_classes: number of classes to tell apart, 2 to 1000; default 2.
        name: of the network in timm, such as resnet18 or mobilenetv3_small_100; a tag behind a
            dot, as in resnet18.a1_in1k, chooses among several weights.
        pretrained: whether a new training starts from timm's weights, all but the head. They are
            downloaded once, unless `weights` names a file; default true.
        weights: file with the weights of this network: .safetensors, or a state dict of
            torch.save. Only a new training reads it. None means timm's own.
        frozen: whether the head alone is trained; default false.
        dropout: share of the features set to zero while training, 0 up to but not 1; default 0.
        drop_path: stochastic depth as timm does it, 0 up to but not 1; default 0.
        image_size: side of the pictures in pixels, for networks that are made for one size, such as
            ViT and Swin; None means the size of timm's weights. Others take any size.
        frozen_layers: how many of the lowest layers are not trained, 0 up to all below the head;
            default 0.

    Raises:
        UserError: timm is not installed or knows no such network, or an argument lies outside its
            range or is one that this network does not take.
    """

    def __init__(
        self,
        num_classes: int = 2,
        name: str = "resnet18",
        pretrained: bool = True,
        weights: str | None = None,
        frozen: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        image_size: int | None = None,
        frozen_layers: int = 0,
    ) -> None:
        due = pretrained or weights is not None
        super().__init__(num_classes, due, frozen, dropout, frozen_layers)
        check_share("drop_path", drop_path)
        self.name, self.weights = name, weights
        options = {"drop_path_rate": drop_path or None, "img_size": image_size}
        self.options = {key: value for key, value in options.items() if value is not None}
        self.body = _make(name, self.options)
        about = self.body.pretrained_cfg
        self.mean, self.std = about["mean"], about["std"]
        if image_size or about.get("fixed_input_size"):
            self.image_size = image_size or about["input_size"][1]
        self.own_head = _names(about.get("classifier"))
        self.normalize = Normalize(self.mean, self.std)
        # Some bodies end in a wider layer than their last map.
        self.add_head(getattr(self.body, "head_hidden_size", None) or self.body.num_features)

    def features(self, pixels: Tensor) -> Tensor:
        """Return the features of pictures, float [B, F].

        Args:
            pixels: uint8 [B, H, W, 3], red first.

        Raises:
            ValueError: the batch has another dtype or shape.
        """
        x: Tensor = self.body(self.normalize(pixels))  # [B, F]
        return x

    def layers(self) -> list[Any]:
        """Return what holds weights, in timm's order, then the head.

        Stages and blocks stand for themselves. Tensors that lie in the body itself, such as ViT's
        position embedding, are the first layer.
        """
        parts: list[Any] = []
        for child in self.body.children():
            parts += child if isinstance(child, (nn.Sequential, nn.ModuleList)) else [child]
        own = list(self.body.parameters(recurse=False))
        parts = [part for part in parts if any(True for _ in part.parameters())]
        return [*([own] if own else []), *parts, self.head]

    def fetch_weights(self) -> None:
        """Load the file or timm's weights into the body.

        Raises:
            UserError: the file is missing or of another network, or timm's can't be had.
        """
        if self.weights is not None:
            path = Path(self.weights).expanduser()
            load_body(self.body, read_weights(path), self.own_head, f"weights {path}")
            return
        try:
            made = _timm().create_model(self.name, pretrained=True, num_classes=0, **self.options)
        except Exception as error:  # whatever the hub's client and the reader raise
            raise UserError(
                f"the weights of {self.name} can't be had from the network: "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}. "
                "Download model.safetensors of that name from timm's page on another machine and "
                "set weights: FILE in the net's init_args; or take src.models.EfficientNetLite0, "
                "whose weights come with the extra; or set pretrained: false for random weights."
            ) from error
        self.body.load_state_dict(made.state_dict())


def _make(name: str, options: dict[str, Any]) -> Any:
    """Build a body with random weights, without its last layer."""
    timm = _timm()
    if not timm.is_model(name.partition(".")[0]):
        hint = nearest(name, timm.list_models()) or "timm.list_models() has the list"
        raise UserError(f"timm knows no network by the name {name!r}; {hint}")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise UserError(
            f"timm's {name} can't be built with {given or 'its defaults'}: {error}. Change name, "
            "drop_path (drop_path_rate) or image_size (img_size) in the net's init_args."
        ) from error


def _names(classifier: str | tuple[str, ...] | None) -> set[str]:
    """Return the tensors of timm's own last layer or layers."""
    layers = (classifier,) if isinstance(classifier, str) else classifier or ()
    return {f"{layer}.{tensor}" for layer in layers for tensor in ("weight", "bias")}


def _timm() -> ModuleType:
    """Import timm.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise UserError(
            f"PretrainedNet needs the package '{error.name}', which is not installed. "
            f"Install the extra waggle[pretrained]: {PRETRAINED_EXTRA}."
        ) from error
