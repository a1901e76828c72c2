"""Decoded pixels, kept on the disk from one run to the next, and read without a copy.

A store holds pictures of one size and one resize rule, as a folder of segments (`segments.py`). A
picture is found by the hash of its content: renamed, moved and shared pictures are found again, a
changed one alone is decoded again. The cache of all stores is bounded; what was used longest ago
goes first.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from src import preprocess
from src.data.home import alone, cache_home
from src.data.index import Index
from src.data.room import GIB, LIMIT, by_use, limit_bytes, make_room, size_of
from src.data.scans import scan_all
from src.data.segments import END_BYTES, ROW, SUFFIX, Segment, Stored, write_table
from src.errors import UserError
from src.preprocess import Pixels, StoredRule


class PixelStore:
    """All pictures of one size and one rule that were decoded here.

    Args:
        size: Side of the stored pictures in pixels, from 1; by "cover" the shorter one.
        rule: The resize rule of `src.preprocess`.
        place: Folder of all stores; None means `pixels` in the user's cache.
    """

    def __init__(self, size: int, rule: StoredRule, place: Path | None = None) -> None:
        self.size, self.rule = size, rule
        self.place = place if place is not None else cache_home() / "pixels"
        self.folder = self.place / f"{rule}-{size}-pillow-{PIL.__version__}"  # it makes the pixels

    def resized(self, image: Image.Image) -> Pixels:
        """Return what is stored of an upright RGB picture, uint8 [H, W, 3]."""
        return np.asarray(preprocess.resize(image, self.size, self.rule))

    def segments(self) -> list[Segment]:
        """Return the segments that are whole, the one used longest ago first.

        A damaged one is told and removed: its pictures are decoded again.
        """
        found = []
        for path in by_use([self.folder]):
            try:
                found.append(Segment(path))
            except ValueError as error:
                print(f"WARNING: {error}; its pictures are decoded again", file=sys.stderr)
                path.unlink(missing_ok=True)
            except OSError:  # another process has just made room, or another user may alone read it
                continue
        return found

    def find(self, contents: Sequence[str]) -> tuple[Stored, list[int]]:
        """Return the pixels of pictures, and the positions of those that are not there.

        Args:
            contents: Hash of each picture's content, 32 hexadecimal digits, [N].
        """
        segments = self.segments()
        names, where = np.unique(_names(bytes.fromhex("".join(contents))), return_inverse=True)
        files = np.full(len(names), -1, np.int32)
        rows = np.zeros(len(names), ROW)
        for number, segment in enumerate(segments):
            here = _names(segment.rows["hash"].tobytes())
            _, ours, theirs = np.intersect1d(names, here, assume_unique=True, return_indices=True)
            files[ours] = number
            rows[ours] = segment.rows[theirs]
        files, rows = files[where], rows[where]
        for number in np.unique(files[files >= 0]).tolist():
            with contextlib.suppress(OSError):
                os.utime(segments[number].path)
        stored = Stored([segment.path for segment in segments], files, rows)
        return stored, np.flatnonzero(files < 0).tolist()


class Writer:
    """Adds pictures to a store, from any thread; they are found when it has been closed.

    It holds the store's lock from the first picture on. What an interrupted one has is kept, what a
    killed one has is lost.

    Args:
        store: The store.
        most_bytes: How much it may add; pictures beyond that are passed over.
    """

    def __init__(self, store: PixelStore, most_bytes: int) -> None:
        self.store, self.left, self._own = store, most_bytes - END_BYTES, threading.Lock()
        self._held = contextlib.ExitStack()
        self._file: Any = None
        self._rows: dict[bytes, tuple[int, int, int]] = {}
        self.known: set[bytes] = set()  # hashes of what the store held at the beginning

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self, wait: bool = True) -> None:
        """Take the store's lock and open a segment.

        Args:
            wait: For another process that writes to the store; else pictures are passed over.
        """
        try:
            self._open(wait)
        except TimeoutError:
            self.left = 0
        except (OSError, NotImplementedError) as error:  # no folder, or no locks there
            self._held.close()
            self._give_up(error)

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
            if self._file is None and self.left > 0:
                self.begin(wait=False)
        if self.left <= 0 or name in self.known or name in self._rows:
            return
        pixels = self.store.resized(image)
        with self._own:
            if name not in self._rows:
                self._add(name, pixels)

    def _add(self, name: bytes, pixels: Pixels) -> None:
        size = pixels.nbytes + ROW.itemsize
        if size > self.left:
            self.left = 0
            return
        place = self._file.tell()
        try:
            self._file.write(pixels.tobytes())
        except OSError as error:
            self._give_up(error)
            return
        self.left -= size
        self._rows[name] = (place, *pixels.shape[:2])

    def _give_up(self, error: Exception) -> None:
        print(f"WARNING: decoded pictures can't be kept: {error}", file=sys.stderr)
        self.left, self._rows = 0, {}
        if self._file is not None:
            with contextlib.suppress(OSError):  # what it took of a full disk is given back now
                self._file.seek(0)
                self._file.truncate()

    def _open(self, wait: bool) -> None:
        folder = self.store.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(alone(folder / "lock", "decoding these pictures", wait))
        for rest in folder.glob("*.tmp"):  # of a killed writer: the lock is ours
            rest.unlink(missing_ok=True)
        for segment in self.store.segments():
            self.known.update(hash.tobytes() for hash in segment.rows["hash"])
        self._file = (folder / f"new{SUFFIX}.tmp").open("wb")

    def close(self) -> None:
        """Finish the segment, whole or not at all."""
        if self._file is None:
            return
        part = Path(self._file.name)
        try:
            if self._rows:
                self._finish(part)
        except OSError as error:
            self._give_up(error)
        finally:
            with contextlib.suppress(OSError):  # the disk is full
                self._file.close()
            part.unlink(missing_ok=True)
            self._file = None
            self._held.close()

    def _finish(self, part: Path) -> None:
        write_table(self._file, self._rows)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = blake2b(b"".join(self._rows), digest_size=16).hexdigest()
        part.replace(part.with_name(f"{name}{SUFFIX}"))


def open_store(cache: bool | str, size: int, rule: StoredRule) -> PixelStore | None:
    """Return the store that `data.cache` asks for, None for none or where there is no home."""
    if cache is False:
        return None
    try:
        return PixelStore(size, rule, Path(cache).expanduser() if isinstance(cache, str) else None)
    except RuntimeError:
        return None


def check_place(cache: bool | str, root: Path) -> None:
    """Refuse a `data.cache` that names no folder, or one inside the data.

    Raises:
        UserError: that says so.
    """
    if not isinstance(cache, str):
        return
    if not cache.strip():
        raise UserError("--data.cache is empty. Give true, false or a folder.")
    inside = Path(cache).expanduser().resolve()
    if root.is_dir() and root.resolve() in (inside, *inside.parents):
        raise UserError(
            f"--data.cache {cache} lies inside --data.root {root}: what is kept would become data. "
            "Give a folder outside."
        )


Part = tuple[PixelStore, npt.NDArray[np.bool_]]  # a store, and which pictures are wanted in it [N]


def fill(parts: Sequence[Part], index: Index) -> list[Stored]:
    """Return the pixels of an index's pictures, after decoding those that are not there.

    That is done in parallel, with a bar on a terminal, as far as there is room. What can't be
    decoded any more is left to whoever reads it.

    Args:
        parts: Stores of one cache, and which of the pictures each shall hold.
        index: The pictures, N.
    """
    left, found = limit_bytes(), []
    for store, wanted in parts:
        stored = _complete(store, index, wanted, left)
        left -= sum(map(size_of, stored.used))
        found.append(stored)
    if parts and make_room(parts[0][0].place):
        found = [store.find(index.hashes)[0] for store, _ in parts]
    for stored, (_, wanted) in zip(found, parts, strict=True):
        held, total = int((stored.files[wanted] >= 0).sum()), int(wanted.sum())
        if held < total:
            print(
                f"the cache holds {held:,} of {total:,} decoded pictures ({LIMIT} is "
                f"{limit_bytes() / GIB:g}); the others are decoded in every epoch",
                file=sys.stderr,
            )
    return found


def _complete(
    store: PixelStore, index: Index, wanted: npt.NDArray[np.bool_], most_bytes: int
) -> Stored:
    """Return what a store holds of an index, after adding the wanted pictures that it lacks."""
    stored, missing = store.find(index.hashes)
    missing = [i for i in missing if wanted[i]]
    left = most_bytes - sum(map(size_of, stored.used))
    if not missing or left <= 0:
        return stored
    with Writer(store, left) as writer:
        writer.begin()
        # What another process has added while this one waited is there by now.
        new = [i for i in missing if bytes.fromhex(index.hashes[i]) not in writer.known]
        for _ in scan_all(index.root, [index.paths[i] for i in new], writer.keep):
            pass
    return store.find(index.hashes)[0]


def _names(hashes: bytes) -> npt.NDArray[np.bytes_]:
    """Return hashes, 16 bytes each, as an array that can be sorted."""
    return np.frombuffer(hashes, "S16")
