"""What tests share that is no fixture."""

import importlib.util
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def require_module(name: str) -> None:
    """Skip the test where a module is not installed; under WAGGLE_NO_SKIP=1 that is a failure."""
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that should hold it
        found = False
    if not found:
        pytest.skip(f"the module {name} is not installed: make setup")


def require_program(name: str) -> str:
    """Return the path of a program; skip where there is none, as `require_module` does."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"the program {name} is not on the PATH")
    return path
