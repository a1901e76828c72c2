"""How busy a GPU is, read off `nvidia-smi` while something runs."""

import contextlib
import statistics
import subprocess
from typing import Any

import torch

MILLISECONDS = 100  # between two looks


class BusyGpu:
    """Looks at one GPU from `start` to `stop`.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._uuid = str(torch.cuda.get_device_properties(device).uuid)
        self._process: Any = None

    def start(self) -> None:
        """Begin to look; where there is no nvidia-smi, don't."""
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [
                    *["nvidia-smi", f"--id=GPU-{self._uuid}", f"--loop-ms={MILLISECONDS}"],
                    *["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"],
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def stop(self) -> float | None:
        """Return the mean share of the time in which it computed, None if nobody says."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.terminate()
        words = process.communicate()[0].split()
        found = [int(word) / 100 for word in words if word.isdigit()]
        return statistics.mean(found) if found else None
