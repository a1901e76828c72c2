"""Adds pictures to a store, from any thread, one writer of a store at a time."""

import contextlib
import os
import sys
import threading
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.data.home import alone
from src.data.room import make_room
from src.data.segments import END_BYTES, HASHES, ROW, SUFFIX, Row, row_of, write_table
from src.data.store import PixelStore
from src.preprocess import Pixels

SEGMENT_BYTES = 2**30  # a segment is finished then: what a kill loses, and what goes at once


class Writer:
    """Adds pictures to a store; they are found when their segment is finished.

    It holds the store's lock from the first picture on. What an interrupted one has is kept; of a
    killed one, the finished segments. Whoever makes it closes it.

    Args:
        store: The store.
        most_bytes: How much it may add; pictures beyond that are passed over.
    """

    def __init__(self, store: PixelStore, most_bytes: int) -> None:
        self.store, self.left_bytes = store, most_bytes - END_BYTES
        self._own, self._held = threading.Lock(), contextlib.ExitStack()
        self._file: Any = None
        self._rows: dict[bytes, Row] = {}
        self._found = np.empty(0, HASHES)  # of the segments that were there, sorted
        self._finished: set[bytes] = set()  # of those that were added

    @property
    def full(self) -> bool:
        """Whether no further picture has room, or none can be written."""
        return self.left_bytes < self.store.least_bytes

    def begin(self, wait: bool = True) -> bool:
        """Take the store's lock and open a segment; return whether pictures can be added.

        Args:
            wait: For another process that writes to the store; else pictures are passed over.
        """
        try:
            self._take_lock(wait)
            self._open()
        except TimeoutError:
            self.left_bytes = 0
        except OSError as error:  # no folder, or no locks there
            self._held.close()
            self._give_up(error)
        return not self.full

    def keep(self, content: str, image: Image.Image) -> None:
        """Resize a picture and add it, unless it is there or there is no room.

        It does not wait for another process: it may be called from a thread, which a signal can't
        stop.

        Args:
            content: Hash of its content, 32 hexadecimal digits.
            image: Upright, RGB.
        """
        name = bytes.fromhex(content)
        with self._own:
            if self._file is None and not self.full:
                self.begin(wait=False)
        if self.full or self._has(name):
            return
        pixels = self.store.resized(image)
        with self._own:
            before = len(self._finished)
            if not self._has(name):
                self._add(name, pixels)
            finished = len(self._finished) > before
        if finished:
            with contextlib.suppress(OSError):  # the segment is whole, whatever becomes of others
                make_room(self.store.place)

    def _has(self, name: bytes) -> bool:
        if name in self._rows or name in self._finished:
            return True
        place = np.searchsorted(self._found, np.array(name, HASHES))
        return bool(place < len(self._found) and self._found[place] == np.array(name, HASHES))

    def _add(self, name: bytes, pixels: Pixels) -> None:
        size = pixels.nbytes + ROW.itemsize
        if size > self.left_bytes:
            self.left_bytes = 0
            return
        place = self._file.tell()
        try:
            self._file.write(pixels.tobytes())
            self.left_bytes -= size
            self._rows[name] = row_of(pixels, place)
            if place + size >= SEGMENT_BYTES:
                self._finish()
                self._open()
                self.left_bytes -= END_BYTES
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        print(
            f"WARNING: decoded pictures can't be kept: {error}. Name another folder by "
            "--data.cache DIR or XDG_CACHE_HOME, or keep none: --data.cache false.",
            file=sys.stderr,
        )
        self.left_bytes, self._rows = 0, {}
        if self._file is not None and not self._file.closed:
            with contextlib.suppress(OSError):  # what it took of a full disk is given back now
                self._file.raw.truncate(0)

    def _take_lock(self, wait: bool) -> None:
        folder = self.store.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(alone(folder / "lock", "decoding these pictures", wait))
        for rest in folder.glob("*.tmp"):  # of a killed writer: the lock is ours
            rest.unlink(missing_ok=True)
        there = self.store.segments()
        for segment in there:  # room is made of others first, while this store grows
            with contextlib.suppress(OSError):
                os.utime(segment.path)
        found = [np.empty(0, HASHES), *(segment.hashes for segment in there)]
        self._found = np.sort(np.concatenate(found))

    def _open(self) -> None:
        self._file = (self.store.folder / f"new{SUFFIX}.tmp").open("wb")

    def close(self) -> None:
        """Finish the segment, whole or not at all."""
        if self._file is None:
            return
        part = Path(self._file.name)
        try:
            if self._rows:
                self._finish()
        except OSError as error:
            self._give_up(error)
        finally:
            with contextlib.suppress(OSError):  # the disk is full
                self._file.close()
            part.unlink(missing_ok=True)
            self._file = None
            self._held.close()

    def _finish(self) -> None:
        write_table(self._file, self._rows)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = blake2b(b"".join(self._rows), digest_size=16).hexdigest()
        part = Path(self._file.name)
        part.replace(part.with_name(f"{name}{SUFFIX}"))
        self._finished.update(self._rows)
        self._rows = {}
