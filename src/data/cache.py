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
from src.data.scans import scan_all
from src.data.segments import END_BYTES, ROW, SUFFIX, Segment, Stored, write_table
from src.errors import UserError
from src.preprocess import Pixels, StoredRule

LIMIT = "WAGGLE_CACHE_GIB"
_DEFAULT_GIB = 20.0
_GIB = 2**30


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
        for path in by_use(self.folder):
            try:
                found.append(Segment(path))
            except ValueError as error:
                print(f"WARNING: {error}; its pictures are decoded again", file=sys.stderr)
                path.unlink(missing_ok=True)
            except FileNotFoundError:  # another process has just made room
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

    def make_room(self) -> None:
        """Remove what was used longest ago, of all stores, until the limit is kept."""
        paths = by_use(self.place)
        total = sum(_size(path) for path in paths)
        for path in paths:
            if total <= limit_bytes():
                break
            total -= _size(path)
            with contextlib.suppress(OSError):  # still open elsewhere, on Windows
                path.unlink(missing_ok=True)


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
        self._known: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def keep(self, content: str, image: Image.Image) -> None:
        """Resize a picture and add it, unless it is there or there is no room.

        Args:
            content: Hash of its content, 32 hexadecimal digits.
            image: Upright, RGB.
        """
        name = bytes.fromhex(content)
        with self._own:
            if self._file is None and self.left > 0:
                self._begin()
        if self.left <= 0 or name in self._known or name in self._rows:
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

    def _begin(self) -> None:
        try:
            self._open()
        except (OSError, NotImplementedError) as error:  # no folder, or no locks there
            self._held.close()
            self._give_up(error)

    def _open(self) -> None:
        folder = self.store.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(alone(folder / "lock", "decoding these pictures"))
        for rest in folder.glob("*.tmp"):  # of a killed writer: the lock is ours
            rest.unlink(missing_ok=True)
        self._known = {name for s in self.store.segments() for name in s.rows["hash"].tolist()}
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
        self._file.close()
        name = blake2b(b"".join(self._rows), digest_size=16).hexdigest()
        part.replace(part.with_name(f"{name}{SUFFIX}"))


def open_store(cache: bool | str, size: int, rule: StoredRule) -> PixelStore | None:
    """Return the store that `data.cache` asks for, None for none or where there is no home."""
    if cache is False:
        return None
    try:
        return PixelStore(size, rule, Path(cache) if isinstance(cache, str) else None)
    except RuntimeError:
        return None


def fill(store: PixelStore, index: Index, wanted: npt.NDArray[np.bool_] | None = None) -> Stored:
    """Return the pixels of an index's pictures, after decoding those that are not there.

    That is done in parallel, with a bar on a terminal, as far as there is room. What can't be
    decoded any more is left to whoever reads it.

    Args:
        store: Where they are kept.
        index: The pictures.
        wanted: Which of them to decode, [N]; None means all.
    """
    wanted = np.ones(len(index), np.bool_) if wanted is None else wanted
    stored, missing = store.find(index.hashes)
    missing = [i for i in missing if wanted[i]]
    left = limit_bytes() - sum(_size(path) for path in stored.used)
    if missing and left > 0:
        with Writer(store, left) as writer:
            for _ in scan_all(index.root, [index.paths[i] for i in missing], writer.keep):
                pass
    store.make_room()
    if missing:  # what was just written and not removed again is found now
        stored, missing = store.find(index.hashes)
        missing = [i for i in missing if wanted[i]]
    if missing:
        total = int(wanted.sum())
        print(
            f"the cache holds {total - len(missing):,} of {total:,} decoded pictures "
            f"({LIMIT} is {limit_bytes() / _GIB:g}); the others are decoded in every epoch",
            file=sys.stderr,
        )
    return stored


def limit_bytes() -> int:
    """Return how large the cache of all stores may be.

    Raises:
        UserError: if WAGGLE_CACHE_GIB is no number from 0.
    """
    text = os.environ.get(LIMIT, str(_DEFAULT_GIB))
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UserError(f"{LIMIT} is {text!r}; allowed is a number of GiB from 0.")
    return int(limit * _GIB)


def by_use(folder: Path) -> list[Path]:
    """Return all segments below a folder, the one used longest ago first."""
    return sorted(folder.rglob(f"*{SUFFIX}"), key=_used)


def _used(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _names(hashes: bytes) -> npt.NDArray[np.bytes_]:
    """Return hashes, 16 bytes each, as an array that can be sorted."""
    return np.frombuffer(hashes, "S16")
