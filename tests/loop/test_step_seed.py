"""Every draw inside a step comes from (seed, epoch, batch, rank)."""

import hashlib
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import SGD

from src.classifier import Classifier
from src.loop.step_seed import StepSeed, step_seed
from tests.loop.helpers import StubTrainer, make_data, make_trainer, module, small


def masks(before: Callable[[], object] = lambda: None) -> list[Tensor]:
    """Return the dropout masks of three steps; `before` each of them something else is drawn."""
    callback, found = StepSeed(3), []
    for batch_idx in range(3):
        before()
        trainer: Any = StubTrainer(epoch=1)
        callback.on_train_batch_start(trainer, module(), None, batch_idx)
        found.append(F.dropout(torch.ones(64)))
    return found


class TestStepSeed:
    def test_is_the_documented_hash(self) -> None:
        key = struct.pack("<4q", 1, 2, 3, 4)
        digest = hashlib.blake2b(key, digest_size=8).digest()
        assert step_seed(1, 2, 3, 4) == int.from_bytes(digest, "little")

    @given(st.tuples(*[st.integers(0, 2**32 - 1)] * 4))
    @settings(deadline=None)
    def test_same_key_same_seed_within_64_bits(self, key: tuple[int, int, int, int]) -> None:
        assert 0 <= step_seed(*key) == step_seed(*key) < 2**64

    def test_every_part_of_the_key_counts(self) -> None:
        keys = {
            step_seed(a, b, c, d) for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)
        }
        assert len(keys) == 16

    def test_draws_in_between_change_no_mask(self) -> None:
        alone, disturbed = masks(), masks(lambda: torch.rand(1000))
        assert all(torch.equal(a, b) for a, b in zip(alone, disturbed, strict=True))
        assert not torch.equal(alone[0], alone[1])

    def test_the_process_and_the_epoch_count(self) -> None:
        found = []
        for options in ({}, {"global_rank": 1}, {"epoch": 1}):
            trainer: Any = StubTrainer(**options)  # type: ignore[arg-type]
            StepSeed(3).on_train_batch_start(trainer, module(), None, 0)
            found.append(tuple(torch.rand(4).tolist()))
        assert len(set(found)) == 3

    def test_a_run_with_and_without_validation_learns_the_same(
        self, root: Path, tmp_path: Path
    ) -> None:
        weights = []
        for batches in (0, 2):
            torch.manual_seed(0)
            net = partial(small, noise=0.5)
            model = Classifier(2, net=net, optimizer=partial(SGD, lr=0.1))
            trainer = make_trainer(
                tmp_path, StepSeed(0), max_epochs=2, limit_val_batches=batches, val_check_interval=2
            )
            trainer.fit(model, datamodule=make_data(root))
            weights.append(model.net.head.weight)
        assert torch.equal(*weights)
