"""What a run can do without: named in YAML under trainer.callbacks, one concern each."""

from callbacks.ema import EMA
from callbacks.freeze_schedule import FreezeSchedule
from callbacks.kept_features import KeptFeatures
from callbacks.mix import Mix
from callbacks.progressive_size import ProgressiveSize
from callbacks.sample_images import SampleImages
from callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "FreezeSchedule",
    "KeptFeatures",
    "Mix",
    "ProgressiveSize",
    "SampleImages",
    "Throughput",
]
