"""Checks of the arguments that a recipe gives to a network, made before any weight is."""

from src.errors import UserError

MIN_CLASSES = 2
MAX_CLASSES = 1000


def check_num_classes(num_classes: int) -> None:
    """Refuse a number of classes that the networks are not made for.

    Args:
        num_classes: number of classes to tell apart, 2 to 1000.

    Raises:
        UserError: the number lies outside that range.
    """
    if not MIN_CLASSES <= num_classes <= MAX_CLASSES:
        raise UserError(
            f"num_classes is {num_classes}; the networks take {MIN_CLASSES} to {MAX_CLASSES}. "
            "It is the number of classes in the data: mend --data.root or --data.classes."
        )


def check_share(name: str, value: float) -> None:
    """Refuse a share outside 0 <= value < 1, NaN among them.

    Args:
        name: of the argument.
        value: what it was given.

    Raises:
        UserError: the value lies outside that range.
    """
    if not 0 <= value < 1:
        raise UserError(
            f"{name} is {value}; it is a share, from 0 (none) up to but not 1. "
            "Set it in the net's init_args."
        )
