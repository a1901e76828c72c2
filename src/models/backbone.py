"""What networks share that start from weights of others: features, a new head, freezing."""

# B batch, H height, W width of a picture in pixels, F features, K classes

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.checks import check_num_classes, check_share


class Backbone(nn.Module):
    """A body that turns a picture into features, then dropout and one linear layer, the head.

    The body's weights come from elsewhere: from a checkpoint, or else from `load_pretrained`, which
    whoever starts a new training calls. Until then they are random and `weights_due` is true, so a
    network that is built to be scored or to go on with needs nothing but its checkpoint.

    A subclass builds its body between this constructor and `add_head`; `features`, `layers` and
    `fetch_weights` are its own.

    Args:
        num_classes: K, 2 to 1000.
        pretrained: whether a new training starts from weights of elsewhere.
        frozen: whether the head alone is trained; the body then stays in evaluation mode, so that
            a picture always has the same features.
        dropout: share of the features set to zero while training, 0 up to but not 1.
        frozen_layers: how many of the lowest `layers` stay as they came, in evaluation mode; they
            cost no backward pass.

    Attributes:
        weights_due: whether a new training has still to call `load_pretrained`.

    Raises:
        UserError: an argument lies outside its range.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int | None = None

    def __init__(
        self,
        num_classes: int,
        pretrained: bool,
        frozen: bool,
        dropout: float,
        frozen_layers: int = 0,
    ) -> None:
        super().__init__()
        check_num_classes(num_classes)
        check_share("dropout", dropout)
        self.num_classes, self.frozen, self.weights_due = num_classes, frozen, pretrained
        self.frozen_layers = frozen_layers
        self.dropout = nn.Dropout(dropout)
        self.register_load_state_dict_post_hook(_no_longer_due)  # type: ignore[no-untyped-call]

    def add_head(self, num_features: int) -> None:
        """Put the head on the body, and freeze of the body what is to stay.

        Raises:
            UserError: fewer layers stand below the head than are to be frozen.
        """
        self.requires_grad_(not self.frozen)
        self.head = nn.Linear(num_features, self.num_classes)
        nn.init.normal_(self.head.weight, std=0.01)  # all classes alike, whatever the features
        nn.init.zeros_(self.head.bias)
        below = len(self.layers()) - 1
        if not 0 <= self.frozen_layers <= below:
            raise UserError(
                f"frozen_layers is {self.frozen_layers}; allowed is 0 to {below}, the layers of "
                f"{type(self).__name__} below its head."
            )
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in stubs
        self.train()

    def features(self, pixels: Tensor) -> Tensor:
        """Return the features of pictures, float [B, F].

        Args:
            pixels: uint8 [B, H, W, 3], red first.
        """
        raise NotImplementedError

    def layers(self) -> list[Any]:
        """Return the parts that hold the weights, from the input to the head.

        An entry is a module, or a list of parameters and modules.
        """
        raise NotImplementedError

    def fetch_weights(self) -> None:
        """Load the weights of elsewhere into the body."""
        raise NotImplementedError

    def load_pretrained(self) -> None:
        """Start from the weights of elsewhere; the head stays as it is.

        Raises:
            UserError: they are not on this machine, or are not what they should be.
        """
        self.fetch_weights()
        self.weights_due = False

    def forward(self, pixels: Tensor) -> Tensor:
        """Score a batch of pictures.

        Args:
            pixels: uint8 [B, H, W, 3], red first; or their features, float [B, F].

        Returns:
            Logits, float [B, K].

        Raises:
            ValueError: the batch has another dtype or shape.
        """
        x = pixels if pixels.ndim == 2 else self.features(pixels)  # [B, F]
        logits: Tensor = self.head(self.dropout(x))  # [B, K]
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; what is frozen stays in the latter."""
        super().train(mode)
        if self.frozen:
            for name, part in self.named_children():
                part.train(mode and name in ("dropout", "head"))
        for still in self._frozen_parts():
            if isinstance(still, nn.Module):
                still.eval()
        return self

    def _frozen_parts(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield what the frozen layers are made of."""
        for layer in self.layers()[: self.frozen_layers]:
            yield from layer if isinstance(layer, list) else [layer]


def _no_longer_due(module: nn.Module, _: object) -> None:
    """Note that the weights have come from a checkpoint."""
    assert isinstance(module, Backbone)
    module.weights_due = False
