"""Unpack an archive that may come from a stranger: nothing lands outside the folder.

zipfile and tarfile do the reading; every member is looked at before its first byte is written.
"""

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path
from typing import IO, NamedTuple

from src.errors import UserError

MAX_BYTES = 20 * 2**30
MAX_RATIO = 200  # of photographs 1.1, of plain text 20, of a zip bomb 1,000
RATIO_COUNTS_FROM_BYTES = 100_000_000

LEFT_OUT = {"__MACOSX", "Thumbs.db", "desktop.ini"}
# zipfile says RuntimeError for a password, NotImplementedError (one too) for a rare compression.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    BadGzipFile,
    zlib.error,
    LZMAError,
    EOFError,
    RuntimeError,
)


class Member(NamedTuple):
    """One file of an archive, whatever its format."""

    name: str
    size: int  # in bytes, unpacked
    is_folder: bool
    is_file: bool  # plain: no link, no device
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into an existing, empty folder.

    Dot files, `__MACOSX`, `Thumbs.db` and `desktop.ini` are left out.

    Raises:
        UserError: if a member leads out of the folder, is a link or a device, or comes twice; if
            the whole is absurdly large; or if the archive is damaged (it is then deleted).
    """
    total = 0
    try:
        with closing(_members(archive)) as members:
            for member in members:
                total += member.size
                _check_total(archive, total)
                parts = _safe_parts(archive, member)
                if member.is_file and not any(_is_left_out(part) for part in parts):
                    _write(archive, member, folder.joinpath(*parts))
    except DAMAGE as error:
        archive.unlink(missing_ok=True)
        raise UserError(
            f"the archive {archive.name} is damaged or encrypted: {error}. It was deleted; the "
            "same command fetches it again."
        ) from error


def _members(archive: Path) -> Generator[Member, None, None]:
    with archive.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK"):
        return _zip_members(archive)
    if tarfile.is_tarfile(archive):
        return _tar_members(archive)
    raise zipfile.BadZipFile(f"neither zip nor tar, it begins with {start!r}")


def _zip_members(archive: Path) -> Generator[Member, None, None]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the maker knew no Unix modes
            plain = kind in (0, stat.S_IFREG) and not info.is_dir()
            # orig_filename: the other one ends at a NUL and has its separators replaced
            yield Member(
                info.orig_filename,
                info.file_size,
                info.is_dir() and kind in (0, stat.S_IFDIR),
                plain,
                lambda info=info: opened.open(info),  # type: ignore[misc]
            )


def _tar_members(archive: Path) -> Generator[Member, None, None]:
    with tarfile.open(archive) as opened:
        for info in opened:
            plain = info.isfile() and not info.issparse()
            yield Member(
                info.name,
                info.size,
                info.isdir(),
                plain,
                lambda info=info: opened.extractfile(info),  # type: ignore[misc]
            )


def _check_total(archive: Path, total: int) -> None:
    ratio = total / max(1, archive.stat().st_size)
    if total > MAX_BYTES or (total > RATIO_COUNTS_FROM_BYTES and ratio > MAX_RATIO):
        raise UserError(
            f"the archive {archive.name} unpacks to {total / 1e9:,.1f} GB or more, {ratio:,.0f} "
            f"times its size; allowed are {MAX_BYTES / 1e9:,.1f} GB and {MAX_RATIO} times. If you "
            "trust it, unpack it by hand and give its folder: --data.root DIR."
        )


def _safe_parts(archive: Path, member: Member) -> list[str]:
    """Return the member's path inside the folder, or refuse the archive."""
    name = member.name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    leads_out = name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name)
    if leads_out or re.search(r"[\\\x00-\x1f]", name):
        raise _refused(archive, name, "its path leads out of the target folder")
    if not (member.is_file or member.is_folder):
        raise _refused(archive, name, "it is a link or a device; allowed are plain files")
    if member.is_file and not parts:
        raise _refused(archive, name, "it has no name")
    return parts


def _refused(archive: Path, name: str, reason: str) -> UserError:
    return UserError(
        f"the archive {archive.name} was refused because of its member {name!r}: {reason}. "
        "Nothing of it was kept. Use an archive from a source you trust."
    )


def _is_left_out(part: str) -> bool:
    return part.startswith(".") or part in LEFT_OUT


def _write(archive: Path, member: Member, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        content = member.open()
        assert content is not None  # extractfile gives None for links and devices alone
        with content, target.open("xb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        reason = "the archive holds another member in the same place"
        raise _refused(archive, member.name, reason) from None
