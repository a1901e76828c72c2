"""Every file decoded once, and what that showed remembered from one start to the next."""

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from src.cores import usable_cores
from src.data import remembered
from src.data.home import alone, cache_home
from src.data.remembered import UNREADABLE, Keys, Scan
from src.preprocess import BadImageError, decode, orientation_of, to_upright_rgb

MAX_THREADS = 16  # each holds one decoded picture; more hardly help
MAX_QUEUED = 1024  # enough for the other threads while one has a very large picture

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
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_DEPTH_AT = 24  # where a PNG's header holds the bits per channel

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
    keys = remembered.keys_of(root, paths)
    found = remembered.read(cache).still_true(paths, keys)
    scans = [scan for scan in found if scan is not None]
    if len(scans) < len(paths):
        with _alone(cache):
            scans = _scan_new(root, paths, keys, cache, keep, show_progress)
    return scans


def _scan_new(
    root: Path,
    paths: Sequence[str],
    keys: Keys,
    cache: Path | None,
    keep: Keep | None,
    show_progress: bool,
) -> list[Scan]:
    """Return the scans, after decoding what the cache does not hold by now."""
    known = remembered.read(cache)
    found = known.still_true(paths, keys)
    # Each file once, in the order of the listing.
    pending = list({path: i for i, path in enumerate(paths) if found[i] is None}.values())
    scans: list[Scan] = []
    try:
        for _, result in scan_all(root, [paths[i] for i in pending], keep, show_progress):
            scans.append(result)
    finally:  # also when interrupted: what has been decoded need not be decoded again
        done = pending[: len(scans)]
        fresh = known.with_new([paths[i] for i in done], keys[done], scans)
        if fresh is not known:
            remembered.write(cache, fresh)
    new = {paths[i]: result for i, result in zip(pending, scans, strict=True)}
    return [new[p] if old is None else old for p, old in zip(paths, found, strict=True)]


@contextmanager
def _alone(cache: Path | None) -> Iterator[None]:
    """Hold the cache's lock; where none can be had, each process decodes for itself."""
    with contextlib.ExitStack() as held:
        if cache is not None:
            folder = cache.parent.with_name("scan_locks")  # the caches' own holds nothing but them
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone(folder / f"{cache.stem}.lock", "checking the pictures"))
        yield


def scan_all(
    root: Path, paths: Sequence[str], keep: Keep | None = None, show_progress: bool = True
) -> Generator[tuple[str, Scan], None, None]:
    """Decode files, whatever is known of them; yield each path with its scan. See `scan`.

    Pillow and the hash let go of the interpreter's lock.
    """
    if not paths:
        return
    pool = ThreadPoolExecutor(min(MAX_THREADS, usable_cores()))
    try:
        results = _in_order(pool, lambda path: scan_file(root / path, keep), paths)
        # Not even made where nobody would see it: a bar leaves a thread behind, which makes the
        # forks of the data loader warn.
        if show_progress and sys.stderr.isatty():
            results = iter(tqdm(results, "checking pictures", len(paths), leave=False))
        yield from zip(paths, results, strict=True)
    finally:  # an interrupt must not wait for the pictures still in the queue
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[str], Scan], paths: Iterable[str]
) -> Iterator[Scan]:
    """Do the work in the pool, which would itself queue all paths at once: a KiB for each."""
    waiting: deque[Future[Scan]] = deque()
    for path in paths:
        waiting.append(pool.submit(work, path))
        if len(waiting) == MAX_QUEUED:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def scan_file(path: Path, keep: Keep | None = None) -> Scan:
    """Decode one file; whatever is wrong with it becomes the scan's error. See `scan`."""
    try:
        image = decode(path)
        notes = _notes(path, image)
        upright = to_upright_rgb(image)
    except BadImageError as error:
        return Scan("", 0, 0, error.reason)
    except FileNotFoundError:
        return Scan("", 0, 0, "no such file, or a link to nothing")
    except OSError as error:
        return Scan("", 0, 0, f"{UNREADABLE}: {error.strerror or error}")
    digest = blake2b(f"{upright.width}x{upright.height}:".encode(), digest_size=16)
    digest.update(upright.tobytes())
    if keep:
        keep(digest.hexdigest(), upright)
    return Scan(digest.hexdigest(), upright.width, upright.height, "", notes)


def _notes(path: Path, image: Image.Image) -> tuple[str, ...]:
    content, mode = image.format or "", image.mode
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
            "alpha": image.has_transparency_data,
            "EXIF-rotated": orientation_of(image) in range(2, 9),
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


def _cache_file(root: Path) -> Path | None:
    name = blake2b(os.fsencode(os.path.realpath(root)), digest_size=16).hexdigest()
    try:
        return cache_home() / "scans" / f"{name}.scans"
    except RuntimeError:  # no home folder
        return None
