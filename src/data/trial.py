"""What a training is measured on before it begins: its batches and blocks, and their number."""

import math
from collections.abc import Iterator
from itertools import count

from src.data.datamodule import DataModule
from src.data.dataset import Batch
from src.data.decoded import TRAIN
from src.data.sampler import EvaluationBlocks, TrainBatches
from src.data.workers import few, own_cores


def batches(data: DataModule, threads: int = 1) -> Iterator[Batch]:
    """Yield batches of the training for ever, made in this process by so many threads."""
    pictures = data.pictures("fit", TRAIN, data.augmentation)
    pictures.threads = threads
    labels = pictures.index.labels if data.sampling == "balanced" else None
    order = TrainBatches(len(pictures), data.batch_size, data.seed, labels=labels)
    for order.epoch in count():
        yield from map(pictures.__getitems__, order)


def blocks(data: DataModule) -> Iterator[Batch]:
    """Yield the blocks of the validation of a training, made in this process."""
    pictures = data.validated()
    pictures.threads = few(own_cores(1))
    if len(pictures):
        order = EvaluationBlocks(len(pictures), min(data.eval_batch_size, len(pictures)))
        yield from map(pictures.__getitems__, order)


def blocks_of_validation(data: DataModule) -> int:
    """Return how many blocks a validation of the training has."""
    return math.ceil(len(data.validated()) / data.eval_batch_size)


def steps_of_epoch(data: DataModule, processes: int) -> int:
    """Return how many steps an epoch of so many processes has."""
    number = len(data.pictures("fit", TRAIN))
    return len(TrainBatches(number, data.batch_size, data.seed, 0, processes))


def workers_of_training(data: DataModule, processes: int) -> int:
    """Return how many worker processes make the batches of each of so many processes."""
    return data.workers(data.pictures("fit", TRAIN, data.augmentation), own_cores(processes))
