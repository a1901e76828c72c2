"""What decoding showed of files, kept in one file from one start to the next. N files."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL

from src.memory import no_collections

# Part of the checksum: what counts as damaged, and the pixels, may change with either.
_RULES = f"waggle scan 4, Pillow {PIL.__version__}"
_PAIR = np.dtype((np.int64, 2))
_KEY = np.dtype((np.int64, 3))
_ROW = np.dtype([("key", "<i8", 3), ("hash", "V16"), ("size", "<i4", 2), ("finding", "<i4")])
_NO_HASH = "0" * 32
UNREADABLE = "can't be read"  # how errors begin that may be over next time, the file unchanged

# Size in bytes, and in ns the times of the last modification and of the last change; by Windows the
# latter is that of the creation. -1: no file. [N, 3]
Keys = npt.NDArray[np.int64]
Finding = tuple[str, tuple[str, ...]]  # error and notes


class Scan(NamedTuple):
    """What decoding one file showed.

    Attributes:
        hash: of size and upright RGB pixels; equal for exact duplicates, "" if damaged.
        width: upright, in pixels; 0 if damaged.
        height: upright, in pixels; 0 if damaged.
        error: what is wrong, "" if every pixel can be decoded.
        notes: what is odd and does no harm, such as "CMYK" or "trailing bytes".
    """

    hash: str
    width: int
    height: int
    error: str
    notes: tuple[str, ...] = ()


def keys_of(root: Path, paths: Sequence[str]) -> Keys:
    """Return what changes when a file does, [N, 3]."""
    folder = os.path.join(root, "")
    # os.path.join takes long for a million paths; it is for absolute ones alone.
    whole = (
        os.path.join(folder, path) if path[:1] == "/" or ":" in path else folder + path
        for path in paths
    )  # fmt: skip
    return np.fromiter(map(_key, whole), _KEY, len(paths))


def _key(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1, -1
    # The change time too: a copy may keep size and modification time.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass(frozen=True)
class Remembered:
    """Columns, since a million files as objects take gigabytes.

    Attributes:
        paths: [N].
        rows: of _ROW, [N].
        findings: what `finding` of a row is the position of.
    """

    paths: Sequence[str] = ()
    rows: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0, _ROW))
    findings: Sequence[Finding] = ()

    def still_true(self, paths: Sequence[str], keys: Keys) -> list[Scan | None]:
        """Return the scans of files that have not changed, None for the others."""
        found: list[Scan | None] = [None] * len(paths)
        with no_collections():
            place = {path: row for row, path in enumerate(self.paths)}
            at = np.fromiter((place.get(path, -1) for path in paths), np.int64, len(paths))
            here = np.flatnonzero(at >= 0)
            here = here[(self.rows["key"][at[here]] == keys[here]).all(axis=1)]
            for position, scan in zip(here.tolist(), self._scans(at[here]), strict=True):
                found[position] = scan
        return found

    def _scans(self, at: npt.NDArray[np.int64]) -> Iterable[Scan]:
        rows = self.rows[at]
        hashes = rows["hash"].tobytes().hex()
        columns = zip(rows["size"].tolist(), rows["finding"].tolist(), strict=True)
        for row, ((width, height), finding) in enumerate(columns):
            error, notes = self.findings[finding]
            content = "" if error else hashes[32 * row : 32 * row + 32]
            yield Scan(content, width, height, error, notes)

    def with_new(self, paths: Sequence[str], keys: Keys, scans: Sequence[Scan]) -> "Remembered":
        """Return these and other scans; of files scanned before, the other ones alone.

        Args:
            paths: Files, each once, [M].
            keys: Theirs, [M, 3].
            scans: Theirs, [M].
        """
        pairs = enumerate(zip(keys[:, 0].tolist(), scans, strict=True))
        lasting = [i for i, (size, scan) in pairs if size >= 0 and _lasts(scan)]
        if not lasting:
            return self
        others = {path: row for row, path in enumerate(self.paths)}
        for i in lasting:
            others.pop(paths[i], None)
        findings = {finding: number for number, finding in enumerate(self.findings)}
        rows = _rows(keys[lasting], [scans[i] for i in lasting], findings)
        return Remembered(
            [*others, *(paths[i] for i in lasting)],
            np.concatenate([self.rows[list(others.values())], rows]),
            list(findings),
        )


def _lasts(scan: Scan) -> bool:
    return not scan.error.startswith(UNREADABLE)


def _rows(keys: Keys, scans: Sequence[Scan], findings: dict[Finding, int]) -> npt.NDArray[Any]:
    """Return rows of _ROW; findings that are new are added to the numbered ones."""
    rows = np.empty(len(scans), _ROW)
    rows["key"] = keys
    hashes = "".join(scan.hash or _NO_HASH for scan in scans)
    rows["hash"] = np.frombuffer(bytes.fromhex(hashes), "V16")
    rows["size"] = np.fromiter(((s.width, s.height) for s in scans), _PAIR, len(scans))
    rows["finding"] = [findings.setdefault((s.error, s.notes), len(findings)) for s in scans]
    return rows


def read(file: Path | None) -> Remembered:
    """Return what is known; nothing where the file is absent, damaged or of other rules.

    The first line is the checksum of the rest, so a file that passes holds what was written. Its
    time becomes that of its latest use.
    """
    if file is None:
        return Remembered()
    try:
        checksum, body = file.read_bytes().split(b"\n", 1)
    except (OSError, ValueError):
        return Remembered()
    if checksum.decode("ascii", "replace") != _checksum(body):
        return Remembered()
    with contextlib.suppress(OSError):  # another user's
        os.utime(file)
    head, _, columns = body.partition(b"\n")
    count, findings = json.loads(head)
    rows = np.frombuffer(columns, _ROW, count)
    paths = os.fsdecode(columns[rows.nbytes :]).split("\0")
    return Remembered(paths, rows, [(error, tuple(notes)) for error, notes in findings])


def write(file: Path | None, known: Remembered) -> None:
    """Write the file whole or not at all; without it the next start is slow, and no worse."""
    if file is None:
        return
    head = json.dumps([len(known.paths), known.findings]).encode("ascii")
    body = b"".join((head, b"\n", known.rows.tobytes(), os.fsencode("\0".join(known.paths))))
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as out:
            temporary = out.name
            out.write(f"{_checksum(body)}\n".encode() + body)
        os.replace(temporary, file)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _checksum(body: bytes) -> str:
    return blake2b(_RULES.encode() + body, digest_size=16).hexdigest()
