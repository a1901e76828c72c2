"""How much each class counts in the loss of the training."""

import math
from collections.abc import Mapping
from typing import Literal

from src.errors import UserError

ClassWeights = Literal["balanced"] | list[float] | None


def check_class_weights(weights: ClassWeights, num_classes: int, own_loss: bool) -> None:
    """Refuse weights that are none.

    Args:
        weights: `model.class_weights`.
        num_classes: Number of classes.
        own_loss: Whether the config names a loss.

    Raises:
        UserError: for weights beside a loss of one's own, for another number of them than there are
            classes, or for one that is not above 0 and finite.
    """
    if weights is None:
        return
    if own_loss:
        raise UserError(
            f"model.class_weights is {weights!r} beside a model.loss of your own, which knows "
            "nothing of it. Give the weights to that loss, or leave one of them out."
        )
    if isinstance(weights, str):
        if weights != "balanced":
            raise UserError(
                f"model.class_weights is {weights!r}; allowed are balanced, a list of numbers, or "
                "null."
            )
    elif len(weights) != num_classes:
        raise UserError(
            f"model.class_weights has {len(weights)} numbers and there are {num_classes} classes; "
            "give one for each, in the order of data.classes."
        )
    elif not all(0 < weight < math.inf for weight in weights):
        raise UserError(
            f"model.class_weights is {list(weights)}; each number must be above 0 and finite."
        )


def balanced_weights(counts: Mapping[str, int]) -> list[float]:
    """Return N / (C * n) for each class: all classes then count alike, and 1 is the mean picture's.

    King and Zeng 2001 (Logistic regression in rare events data), as most libraries write it.

    Args:
        counts: Class to its number n of pictures; C classes, N pictures in all.

    Raises:
        UserError: if a class has no picture.
    """
    if empty := [name for name, count in counts.items() if not count]:
        raise UserError(
            f"model.class_weights is balanced and the training has no picture of "
            f"{', '.join(empty)}. Add some, or take the class out of data.classes."
        )
    total = sum(counts.values())
    return [total / (len(counts) * count) for count in counts.values()]


def check_once(weights: ClassWeights, sampling: str) -> None:
    """Raise UserError if weights and sampling would both make up for the same imbalance."""
    if weights == "balanced" and sampling == "balanced":
        raise UserError(
            "model.class_weights and data.sampling are both balanced: small classes would count "
            "twice over. Set one of them to its default, null or uniform."
        )
