"""Every file decoded once, and what that showed remembered from one start to the next."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from hashlib import blake2b
from pathlib import Path

import PIL
from PIL import Image
from tqdm import tqdm

from src.data.home import alone, cache_home
from src.preprocess import BadImageError, decode, to_upright_rgb

MAX_THREADS = 16  # each holds one decoded picture; more hardly help

# Part of the cache's key: what counts as damaged, and the pixels, may change with either.
_RULES = f"waggle scan 1, Pillow {PIL.__version__}"
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
}
_FORMAT_OF = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}
_UNREADABLE = "can't be read"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_DEPTH_AT = 24  # where a PNG's header holds the bits per channel


@dataclass(frozen=True)
class Scan:
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


_Key = tuple[int, int]  # size in bytes, time of the last change in nanoseconds
_Known = dict[str, tuple[_Key, Scan]]


Keep = Callable[[str, Image.Image], None]  # is given content hash and upright RGB picture


def scan(
    root: Path, paths: Sequence[str], *, keep: Keep | None = None, show_progress: bool = True
) -> list[Scan]:
    """Decode every pixel of every file, in as many threads as there are cores.

    What was found is kept under `$XDG_CACHE_HOME/waggle/scans` (default ~/.cache), one file for
    each root, and holds as long as a file's size and time of change do. Of several processes that
    start together one decodes, and the others wait for what it finds.

    Args:
        root: the folder that relative paths start from.
        paths: files, as a listing holds them.
        keep: gets every picture that is decoded, from several threads; those known from an earlier
            start are not.
        show_progress: a bar on stderr, if that is a terminal.

    Returns:
        A scan for each path, in the same order. A file that is missing or damaged is one with an
        error; nothing is raised for it.
    """
    cache = _cache_file(root)
    keys = {path: _key(root / path) for path in paths}
    current = _still_true(_read_cache(cache), keys)
    if len(current) < len(keys):
        with _alone(cache):
            current = _scan_new(root, keys, cache, keep, show_progress)
    return [current[path] for path in paths]


def _still_true(known: _Known, keys: Mapping[str, _Key | None]) -> dict[str, Scan]:
    return {p: known[p][1] for p, key in keys.items() if p in known and known[p][0] == key}


def _scan_new(
    root: Path,
    keys: Mapping[str, _Key | None],
    cache: Path | None,
    keep: Keep | None,
    show_progress: bool,
) -> dict[str, Scan]:
    """Return the scans, after decoding what the cache does not hold by now."""
    known = _read_cache(cache)
    current = _still_true(known, keys)
    pending = [path for path in keys if path not in current]
    try:
        for path, result in scan_all(root, pending, keep, show_progress):
            current[path] = result
    finally:  # also when interrupted: what has been decoded need not be decoded again
        fresh: _Known = {}
        for path in pending:
            key, found = keys[path], current.get(path)
            # A file that can't be read may be readable next time, unchanged.
            if key and found and not found.error.startswith(_UNREADABLE):
                fresh[path] = key, found
        if fresh:
            _write_cache(cache, known | fresh)
    return current


@contextmanager
def _alone(cache: Path | None) -> Iterator[None]:
    """Hold the cache's lock; where none can be had, each process decodes for itself."""
    with contextlib.ExitStack() as held:
        if cache is not None:
            folder = cache.parent.with_name("scan_locks")  # the caches' own holds nothing but them
            with contextlib.suppress(OSError, NotImplementedError):
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone(folder / f"{cache.stem}.lock", "checking the pictures"))
        yield


def scan_all(
    root: Path, paths: Sequence[str], keep: Keep | None = None, show_progress: bool = True
) -> Iterator[tuple[str, Scan]]:
    """Decode files, whatever is known of them; yield each path with its scan. See `scan`.

    Pillow and the hash let go of the interpreter's lock.
    """
    if not paths:
        return
    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    try:
        results = pool.map(lambda path: scan_file(root / path, keep), paths)
        # Not even made where nobody would see it: a bar leaves a thread behind, which makes the
        # forks of the data loader warn.
        if show_progress and sys.stderr.isatty():
            results = iter(tqdm(results, "checking pictures", len(paths), leave=False))
        yield from zip(paths, results, strict=True)
    finally:  # an interrupt must not wait for the pictures still in the queue
        pool.shutdown(wait=True, cancel_futures=True)


def scan_file(path: Path, keep: Keep | None = None) -> Scan:
    """Decode one file; whatever is wrong with it becomes the scan's error. See `scan`."""
    try:
        image = decode(path)
        notes = _notes(path, image.format or "", image.mode, image.has_transparency_data)
        upright = to_upright_rgb(image)
    except BadImageError as error:
        return Scan("", 0, 0, error.reason)
    except FileNotFoundError:
        return Scan("", 0, 0, "no such file, or a link to nothing")
    except OSError as error:
        return Scan("", 0, 0, f"{_UNREADABLE}: {error.strerror or error}")
    digest = blake2b(f"{upright.width}x{upright.height}:".encode(), digest_size=16)
    digest.update(upright.tobytes())
    if keep:
        keep(digest.hexdigest(), upright)
    return Scan(digest.hexdigest(), upright.width, upright.height, "", notes)


def _notes(path: Path, content: str, mode: str, has_alpha: bool) -> tuple[str, ...]:
    content = {"MPO": "JPEG", "DIB": "BMP"}.get(content, content)
    said = _FORMAT_OF.get(path.suffix.lower(), content)
    with open(path, "rb") as file:
        head = file.read(_PNG_DEPTH_AT + 1)
        file.seek(-min(len(_PNG_END), os.fstat(file.fileno()).st_size), os.SEEK_END)
        tail = file.read()
        deep = mode.startswith("I") or (content == "PNG" and head[_PNG_DEPTH_AT] == 16)
        notes = {
            f"suffix says {said}, content is {content}": said != content,
            mode: mode in ("CMYK", "LAB"),
            "alpha": has_alpha,
            "16-bit": deep,
            "float": mode == "F",
        }
        if content == "JPEG" and not tail.endswith(b"\xff\xd9"):
            file.seek(0)
            data = file.read()
            # A marker after the last scan's start; an earlier one belongs to the thumbnail.
            ended = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
            notes["trailing bytes" if ended else "no end marker"] = True
        if content == "PNG" and tail != _PNG_END:
            notes["trailing bytes"] = True
    return tuple(note for note, holds in notes.items() if holds)


def _key(path: Path) -> _Key | None:
    """Return what changes when the file does; None for a file that is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    # The change time too: a copy may keep size and modification time.
    return status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)


def _cache_file(root: Path) -> Path | None:
    name = blake2b(os.fsencode(os.path.realpath(root)), digest_size=16).hexdigest()
    try:
        return cache_home() / "scans" / f"{name}.json"
    except RuntimeError:  # no home folder
        return None


def _read_cache(file: Path | None) -> _Known:
    """Return what is known; nothing where the file is absent, damaged or of other rules.

    The first line is the checksum of the second, so a file that passes holds what was written.
    """
    try:
        checksum, body = file.read_bytes().split(b"\n", 1) if file else (b"", b"")
    except (OSError, ValueError):
        return {}
    if checksum.decode("ascii", "replace") != _checksum(body):
        return {}
    return {
        path: ((size, time), Scan(content, width, height, error, tuple(notes)))
        for path, (size, time, content, width, height, error, notes) in json.loads(body).items()
    }


def _write_cache(file: Path | None, known: _Known) -> None:
    """Write the cache whole or not at all; without it the next start is slow, and no worse."""
    if file is None:
        return
    body = json.dumps({path: (*key, *astuple(found)) for path, (key, found) in known.items()})
    data = body.encode("ascii")
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as out:
            temporary = out.name
            out.write(f"{_checksum(data)}\n".encode() + data)
        os.replace(temporary, file)
    except OSError:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _checksum(body: bytes) -> str:
    return blake2b(_RULES.encode() + body, digest_size=16).hexdigest()
