"""Files of decoded pixels, written once and memory-mapped: the pieces that a cache is made of.

A segment holds pixels, uint8 [H, W, 3] of one picture behind another; then a table of N rows (hash
of the content 16 bytes, offset int64, height and width int32, CRC-32 of the pixels uint32); then N
int64, the checksum of the table and a mark, 16 bytes each. All numbers are little-endian.
"""

import contextlib
import os
import struct
import sys
import threading
import zlib
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from src.preprocess import Pixels

SUFFIX = ".pixels"
ROW = np.dtype(
    [("hash", "V16"), ("offset", "<i8"), ("height", "<i4"), ("width", "<i4"), ("crc", "<u4")]
)
HASHES = np.dtype("S16")  # unlike V16 they can be sorted
_END = struct.Struct("<q16s16s")  # rows, checksum of the table, mark
_MARK = b"waggle pixels 2\n"
Row = tuple[int, int, int, int]  # offset, height, width, CRC-32
END_BYTES = _END.size  # of a segment, beside its pixels and rows


class Segment:
    """The rows of one file; the pixels are left where they are.

    Args:
        path: The file.

    Raises:
        ValueError: if it is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _END.size, 0))
            try:
                count, checksum, mark = _END.unpack(file.read())
            except struct.error:
                raise ValueError(f"{path} is too short") from None
            start = size - _END.size - count * ROW.itemsize
            if mark != _MARK or count < 0 or start < 0:
                raise ValueError(f"{path} has no end mark")
            file.seek(start)
            table = file.read(count * ROW.itemsize)
        self.rows = np.frombuffer(table, ROW)
        ends = self.rows["offset"] + self._sizes()
        if _checksum(table) != checksum or (count and int(ends.max()) > start):
            raise ValueError(f"{path} is damaged")

    @property
    def hashes(self) -> npt.NDArray[np.bytes_]:
        """The hash of each picture's content, of HASHES [N]."""
        return np.frombuffer(self.rows["hash"].tobytes(), HASHES)

    def _sizes(self) -> npt.NDArray[np.int64]:
        sizes: npt.NDArray[np.int64] = 3 * self.rows["height"].astype(np.int64) * self.rows["width"]
        return sizes


class Stored:
    """The pixels of some pictures, in an order of their own; opened where they are first read.

    It pickles as paths and numbers: an open memory map would be pickled with all that it shows.

    Args:
        paths: Segments.
        files: Position of each picture's segment among them, int32 [N]; -1 where it is in none.
        rows: Its row there, of ROW, [N].
    """

    def __init__(
        self, paths: Sequence[Path], files: npt.NDArray[np.int32], rows: npt.NDArray[Any]
    ) -> None:
        self.paths, self.files, self.rows = tuple(paths), files, rows
        self._maps: dict[int, npt.NDArray[np.uint8]] = {}
        self._lock = threading.Lock()  # held to open and to drop a segment
        self._sound = np.zeros(len(files), np.bool_)  # those whose checksum was seen to be right

    def __len__(self) -> int:
        return len(self.files)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the open files here."""
        return Stored, (self.paths, self.files, self.rows)

    def take(self, positions: npt.NDArray[np.int64]) -> "Stored":
        """Return the pictures at these positions, in this order."""
        return Stored(self.paths, self.files[positions], self.rows[positions])

    @property
    def used(self) -> list[Path]:
        """The segments that hold any of the pictures."""
        return [self.paths[number] for number in np.unique(self.files[self.files >= 0])]

    def pixels(self, index: int) -> Pixels | None:
        """Return one picture, uint8 [H, W, 3], a read-only view of the file; None if not there.

        A segment that another process has removed to make room is not there either. When a process
        first reads a picture it looks at its checksum; if that is wrong, the segment is told and
        removed, and its pictures are as good as not there.
        """
        number = int(self.files[index])
        if number < 0:
            return None
        _, start, height, width, crc = self.rows[index].item()
        part = self._map(number)[start : start + 3 * height * width]
        if len(part) < 3 * height * width:
            return None
        if not self._sound[index]:
            if zlib.crc32(part.data) != crc:
                del part  # Windows removes no file that is mapped
                self._drop(number)
                return None
            self._sound[index] = True
        return part.reshape(height, width, 3)

    def _map(self, number: int) -> npt.NDArray[np.uint8]:
        if number not in self._maps:
            with self._lock:
                if number not in self._maps:
                    self._maps[number] = _mapped(self.paths[number])
        return self._maps[number]

    def _drop(self, number: int) -> None:
        """Tell once that a segment is damaged, remove it, and read nothing of it any more."""
        path = self.paths[number]
        with self._lock:
            if not len(self._maps[number]):
                return
            self._maps[number] = np.empty(0, np.uint8)
        print(f"WARNING: {path} is damaged; its pictures are decoded again", file=sys.stderr)
        with contextlib.suppress(OSError):  # another user's, or removed by another process
            path.unlink()


def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    """Return the bytes of a file, read where they are looked at; none if it is gone or emptied."""
    try:
        return np.memmap(path, np.uint8, "r").view(np.ndarray)
    except (OSError, ValueError):
        return np.empty(0, np.uint8)


def row_of(pixels: Pixels, offset: int) -> Row:
    """Return what the table says of a picture whose pixels begin at an offset, but for the hash."""
    height, width, _ = pixels.shape
    return offset, height, width, zlib.crc32(np.ascontiguousarray(pixels).data)


def write_table(file: BinaryIO, rows: Mapping[bytes, Row]) -> None:
    """Finish a segment.

    Args:
        file: It stands behind the pixels.
        rows: Hash -> what `row_of` returns.
    """
    made = ((name, *row) for name, row in rows.items())
    table = np.fromiter(made, ROW, len(rows)).tobytes()
    file.write(table + _END.pack(len(rows), _checksum(table), _MARK))


def _checksum(table: bytes) -> bytes:
    return blake2b(table, digest_size=16).digest()
