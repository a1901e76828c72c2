"""Memory that is kept: counted in page faults, in processes of their own."""

import ctypes
import gc
import subprocess
import sys

import pytest

from src import memory
from tests.helpers import ROOT

STEPS = """
import resource, sys
import torch
from src.memory import keep_freed_memory
from src.models import SeedCNN
if sys.argv[1] == "keep":
    assert keep_freed_memory()
net = SeedCNN(2)
pixels = torch.zeros(8, 150, 150, 3, dtype=torch.uint8)
def step():
    net(pixels).sum().backward()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Return how many pages five steps had mapped."""
    words = [sys.executable, "-c", STEPS, how]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: mallopt")
def test_a_step_maps_few_of_the_pages() -> None:
    """A few percent, or more where the host takes idle pages back meanwhile."""
    assert faults("keep") < 0.4 * faults("plain")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_goes_on_as_before(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyError), memory.no_collections():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_other_systems_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        assert not memory.keep_freed_memory()
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", lambda name: object())  # no mallopt, as in musl
        assert not memory.keep_freed_memory()
