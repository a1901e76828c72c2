"""A checksum over a whole checkpoint file, kept in the comment of its own zip archive.

torch.save writes a zip archive, whose members have checksums of their own; the bytes between them
have none. The archive stays what torch.save made: torch and unzip read it as before. The comment is
the last part of a zip archive (APPNOTE.TXT of PKWARE, 4.3.16), behind a field of its length.
"""

import hashlib
import os
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

_MARK = b"waggle blake2b "
_DIGEST_SIZE = 16  # bytes; written as twice as many hexadecimal digits
_COMMENT_SIZE = len(_MARK) + 2 * _DIGEST_SIZE
_LENGTH = struct.pack("<H", _COMMENT_SIZE)
_END_SIZE, _END_MARK = 22, b"PK\x05\x06"  # of the record that ends an archive without a comment
_CHUNK = 1 << 20


def seal(file: BinaryIO) -> None:
    """Put the checksum into an archive that was just written.

    Args:
        file: Opened for reading and writing; it ends with the archive.
    """
    size = file.seek(-len(_LENGTH), os.SEEK_END)
    file.truncate()
    file.write(_LENGTH + _comment(file, size))


def mark_of(path: Path) -> str | None:
    """Return the checksum that a checkpoint file carries; None for one that carries none.

    It is not compared with the bytes: see `fault`.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _COMMENT_SIZE, 0))
        tail = file.read()
    return tail[len(_MARK) :].decode("ascii") if tail.startswith(_MARK) else None


def fault(path: Path) -> str | None:
    """Return what is wrong with the bytes of a checkpoint file, None if nothing is.

    A file without our checksum, as plain torch.save writes it, is tested by those of its members.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        end = size - len(_LENGTH) - _COMMENT_SIZE
        file.seek(max(end, 0))
        tail = file.read()
        if end >= 0 and tail.startswith(_LENGTH + _MARK):
            whole = tail[len(_LENGTH) :] == _comment(file, end)
            return None if whole else "its bytes are not those that were written (checksum)"
    if not size:
        return "it is empty"
    if tail[-_END_SIZE:][:4] != _END_MARK or not tail.endswith(b"\0\0"):
        return "it is not a whole zip archive"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged header leads anywhere
        return f"it is not a whole zip archive ({error})"
    return f"the checksum of {damaged} does not match" if damaged else None


def _comment(file: BinaryIO, size: int) -> bytes:
    """Return the comment for the first `size` bytes; the file stands behind them then."""
    digest = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    file.seek(0)
    left = size
    while left and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return _MARK + digest.hexdigest().encode()
