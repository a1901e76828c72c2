"""A torchvision that does not fit the torch beside it: imported all the same, others left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

# Ends as PyPI's build for CUDA does beside a torch for processors, in a module of the package.
BROKEN = """
import torch
@torch.library.register_fake("torchvision::nms")
def _(dets, scores, iou_threshold): return dets
"""
WORKING = """
import torch
LIBRARY = torch.library.Library("torchvision", "DEF")
LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
""" + BROKEN  # fmt: skip
OTHER = 'raise RuntimeError("something else")\n'


def imported(folder: Path, module: str, first: str) -> subprocess.CompletedProcess[str]:
    """Import a torchvision of one module in a process of its own, after another import."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import ops\nNAME = __name__\n")
    (package / "ops.py").write_text(module)
    program = f"import {first}, torchvision; print(torchvision.NAME, torchvision.ops.__name__)"
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", [BROKEN, WORKING], ids=["broken", "working"])
def test_it_is_imported(module: str, tmp_path: Path) -> None:
    done = imported(tmp_path, module, "src")
    assert done.stdout == "torchvision torchvision.ops\n", done.stderr


def test_without_our_care_it_is_not(tmp_path: Path) -> None:
    done = imported(tmp_path, BROKEN, "sys")
    assert "operator torchvision::nms does not exist" in done.stderr


def test_another_failure_is_left_alone(tmp_path: Path) -> None:
    done = imported(tmp_path, OTHER, "src")
    assert done.stderr.rstrip().endswith("RuntimeError: something else")


def test_src_alone_imports_nothing_heavy() -> None:
    program = "import src, sys; print({'torch', 'torchvision'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
