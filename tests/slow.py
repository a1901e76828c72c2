"""A training that takes its time, so that a test can end it before it is over."""

import os
import time
from typing import Any

from lightning.pytorch import Callback

SECONDS = "SECONDS_A_BATCH"  # set in the environment of the sitting that is to be slow


class Slow(Callback):
    """Waits before every batch."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Wait."""
        time.sleep(float(os.environ.get(SECONDS, "0")))
