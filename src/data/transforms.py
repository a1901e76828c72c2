"""Augmentation: Albumentations behind one small class, keyed per sample.

The only file that knows Albumentations. A recipe names the transforms as plain data,
`{class_path: albumentations.NAME, init_args: {...}}`, which is checked here, pickles to any worker
and is stored as it is in the run folder.
"""

import importlib
import inspect
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from src.errors import UserError, nearest

Spec = Mapping[str, Any]  # {"class_path": ..., "init_args": {...}}
Pixels = npt.NDArray[np.uint8]
_WHERE = "data.augment"
_AUGMENT_STREAM = 1  # keeps these draws apart from every other use of the run's seed


class Augmentation:
    """A pipeline whose draws are a pure function of (seed, epoch, index, showing).

    Args:
        specs: The transforms in order, as plain data; groups (OneOf, SomeOf, Sequential) hold
            theirs in `init_args.transforms`.
        seed: Of the run.

    Raises:
        UserError: for an unknown class or argument, or a value out of range.
    """

    def __init__(self, specs: Sequence[Spec], seed: int) -> None:
        self.specs, self.seed = list(specs), seed
        self._compose: Any = None
        self._build()

    def _build(self) -> None:
        import albumentations
        import cv2

        cv2.setNumThreads(0)  # the workers are the parallelism
        self._compose = albumentations.Compose([build(spec) for spec in self.specs])
        self._bits = np.random.Philox()
        self._state: Any = self._bits.state
        self._random = random.Random()
        # One shared pair of generators: reseeding each transform with the same number would make
        # their decisions agree (two flips of p 0.5 then give two of the four outcomes).
        self._compose.set_random_state(np.random.Generator(self._bits), self._random)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the plain data alone; the pipeline is built again where it is needed."""
        return {"specs": self.specs, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the plain data and build the pipeline."""
        self.__init__(state["specs"], state["seed"])  # type: ignore[misc]

    def __call__(self, image: Pixels, epoch: int, index: int, showing: int = 0) -> Pixels:
        """Return the augmented picture.

        Args:
            image: uint8 [H, W, 3].
            epoch: From 0.
            index: Of the sample, from 0.
            showing: How often the epoch had this sample before, from 0.

        Returns:
            uint8 [H', W', 3].

        Raises:
            UserError: if the pipeline turns out anything but uint8 pixels.
        """
        self._rekey(epoch, index, showing)
        result = self._compose(image=image)["image"]
        if not isinstance(result, np.ndarray) or result.dtype != np.uint8 or result.ndim != 3:
            raise UserError(
                f"{_WHERE} must turn uint8 pixels into uint8 pixels, and gave "
                f"{getattr(result, 'dtype', type(result).__name__)}. Remove Normalize and "
                "ToTensorV2: the network normalises by itself."
            )
        return result

    def check(self, height: int, width: int) -> tuple[int, ...]:
        """Try the pipeline on one grey picture, before any training; return the result's shape.

        Raises:
            UserError: if it fails, or turns out anything but uint8 pixels.
        """
        grey = np.full((height, width, 3), 128, np.uint8)
        try:
            return self(grey, 0, 0).shape
        except UserError:
            raise
        except Exception as error:  # whatever a transform raises is the recipe's mistake here
            raise UserError(
                f"{_WHERE} fails on a picture of {width} x {height} pixels: {_one_line(error)}. "
                "Mend the transform that it speaks of, or data.image_size."
            ) from error

    def _rekey(self, epoch: int, index: int, showing: int) -> None:
        """Set both generators in place (a third of the cost of making new ones)."""
        self._state["state"]["key"][:] = (self.seed, epoch)
        # Draws are counted in the first word: the others keep the streams apart for ever.
        self._state["state"]["counter"][:] = (0, showing, index, _AUGMENT_STREAM)
        self._state["buffer_pos"] = 4  # empty
        self._state["has_uint32"] = 0
        self._bits.state = self._state
        self._random.seed((showing << 192) | (self.seed << 128) | (epoch << 64) | index)


def build(spec: Spec) -> Any:
    """Return the Albumentations transform that plain data describe.

    Raises:
        UserError: for an unknown class, an unknown or missing argument, a value out of range.
    """
    from albumentations import BaseCompose, BasicTransform

    transform = find_class(spec)
    if not isinstance(spec.get("init_args") or {}, Mapping):
        raise UserError(
            f"{_WHERE}: {spec['class_path']}: init_args must be a mapping of arguments; found "
            f"{spec['init_args']!r}."
        )
    arguments = dict(spec.get("init_args") or {})
    check_arguments(transform, arguments)
    if issubclass(transform, BaseCompose):
        children = arguments["transforms"]
        if not isinstance(children, Sequence) or isinstance(children, str):
            raise UserError(
                f"{_WHERE}: {spec['class_path']}: transforms must be a list; found {children!r}."
            )
        arguments["transforms"] = [build(child) for child in children]
    elif not issubclass(transform, BasicTransform):
        raise UserError(f"{_WHERE}: {spec['class_path']} is not an Albumentations transform.")
    try:
        return transform(**arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"{_WHERE}: {spec['class_path']}: {_one_line(error)}") from error


def find_class(spec: Spec) -> type:
    """Return the class that a spec names, or raise UserError with the nearest right name."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("class_path"), str):
        raise UserError(
            f"{_WHERE} is a list of {{class_path: albumentations.NAME, init_args: {{...}}}}; "
            f"found {spec!r}."
        )
    unknown = set(spec) - {"class_path", "init_args"}
    if unknown:
        raise UserError(
            f"{_WHERE}: {spec['class_path']} has the keys {sorted(unknown)}; allowed are "
            "class_path and init_args."
        )
    module_name, _, name = spec["class_path"].rpartition(".")
    try:
        module = importlib.import_module(module_name or "albumentations")
    except ImportError as error:
        raise UserError(
            f"{_WHERE}: no module '{module_name}' ({spec['class_path']}). Write "
            f"albumentations.{name}?"
        ) from error
    found = getattr(module, name, None)
    if not isinstance(found, type):
        hint = nearest(name, [n for n, v in vars(module).items() if isinstance(v, type)])
        raise UserError(
            f"{_WHERE}: {module.__name__} has no class '{name}'; {hint or 'see its docs'}"
        )
    return found


def check_arguments(transform: type, arguments: Mapping[str, Any]) -> None:
    """Raise UserError for an argument that the class lacks; Albumentations itself only warns."""
    parameters = inspect.signature(transform.__init__).parameters  # type: ignore[misc]
    allowed = [name for name in parameters if name not in ("self", "args", "kwargs")]
    for name in arguments:
        if name not in allowed:
            hint = nearest(name, allowed)
            raise UserError(
                f"{_WHERE}: {transform.__name__} has no argument '{name}'; {hint or 'allowed are'} "
                f"{'' if hint else ', '.join(allowed)}".rstrip()
            )
    missing = [
        name for name in allowed
        if parameters[name].default is inspect.Parameter.empty and name not in arguments
    ]  # fmt: skip
    if missing:
        raise UserError(f"{_WHERE}: {transform.__name__} needs {', '.join(missing)}.")


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and "errors.pydantic.dev" not in line)
