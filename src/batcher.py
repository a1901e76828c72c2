"""Puts pictures of many requests into one batch of the model, and lets others wait for room.

While a batch is under way, what comes in gathers and makes the next one: no picture waits for
others where there are none.
"""

import asyncio
import queue
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from src.bundle import Bundle
from src.preprocess import Pixels

MOST = 32  # pictures of a batch
WAITING = 1024  # pictures that may wait

Shares = npt.NDArray[np.float32]


class BusyError(Exception):
    """So many pictures wait that another one would wait too long."""


class _Task(NamedTuple):
    pixels: Pixels
    answer: Future[Shares]


class Batcher:
    """A thread that sends waiting pictures through a model.

    Args:
        bundle: The model.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._waiting: queue.Queue[_Task | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def predict(self, pixels: Pixels) -> Future[Shares]:
        """Return what will be the probabilities, float32 [C], of a picture, uint8 [S, S, 3].

        Raises:
            BusyError: too many wait.
        """
        answer: Future[Shares] = Future()
        try:
            self._waiting.put_nowait(_Task(pixels, answer))
        except queue.Full:
            raise BusyError from None
        return answer

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        while self._thread.is_alive():
            with suppress(queue.Full):  # of a thread that has died, nobody takes
                self._waiting.put(None, timeout=1)
                self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            tasks, last = self._gathered(first)
            self._answer([task for task in tasks if task.answer.set_running_or_notify_cancel()])
            if last:
                return

    def _gathered(self, first: _Task) -> tuple[list[_Task], bool]:
        """Return what waits, MOST of it at most, and whether the end was among it."""
        tasks = [first]
        while len(tasks) < MOST:
            try:
                task = self._waiting.get_nowait()
            except queue.Empty:
                break
            if task is None:
                return tasks, True
            tasks.append(task)
        return tasks, False

    def _answer(self, tasks: list[_Task]) -> None:
        if not tasks:
            return
        try:
            shares = self._bundle.probabilities(np.stack([task.pixels for task in tasks]))
            answers = list(zip(tasks, shares, strict=True))
        except Exception as error:  # whoever asked gets it
            for task in tasks:
                task.answer.set_exception(error)
            return
        for task, row in answers:
            task.answer.set_result(row)


class Room:
    """What work under way may take together: pixels, say. What fits goes before what does not.

    It belongs to one event loop.

    Args:
        size: Of all work under way.
        most: That may wait.
    """

    def __init__(self, size: int, most: int) -> None:
        self._free, self._most = size, most
        self._waiting: dict[asyncio.Future[None], int] = {}

    async def take(self, need: int) -> None:
        """Wait until there is room.

        Raises:
            BusyError: too many wait.
        """
        if need <= self._free:
            self._free -= need
            return
        if len(self._waiting) >= self._most:
            raise BusyError
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = need
        try:
            await turn
        except asyncio.CancelledError:
            if self._waiting.pop(turn, None) is None:  # it had got its room
                self.give(need)
            raise

    def give(self, need: int) -> None:
        """Give room back."""
        self._free += need
        for turn, wanted in list(self._waiting.items()):
            if wanted <= self._free and not turn.done():  # else cancelled, and soon gone
                del self._waiting[turn]
                self._free -= wanted
                turn.set_result(None)
