"""Pictures of many requests in one batch."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from src import batcher
from src.batcher import Batcher, BusyError, Room


class Slow:
    """A model that waits for a word, and notes the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        self.sizes.append(len(pixels))
        self.begun.set()
        assert self.go.wait(30)
        if (pixels == 99).any():
            raise RuntimeError("no such picture")
        return pixels.reshape(len(pixels), -1)[:, :2].astype(np.float32)


def picture(value: int) -> np.ndarray:
    return np.full((1, 1, 3), value, np.uint8)


@pytest.fixture
def model() -> Slow:
    return Slow()


@pytest.fixture
def made(model: Slow) -> Any:
    found = Batcher(model)  # type: ignore[arg-type]
    yield found
    model.go.set()
    found.close()


def test_what_comes_in_meanwhile_is_the_next_batch(model: Slow, made: Batcher) -> None:
    first = made.predict(picture(1))
    assert model.begun.wait(30)
    others = [made.predict(picture(k)) for k in range(2, 7)]
    model.go.set()
    assert first.result(30).tolist() == [1, 1]
    assert [other.result(30)[0] for other in others] == [2, 3, 4, 5, 6]
    assert model.sizes == [1, 5]


def test_a_fault_reaches_whoever_asked_and_the_next_is_answered(model: Slow, made: Batcher) -> None:
    model.go.set()
    with pytest.raises(RuntimeError, match="no such picture"):
        made.predict(picture(99)).result(30)
    assert made.predict(picture(7)).result(30)[0] == 7


def test_one_that_gave_up_takes_no_room(model: Slow, made: Batcher) -> None:
    made.predict(picture(1))
    assert model.begun.wait(30)
    gone, kept = made.predict(picture(2)), made.predict(picture(3))
    gone.cancel()
    model.go.set()
    assert kept.result(30)[0] == 3
    assert model.sizes == [1, 1]


def test_too_many(model: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "WAITING", 2)
    made = Batcher(model)  # type: ignore[arg-type]
    made.predict(picture(1))
    assert model.begun.wait(30)
    waiting = [made.predict(picture(2)), made.predict(picture(3))]
    with pytest.raises(BusyError):
        made.predict(picture(4))
    model.go.set()
    made.close()  # answers what waits
    assert [one.result(0)[0] for one in waiting] == [2, 3]


def test_the_end_is_reached_though_the_thread_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(self: Batcher) -> None:
        return

    monkeypatch.setattr(batcher, "WAITING", 1)
    monkeypatch.setattr(Batcher, "_run", dies)
    made = Batcher(Slow())  # type: ignore[arg-type]
    made._thread.join(30)
    made.predict(picture(1))
    made.close()


def test_a_model_that_answers_too_little_is_a_fault(
    model: Slow, made: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.go.set()
    monkeypatch.setattr(model, "probabilities", lambda pixels: np.zeros((0, 2), np.float32))
    with pytest.raises(ValueError, match="shorter"):
        made.predict(picture(1)).result(30)


async def _fill(room: Room) -> None:
    await room.take(8)
    large, small = (asyncio.ensure_future(room.take(need)) for need in (5, 2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (large.done(), small.done()) == (False, True)  # 8 + 2 fit into 10
    with pytest.raises(BusyError):
        gone = asyncio.ensure_future(room.take(5))
        await asyncio.sleep(0)
        await room.take(9)
    gone.cancel()
    room.give(8)
    await large
    await room.take(3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(room.take(1), 0.01)


def test_room_for_what_fits() -> None:
    asyncio.run(_fill(Room(10, 2)))


async def _cancelled_while_room_is_given() -> None:
    room = Room(1, 2)
    await room.take(1)
    gone = asyncio.ensure_future(room.take(1))
    await asyncio.sleep(0)
    gone.cancel()
    room.give(1)  # before the cancelled one has woken
    with pytest.raises(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(room.take(1), 5)


def test_room_is_not_given_to_one_that_gave_up() -> None:
    asyncio.run(_cancelled_while_room_is_given())
