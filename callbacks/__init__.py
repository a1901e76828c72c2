"""What a run can do without: named in YAML under trainer.callbacks, one concern each."""

from callbacks.confusion_matrix import ConfusionMatrix
from callbacks.ema import EMA
from callbacks.freeze_schedule import FreezeSchedule
from callbacks.kept_features import KeptFeatures
from callbacks.mix import Mix
from callbacks.prediction_table import PredictionTable
from callbacks.progressive_size import ProgressiveSize
from callbacks.sample_images import SampleImages
from callbacks.throughput import Throughput
from callbacks.worst_mistakes import WorstMistakes

__all__ = [
    "EMA",
    "ConfusionMatrix",
    "FreezeSchedule",
    "KeptFeatures",
    "Mix",
    "PredictionTable",
    "ProgressiveSize",
    "SampleImages",
    "Throughput",
    "WorstMistakes",
]
