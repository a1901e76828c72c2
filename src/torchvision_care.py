"""Lets torchvision be imported beside a torch that its operators are not built for.

torchvision on PyPI is built for CUDA. Beside a torch for processors its operators do not load, and
its import ends where it describes the first of them; torchmetrics, and so Lightning, import it
wherever it is installed. Nothing here needs those operators, so two of them are then declared,
without a body. Only after the failure: a build that works declares them itself.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "torchvision"
_declared: list[Any] = []  # the operators live as long as this reference


def take_care() -> None:
    """Watch for the import of torchvision; imports nothing."""
    if _NAME not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds torchvision as the others do, and hands it a loader that tries twice."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _NAME:
            return None
        others = (f.find_spec(fullname, path, target) for f in sys.meta_path if f is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Runs a module, and runs it again with the operators declared if they were missing."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.loader.exec_module(module)
        except RuntimeError as error:
            if f"operator {_NAME}::nms does not exist" not in str(error) or _declared:
                raise
            _declare()
            for name in [name for name in sys.modules if name.startswith(f"{_NAME}.")]:
                del sys.modules[name]
            self.loader.exec_module(module)


def _declare() -> None:
    import torch

    library: Any = torch.library
    library = library.Library(_NAME, "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
